"""Faults, as data. One seed makes one stream of faults, so that a run can be repeated."""

from __future__ import annotations

import random
from collections.abc import Iterator, Set
from typing import Literal

import msgspec

from tests.chaos.proxy import Way

__all__ = [
    "KINDS",
    "ClockBack",
    "Cut",
    "CutNext",
    "Delay",
    "Fault",
    "FullDisk",
    "HalfOpen",
    "Kill",
    "KillScheduler",
    "Pause",
    "PauseScheduler",
    "Reorder",
    "Silence",
    "Trickle",
    "faults",
]


class Base(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """A fault. `wait` is the pause before it in seconds; `target` is the index of a line or work, modulo the count."""

    wait: float
    target: int


class Cut(Base, frozen=True):
    """A connection ends after that many more bytes in a direction, by a reset or gracefully."""

    way: Way
    after: int
    reset: bool


class CutNext(Base, frozen=True):
    """A connection ends now, and the next one after that many bytes: in its handshake, its welcome or later."""

    way: Way
    after: int
    reset: bool


class Delay(Base, frozen=True):
    """The data of a connection is late for a while."""

    way: Way
    late: float
    seconds: float


class Trickle(Base, frozen=True):
    """That many bytes of a connection pass one by one."""

    way: Way
    size: int


class Silence(Base, frozen=True):
    """A connection carries nothing for a while, and neither end notices; then it goes on, if it still exists."""

    seconds: float


class HalfOpen(Base, frozen=True):
    """A connection ends towards one end only; the other end notices after a while."""

    side: Literal["worker", "scheduler"]
    seconds: float


class Reorder(Base, frozen=True):
    """Data that a worker sends on its next connection arrives after it has opened another one."""

    after: int
    seconds: float


class Kill(Base, frozen=True):
    """A worker's process gets SIGKILL."""


class Pause(Base, frozen=True):
    """A worker's process gets SIGSTOP, and later SIGCONT."""

    seconds: float


class PauseScheduler(Base, frozen=True):
    """The scheduler's process gets SIGSTOP, and later SIGCONT."""

    seconds: float


class KillScheduler(Base, frozen=True):
    """The scheduler's process gets SIGKILL, and is started again."""

    seconds: float


class FullDisk(Base, frozen=True):
    """The disk with the launch folders, and the disk of the journal, are full for a while."""

    seconds: float


class ClockBack(Base, frozen=True):
    """The wall clock of workers is set, mostly back."""

    by: float


Fault = (
    Cut
    | CutNext
    | Delay
    | Trickle
    | Silence
    | HalfOpen
    | Reorder
    | Kill
    | Pause
    | PauseScheduler
    | KillScheduler
    | FullDisk
    | ClockBack
)

_WEIGHTS: dict[type[Base], int] = {
    Cut: 24,
    CutNext: 18,
    Delay: 8,
    Trickle: 10,
    Silence: 6,
    HalfOpen: 6,
    Reorder: 6,
    Kill: 8,
    Pause: 6,
    PauseScheduler: 2,
    KillScheduler: 3,
    FullDisk: 2,
    ClockBack: 3,
}


KINDS = frozenset(_WEIGHTS)
"""Every kind of fault."""


def faults(seed: int, kinds: Set[type[Base]], *, pace: float = 0.12) -> Iterator[Fault]:
    """Yield faults forever. `pace` is the median pause between two; `kinds` are the kinds that can occur."""
    chance = random.Random(seed)
    chosen = [kind for kind in _WEIGHTS if kind in kinds]
    weights = [_WEIGHTS[kind] for kind in chosen]
    while True:
        yield _draw(chance, chance.choices(chosen, weights)[0], chance.uniform(0, 2 * pace))


def _draw(chance: random.Random, kind: type[Base], wait: float) -> Fault:
    target = chance.randrange(1 << 16)
    way: Way = chance.choice(("up", "down"))
    after = int(chance.choice((1, 100, 400, 3000)) * chance.random()) + 1
    reset = chance.random() < 0.7
    # Mostly short; sometimes longer than the reconnect window, so that workers are lost.
    seconds = chance.choice((0.05, 0.2, 0.2, 0.5, 0.5, 1.0, 1.0, 7.0)) * chance.uniform(0.5, 1)
    short = min(seconds, 0.8)
    if kind is Cut:
        return Cut(wait=wait, target=target, way=way, after=after, reset=reset)
    if kind is CutNext:
        return CutNext(wait=wait, target=target, way=way, after=after, reset=reset)
    if kind is Delay:
        return Delay(wait=wait, target=target, way=way, late=chance.uniform(0.001, 0.1), seconds=seconds)
    if kind is Trickle:
        return Trickle(wait=wait, target=target, way=way, size=after)
    if kind is Silence:
        return Silence(wait=wait, target=target, seconds=seconds)
    if kind is HalfOpen:
        return HalfOpen(wait=wait, target=target, side=chance.choice(("worker", "scheduler")), seconds=seconds)
    if kind is Reorder:
        return Reorder(wait=wait, target=target, after=84 + after, seconds=short)
    if kind is Kill:
        return Kill(wait=wait, target=target)
    if kind is Pause:
        return Pause(wait=wait, target=target, seconds=seconds)
    if kind is PauseScheduler:
        return PauseScheduler(wait=wait, target=target, seconds=short)
    if kind is KillScheduler:
        return KillScheduler(wait=wait, target=target, seconds=short)
    if kind is FullDisk:
        return FullDisk(wait=wait, target=target, seconds=short)
    return ClockBack(wait=wait, target=target, by=chance.choice((-86400.0, -3600.0, -1.0, 5.0)))
