"""What a runtime may implement besides: `Diagnosable`, `Inventory` and `Caching`."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

from lightwork.runtime._data import Ref

__all__ = ["Cached", "Caching", "Diagnosable", "Finding", "Health", "Holding", "Inventory"]


class Health(enum.StrEnum):
    """How something that a runtime needs is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at.

    Attributes:
        what: What it is, in a word or two: ``engine``, ``client library``.
        health: `Health.PROBLEM` where no work can be started without it.
        detail: What was found.
        fix: What to do about it, empty where nothing is to be done.
    """

    what: str
    health: Health
    detail: str
    fix: str = ""


@runtime_checkable
class Diagnosable(Protocol):
    """What a runtime may offer besides `Runtime`: to say whether works could be started here, and what is missing."""

    @classmethod
    async def diagnose(cls, name: str, options: Any) -> Sequence[Finding]:
        """Look at everything that a launch would need, and change nothing. The runtime is not entered for it.

        Bounded in time by whoever asks: cancelling it leaves nothing behind. What is wrong is a finding,
        never an error.

        Args:
            name: Name of the profile.
            options: Its options, an instance of `Runtime.Options`; None to look only at what every profile needs.
        """
        ...


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a runtime made for a launch, and that costs something until it is given back.

    Attributes:
        ref: The launch; `Runtime.release` gives the holding back.
        owner: Id of the scheduler that it was made for.
        work: Name of the work.
        place: The account that it is in: several profiles may be of one.
        id: The platform's, unique in `place`.
        size: The platform's word for the kind of thing.
        state: The platform's word for how it is.
        age: Seconds since it was made, None where the platform does not tell.
        is_wanted: Whether its scheduler lives; None where that cannot be told from here.
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
    """What a runtime implements besides `Runtime` where what it makes costs something and may be left behind."""

    async def holdings(self) -> Sequence[Holding]:
        """Everything that it has, of whatever owner; all of it, or an error."""
        ...


class Cached(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a runtime made for launches, and keeps so that later ones need not wait for it.

    Attributes:
        kind: What it is, in a word: ``image``, ``environment``, ``code``, ``wheels``.
        name: Its name, unique for its kind in `place`.
        place: The folder, machine or engine that it is in: several profiles may be of one.
        size: Bytes that are free without it, as far as that can be told.
        unused_for: Seconds since a launch last used it, by the clock of the place; None where that is not known.
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
    """What a runtime implements besides `Runtime` where it keeps what it made for launches.

    A launch is not disturbed by it: what it uses is not discarded, and what it finds gone it makes again.
    """

    async def cached(self) -> Sequence[Cached]:
        """Everything that is kept, by whatever app it was made; all of it, or an error.

        What others are made from comes after them, so that all can be discarded in this order.
        """
        ...

    async def discard(self, entry: Cached) -> bool:
        """Remove it, unless it is in use; says whether it is gone. One that is not there is.

        What is used by something that lives, on whatever machine the runtime can tell of, or is being made, is left as
        it is.

        Raises:
            RuntimeFailure: It could not be removed, or nobody knows.
        """
        ...
