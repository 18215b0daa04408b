"""What the machine keeps: works, the phases of their workers, and the calls that are not over. No rules."""

from __future__ import annotations

import enum
from collections import OrderedDict, deque

import msgspec

from lightwork.engine.rules.events import Outcome, Policy
from lightwork.status import Reason, Stage

__all__ = ["ModelCall", "ModelWork", "Phase", "Verdict"]

Verdict = tuple[Stage, Reason | None, str | None]
"""How a worker ends: stage, reason and message of the status that the work will have."""


class Phase(enum.StrEnum):
    """Where the worker of a work stands.

    `ABSENT`: there is none. `STARTING`: it is launched and has not said that it is ready. `UP`: it takes calls.
    `CUT`: it was up, and its connection is lost. `STOPPING`: its end was asked for, and the runtime has not
    said that it is over.
    """

    # That of an enum is a function of Python's; these are keys on the way of every call.
    __hash__ = str.__hash__

    ABSENT = "absent"
    STARTING = "starting"
    UP = "up"
    CUT = "cut"
    STOPPING = "stopping"


class ModelCall(msgspec.Struct, eq=False, gc=False):
    """One call that is not over. A struct, since one is made for each call, and no part of a cycle.

    Attributes:
        id, hash, args: As submitted.
        attempt: Which try it is, from 1; only grows.
        sent: Whether the present worker has it.
        ran: Whether the present try was published as running.
        ending: Why the worker was asked to cancel it, ``CANCELLED`` or ``TIMEOUT``; None while it was not, and
            whenever ``sent`` is False.
        delayed: Whether it waits for the delay of a retry; its timer ``retry`` runs then and only then.
    """

    id: int
    hash: str
    args: bytes
    attempt: int = 1
    sent: bool = False
    ran: bool = False
    ending: Reason | None = None
    delayed: bool = False


class ModelWork:
    """One work.

    Attributes:
        id, name, policy: As added.
        phase: Where its worker stands.
        attempt: Number of launches, the present one included.
        calls: Every call that is not over, by id.
        queue: All and only those neither sent nor delayed, in order; empty in ``absent``.
        running: All and only those sent, by id, at most ``policy.concurrency``; empty in ``absent`` and ``starting``.
        in_flight: The calls that another one may join, by hash; none that is ending, none of a worker that is stopping.
        results: Successes by hash with the number of the call, where ``cache_calls`` is set.
        failed: Hashes of calls whose latest outcome was no success; for explanations only, bounded.
        verdict: In ``stopping``: how the worker ends, for the status of the work and the calls still with the worker.
            None in other phases, and where the status has been told (see ``failure``).
        failure: In ``stopping``: why the worker never became ready, which has been told; else None.
        halted: Whether a stop was asked for since the latest launch: what this worker leaves is not tried again.
        restart: In ``stopping``: whether a start was asked for meanwhile; False in other phases.
        removed: Whether it is forgotten once its worker is absent.
    """

    __slots__ = (
        "attempt", "calls", "failed", "failure", "halted", "id", "in_flight", "name", "phase", "policy", "queue",
        "removed", "restart", "results", "running", "verdict",
    )  # fmt: skip

    def __init__(self, id: int, name: str, policy: Policy) -> None:
        self.id: int = id
        self.name: str = name
        self.policy: Policy = policy
        self.phase: Phase = Phase.ABSENT
        self.attempt: int = 0
        self.calls: dict[int, ModelCall] = {}
        self.queue: deque[ModelCall] = deque()
        self.running: dict[int, ModelCall] = {}
        self.in_flight: dict[str, ModelCall] = {}
        self.results: dict[str, tuple[int, Outcome]] = {}
        self.failed: OrderedDict[str, int] = OrderedDict()
        self.verdict: Verdict | None = None
        self.failure: str | None = None
        self.halted: bool = False
        self.restart: bool = False
        self.removed: bool = False
