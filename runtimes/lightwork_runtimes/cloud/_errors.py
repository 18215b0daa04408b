"""Translation of a driver's error into the failure of a runtime, with the cloud's own message."""

from __future__ import annotations

import re

from lightwork.runtime import NoCapacity, Rejected, RuntimeFailure, Unreachable

__all__ = ["explain"]

_CODE = re.compile(r"([A-Z][A-Za-z0-9]+(?:\.[A-Za-z0-9]+)*): ")

_LATER = re.compile(
    r"Insufficient\w*|\w*(?:Limit|Quota)Exceeded|MaxSpotInstanceCountExceeded|SpotMaxPriceTooLow|Throttling\w*"
    r"|InstanceLimitExceeded|Unsupported\w*Capacity\w*"
)
"""Codes for "no machine was created, and the same request may succeed later"."""

_LATER_WORDS = re.compile(r"quota|no valid host|capacity|limit exceeded|over ?limit|too many requests", re.IGNORECASE)
_LATER_STATUS = (413, 429)
_FIRST_OF_SERVER = 500


def explain(where: str, doing: str, error: BaseException, said: str) -> RuntimeFailure:
    """Return the failure for an error of a driver.

    Args:
        where: Name of the profile.
        doing: The request, such as ``to create a machine``.
        error: The driver's error.
        said: Its text, without secrets.
    """
    from libcloud.common.exceptions import BaseHTTPError
    from libcloud.common.types import InvalidCredsError, MalformedResponseError

    if isinstance(error, InvalidCredsError):
        return Rejected(f"{where}: the cloud rejected the credentials: {said}")
    found = _CODE.match(said)
    if (found is not None and _LATER.fullmatch(found[1])) or _LATER_WORDS.search(said):
        return NoCapacity(f"{where}: the cloud has no capacity {doing}: {said}")
    if isinstance(error, MalformedResponseError):
        return Unreachable(f"{where}: the cloud's answer to a request {doing} cannot be read: {said}")
    if isinstance(error, BaseHTTPError):
        status = error.code or 0
        if status in _LATER_STATUS:
            return NoCapacity(f"{where}: the cloud has no capacity {doing}: {said}")
        if status >= _FIRST_OF_SERVER:
            return Unreachable(f"{where}: the cloud failed {doing}: {said}")
        return Rejected(f"{where}: the cloud refused {doing}: {said}")
    if isinstance(error, OSError):  # exceptions of the library requests are OSErrors
        return Unreachable(f"{where}: the cloud could not be reached {doing}: {said}")
    return Rejected(f"{where}: the driver refused {doing}: {type(error).__name__}: {said}")
