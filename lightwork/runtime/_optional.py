"""What a runtime may implement besides: `Diagnosable` and `Inventory`."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

from lightwork.runtime._data import Ref

__all__ = ["Diagnosable", "Finding", "Health", "Holding", "Inventory"]


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
