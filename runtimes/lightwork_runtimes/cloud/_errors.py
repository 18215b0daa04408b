"""What an error of a driver means for who asked, with what the cloud said."""

from __future__ import annotations

import re

from lightwork.runtime import NoCapacity, Rejected, RuntimeFailure, Unreachable

__all__ = ["explain"]

_CODE = re.compile(r"([A-Z][A-Za-z0-9]+(?:\.[A-Za-z0-9]+)*): ")

_LATER = re.compile(
    r"Insufficient\w*|\w*(?:Limit|Quota)Exceeded|MaxSpotInstanceCountExceeded|SpotMaxPriceTooLow|Throttling\w*"
    r"|InstanceLimitExceeded|Unsupported\w*Capacity\w*"
)
"""Codes that say that nothing was made, and that the same may succeed another time."""

_LATER_WORDS = re.compile(r"quota|no valid host|capacity|limit exceeded|over ?limit|too many requests", re.IGNORECASE)
_LATER_STATUS = (413, 429)
_FIRST_OF_SERVER = 500


def explain(where: str, doing: str, error: BaseException, said: str) -> RuntimeFailure:
    """The failure that an error of a driver means.

    Args:
        where: Names the profile.
        doing: What was asked for, ``to make a machine``.
        error: What the driver raised.
        said: Its text, without secrets.
    """
    from libcloud.common.exceptions import BaseHTTPError
    from libcloud.common.types import InvalidCredsError, MalformedResponseError

    if isinstance(error, InvalidCredsError):
        return Rejected(f"{where}: the cloud does not accept the credentials: {said}")
    found = _CODE.match(said)
    if (found is not None and _LATER.fullmatch(found[1])) or _LATER_WORDS.search(said):
        return NoCapacity(f"{where}: the cloud has no room {doing}: {said}")
    if isinstance(error, MalformedResponseError):
        return Unreachable(f"{where}: the cloud's answer {doing} cannot be read: {said}")
    if isinstance(error, BaseHTTPError):
        status = error.code or 0
        if status in _LATER_STATUS:
            return NoCapacity(f"{where}: the cloud has no room {doing}: {said}")
        if status >= _FIRST_OF_SERVER:
            return Unreachable(f"{where}: the cloud failed {doing}: {said}")
        return Rejected(f"{where}: the cloud refused {doing}: {said}")
    if isinstance(error, OSError):  # requests' exceptions are such, too
        return Unreachable(f"{where}: the cloud could not be asked {doing}: {said}")
    return Rejected(f"{where}: the driver refused {doing}: {type(error).__name__}: {said}")
