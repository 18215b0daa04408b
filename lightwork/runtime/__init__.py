"""The seam between the scheduler and the places where works run.

A runtime brings a command to life somewhere, says what became of it, and ends it. It knows nothing of
works, calls or state: the worker that it starts dials back to the scheduler by itself, and the link says
whether it lives. The runtime is asked only to explain a death, to end what must end, and to give back
what it made.

To write one, implement `Runtime` and register the class under the entry point group ``lightwork.runtimes``.
"""

from __future__ import annotations

from lightwork.runtime._data import ABSENT, Address, Cause, ListenerAddress, Ref, Report, Spec, Standing
from lightwork.runtime._entry import outcome_of, resolve_entry, resolve_serve
from lightwork.runtime._failures import Conflict, NoCapacity, Rejected, RuntimeFailure, TimedOut, Unreachable
from lightwork.runtime._optional import Cached, Caching, Diagnosable, Finding, Health, Holding, Inventory
from lightwork.runtime._protocol import Runtime
from lightwork.runtime._tasks import TaskRuntime

__all__ = [
    "ABSENT",
    "Address",
    "Cached",
    "Caching",
    "Cause",
    "Conflict",
    "Diagnosable",
    "Finding",
    "Health",
    "Holding",
    "Inventory",
    "ListenerAddress",
    "NoCapacity",
    "Ref",
    "Rejected",
    "Report",
    "Runtime",
    "RuntimeFailure",
    "Spec",
    "Standing",
    "TaskRuntime",
    "TimedOut",
    "Unreachable",
    "outcome_of",
    "resolve_entry",
    "resolve_serve",
]
