"""Protocols that a runtime may implement in addition to `Runtime`: `Diagnosable`, `Inventory` and `Caching`."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

from lightwork.runtime._data import Ref

__all__ = ["Cached", "Caching", "Diagnosable", "Finding", "Health", "Holding", "Inventory"]


class Health(enum.StrEnum):
    """The condition of something that a runtime needs."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(msgspec.Struct, frozen=True):
    """The result of one check of a diagnosis.

    Attributes:
        what: What was checked, in a word or two: ``engine``, ``client library``.
        health: `Health.PROBLEM` if no work can start without it.
        detail: What the check found.
        fix: What to do about it; empty if nothing needs to be done.
    """

    what: str
    health: Health
    detail: str
    fix: str = ""


@runtime_checkable
class Diagnosable(Protocol):
    """A runtime that can check whether works could start here, and what is missing. Optional."""

    @classmethod
    async def diagnose(cls, name: str, options: Any) -> Sequence[Finding]:
        """Check everything that a launch would need, and change nothing. The runtime need not be entered.

        The caller limits the time; cancelling leaves nothing behind. A problem is returned as a finding and never
        raised.

        Args:
            name: Name of the profile.
            options: Options of the profile, an instance of `Runtime.Options`; None to check only what every profile
                needs.
        """
        ...


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """A resource that a runtime made for a launch and that costs money until it is freed.

    Attributes:
        ref: The launch. `Runtime.release` frees the resource.
        owner: Id of the scheduler for which the resource was made.
        work: Name of the work.
        place: Account that has the resource. Several profiles may share one account.
        id: Id that the platform gave it, unique in `place`.
        size: Kind of resource, in the platform's words.
        state: State of the resource, in the platform's words.
        age: Seconds since it was made; None if the platform does not report the time.
        is_wanted: Whether its scheduler lives; None if this machine cannot find out.
    """

    ref: Ref
    owner: str
    work: str
    place: str
    id: str
    size: str
    state: str
    age: float | None
    is_wanted: bool | None


@runtime_checkable
class Inventory(Protocol):
    """A runtime that can list the resources that it made. For runtimes whose leftovers cost money."""

    async def holdings(self) -> Sequence[Holding]:
        """Return every resource of every owner. Raise an error if the list would be incomplete."""
        ...


class Cached(msgspec.Struct, frozen=True, kw_only=True):
    """A cache entry: something that a runtime made for launches and keeps, so that later launches start faster.

    Attributes:
        kind: What it is, in a word: ``image``, ``environment``, ``code``, ``wheels``.
        name: Name, unique for its kind in `place`.
        place: Folder, machine or engine that has the entry. Several profiles may share one place.
        size: Bytes that its removal would free, as far as known.
        unused_for: Seconds since a launch last used it, by the clock of the place; None if not known.
        in_use: Whether it is used now, or being made.
        detail: What it was made from, for people. No secrets.
    """

    kind: str
    name: str
    place: str
    size: int
    unused_for: float | None
    in_use: bool
    detail: str = ""


@runtime_checkable
class Caching(Protocol):
    """A runtime that keeps what it made for launches, and can list and remove it.

    Removing entries does not disturb launches: an entry in use is not removed, and a launch makes a missing entry
    again.
    """

    async def cached(self) -> Sequence[Cached]:
        """Return every entry, made by any app. Raise an error if the list would be incomplete.

        An entry comes before the entries that it was made from, so all can be discarded in this order.
        """
        ...

    async def discard(self, entry: Cached) -> bool:
        """Remove an entry, unless it is in use. Return whether it is gone; True if it did not exist.

        An entry stays if something alive uses it, on any machine that the runtime can check, or if it is being made.

        Raises:
            RuntimeFailure: The entry could not be removed, or the outcome is unknown.
        """
        ...
