"""The state of the machine: works, the phases of their workers, and the calls that have not ended. No rules."""

from __future__ import annotations

import enum
from collections import OrderedDict, deque

import msgspec

from lightwork.engine.rules.events import Outcome, Policy
from lightwork.status import Reason, Stage

__all__ = ["Contact", "ModelCall", "ModelWork", "Phase", "Verdict"]

Verdict = tuple[Stage, Reason | None, str | None]
"""How a worker ends: stage, reason and message of the last status of the work."""


class Phase(enum.StrEnum):
    """Where the worker of a work stands.

    `ABSENT`: there is no worker. `STARTING`: it is launched and has not said that it is ready. `UP`: it takes calls.
    `CUT`: it was up, and its connection is lost. `STOPPING`: it was told to end, and the runtime has not reported
    its end.
    """

    # The hash of an enum is a Python function; phases are dictionary keys that every call looks up.
    __hash__ = str.__hash__

    ABSENT = "absent"
    STARTING = "starting"
    UP = "up"
    CUT = "cut"
    STOPPING = "stopping"


class Contact(enum.StrEnum):
    """Whether the machine knows what the worker has. A scheduler that was killed leaves workers that it does not.

    `LIVE`: it knows, and commands go to the worker. `AWAY`: the scheduler has resumed, and the worker has not returned.
    `BEHIND`: the worker has returned, and what it sent before has not all arrived. In `AWAY` and `BEHIND` nothing is
    sent to the worker; in the end the machine sends what is still in force.
    """

    LIVE = "live"
    AWAY = "away"
    BEHIND = "behind"


class ModelCall(msgspec.Struct, eq=False, gc=False):
    """One call that has not ended. A struct, since one is made for each call; it cannot be part of a cycle.

    Attributes:
        id, hash: As submitted.
        args: As submitted, in msgpack. Empty for a recovered call whose arguments are lost: it cannot be tried again.
        attempt: Number of the present try, from 1; only grows.
        sent: Whether the present worker has the call, or gets it as soon as contact with it is `LIVE` again.
        ran: Whether the present try was published as running.
        ending: Why the worker was told to cancel the call, ``CANCELLED`` or ``TIMEOUT``; None before that, and whenever
            ``sent`` is False.
        delayed: Whether the call waits for the delay of a retry; its timer ``retry`` runs then and only then.
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
        contact: Whether the machine knows what the worker has; `LIVE` in ``absent``.
        calls: Every call that has not ended, by id.
        queue: All and only the calls neither sent nor delayed, in order; empty in ``absent``.
        running: All and only the calls sent, by id; empty in ``absent`` and ``starting``. A call is sent only while
            there are fewer than ``policy.concurrency``.
        in_flight: The calls that another one may join, by hash; none that is ending, none of a worker that is stopping.
        results: Successes by hash with the number of the call; empty without ``cache_calls``.
        failed: Hashes of calls whose latest outcome was no success; for explanations only, bounded.
        over: Calls that ended while the worker was `AWAY`. The worker may have one of them and not know that it ended:
            its outcome is known to the callers, and only a success still counts. Empty once the worker is gone.
        verdict: In ``stopping``: how the worker ends, for the status of the work and the calls still with the worker.
            None in other phases, and where the status is published already (see ``failure``).
        failure: In ``stopping``: why the worker never became ready, where that is published; else None.
        halted: Whether a stop was requested since the latest launch: calls of this worker are not tried again.
        restart: In ``stopping``: whether a start was requested meanwhile; False in other phases.
        removed: Whether the work is forgotten once its worker is absent.
    """

    __slots__ = (
        "attempt", "calls", "contact", "failed", "failure", "halted", "id", "in_flight", "name", "over", "phase",
        "policy", "queue", "removed", "restart", "results", "running", "verdict",
    )  # fmt: skip

    def __init__(self, id: int, name: str, policy: Policy) -> None:
        self.id: int = id
        self.name: str = name
        self.policy: Policy = policy
        self.phase: Phase = Phase.ABSENT
        self.attempt: int = 0
        self.contact: Contact = Contact.LIVE
        self.calls: dict[int, ModelCall] = {}
        self.queue: deque[ModelCall] = deque()
        self.running: dict[int, ModelCall] = {}
        self.in_flight: dict[str, ModelCall] = {}
        self.results: dict[str, tuple[int, Outcome]] = {}
        self.failed: OrderedDict[str, int] = OrderedDict()
        self.over: set[int] = set()
        self.verdict: Verdict | None = None
        self.failure: str | None = None
        self.halted: bool = False
        self.restart: bool = False
        self.removed: bool = False
