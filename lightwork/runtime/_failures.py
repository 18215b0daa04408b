"""The exceptions of runtimes."""

from __future__ import annotations

from lightwork.errors import PlatformError

__all__ = ["Conflict", "NoCapacity", "Rejected", "RuntimeFailure", "TimedOut", "Unreachable"]


class RuntimeFailure(PlatformError):
    """A runtime could not do what the scheduler requested. The subclasses say what the caller can do."""


class Rejected(RuntimeFailure):
    """The request can never succeed unchanged, for example an unknown image or an option out of range."""


class NoCapacity(RuntimeFailure):
    """Nothing was created; the same request may succeed later."""


class Conflict(RuntimeFailure):
    """A launch of the same name exists already, made from another `Spec`."""


class Unreachable(RuntimeFailure):
    """The platform did not answer, so the outcome is unknown. Call `Runtime.find` before you try again."""


class TimedOut(RuntimeFailure):
    """The operation exceeded its time limit. `Runtime.find` returns what was made until then; it can be released."""
