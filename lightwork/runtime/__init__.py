"""The interface between the scheduler and the places where works run.

A runtime starts a command somewhere, reports what became of it, and ends it. It has no notion of works, calls or
state. The worker that it starts dials back to the scheduler by itself, and the link shows whether the worker lives.
The scheduler asks the runtime only to explain a death, to end a worker, and to free what the runtime made.

To write a runtime, implement `Runtime` and register the class under the entry point group ``lightwork.runtimes``.
"""

from __future__ import annotations

from lightwork._common.backoff import Backoff
from lightwork._common.public import export as _export
from lightwork._common.system import is_loopback, signal_name
from lightwork.runtime._data import ABSENT, Address, Cause, ListenerAddress, Ref, Report, Spec, Standing
from lightwork.runtime._entry import outcome_of, resolve_entry, resolve_serve
from lightwork.runtime._failures import Conflict, NoCapacity, Rejected, RuntimeFailure, TimedOut, Unreachable
from lightwork.runtime._optional import Cached, Caching, Diagnosable, Finding, Health, Holding, Inventory
from lightwork.runtime._protocol import Runtime
from lightwork.runtime._tasks import TaskRuntime

__all__ = [
    "ABSENT",
    "Address",
    "Backoff",
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
    "is_loopback",
    "outcome_of",
    "resolve_entry",
    "resolve_serve",
    "signal_name",
]

_export(__name__, *(value for name, value in list(globals().items()) if name in __all__ and isinstance(value, type)))
