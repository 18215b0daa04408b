"""How a runtime says that it could not do what it was asked."""

from __future__ import annotations

from lightwork.errors import PlatformError

__all__ = ["Conflict", "NoCapacity", "Rejected", "RuntimeFailure", "TimedOut", "Unreachable"]


class RuntimeFailure(PlatformError):
    """A runtime could not do what it was asked; the children say what that means for the caller."""


class Rejected(RuntimeFailure):
    """The request can never succeed as it stands: an unknown image, an option out of range."""


class NoCapacity(RuntimeFailure):
    """Nothing was created; the same request may succeed later."""


class Conflict(RuntimeFailure):
    """Something of that name exists already, made from another `Spec`."""


class Unreachable(RuntimeFailure):
    """The platform did not answer: the outcome is unknown, so ask (`Runtime.find`) before trying again."""


class TimedOut(RuntimeFailure):
    """It took longer than it may; what was made until then is found by `Runtime.find` and can be released."""
