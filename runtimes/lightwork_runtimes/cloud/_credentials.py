"""The secrets of a driver. They are read when they are needed, and removed from every text of this package."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from urllib.parse import quote, quote_plus

from lightwork.runtime import Rejected

__all__ = ["Credentials"]

_SHORTEST = 4
"""Shorter values are not removed from texts, because they would match everywhere."""


class Credentials:
    """Values by argument of the driver. Neither its repr nor a text from `scrub` shows a value.

    Args:
        where: Name of the profile for messages.
        sources: ``env:NAME`` or ``file:PATH`` by argument.

    Raises:
        Rejected: A variable is not set, or a file cannot be read or is readable by other users.
    """

    def __init__(self, where: str, sources: Mapping[str, str]) -> None:
        self._values = {key: _read(f"{where}: credentials.{key}", source) for key, source in sources.items()}

    def __repr__(self) -> str:
        return f"Credentials({', '.join(self._values)})"

    def arguments(self) -> dict[str, str]:
        """Return the arguments for the driver's constructor."""
        return dict(self._values)

    def scrub(self, text: str) -> str:
        """Return the text with every value replaced, in plain and in URL-quoted form."""
        for value in sorted(self._values.values(), key=len, reverse=True):
            if len(value) >= _SHORTEST:
                for form in (value, quote(value, safe=""), quote(value), quote_plus(value)):
                    text = text.replace(form, "***")
        return text


def _read(where: str, source: str) -> str:
    kind, _, place = source.partition(":")
    if kind == "env":
        value = os.environ.get(place, "")
        if not value:
            raise Rejected(f"{where}: the variable {place} is not set")
        return value
    path = os.path.expanduser(place)
    try:
        with open(path, encoding="utf-8") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise Rejected(f"{where}: {path} can be read by other users; run chmod 600")
            value = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected(f"{where}: {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not value:
        raise Rejected(f"{where}: {path} is empty")
    return value
