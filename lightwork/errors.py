"""Every error that lightwork raises, grouped by what you should do about it.

`UsageError` and its subclasses: the program is wrong; correct the line that raised. `WorkError` and its subclasses: a
call did not succeed; the type tells the reason. `PlatformError`: the runtime could not provide what was requested.
`ProtocolError`: the peer of a connection broke the protocol.
"""

from __future__ import annotations

__all__ = [
    "AppEnded",
    "AppUnreachable",
    "ArgumentsError",
    "CallStopped",
    "CallTimeout",
    "ComponentError",
    "ConfigError",
    "FlowFailed",
    "InvalidReturnValue",
    "JournalError",
    "LaunchFailed",
    "LayoutError",
    "LightningPlatformException",
    "LightworkError",
    "PlatformError",
    "ProposalRefused",
    "ProtocolError",
    "RemoteTraceback",
    "RequestFailed",
    "ScheduleError",
    "StateError",
    "UsageError",
    "WorkError",
    "WorkerDied",
]


class LightworkError(Exception):
    """Base class of every error of lightwork."""


class UsageError(LightworkError):
    """The program uses lightwork wrongly. The message says how to correct it."""


class ComponentError(UsageError, TypeError):
    """A component is built or placed wrongly: no ``run``, no call of ``super().__init__()``, two parents, ..."""


class StateError(UsageError, TypeError, AttributeError):
    """A state attribute was not set in ``__init__``, or the state cannot hold a value.

    It is also an `AttributeError`, so that ``hasattr`` and ``getattr`` with a default work as usual.
    """


class ArgumentsError(UsageError, TypeError):
    """The arguments of a call do not fit the signature or the annotations of ``run``."""


class ConfigError(UsageError, ValueError):
    """A configuration key is unknown, or its value is invalid. The message names the key and the origin."""


class JournalError(LightworkError):
    """A journal cannot be used: it is in use, damaged, not writable, or of another app or a newer version."""


class LayoutError(UsageError, ValueError):
    """``configure_layout`` raised or returned an invalid layout, or a `Frontend` cannot be served."""


class ScheduleError(UsageError, ValueError):
    """Invalid cron pattern. The message names the pattern and the field, and has an example."""


class ProposalRefused(LightworkError):
    """A running work refused a change that the flow proposed to its state."""


class AppEnded(LightworkError):
    """The app ended before an awaited condition became true."""


class AppUnreachable(LightworkError):
    """No app answers at the expected address: it has ended, listens elsewhere, or another program answers."""


class RequestFailed(LightworkError):
    """A running app rejected a request of a `lightwork.client.Client`.

    Attributes:
        code: Machine-readable reason: ``unknown_work``, ``refused``, ...; see ``docs/http.md``.
        status: The HTTP status.
        detail: Further fields of the response, by name.
    """

    def __init__(self, message: str, *, code: str, status: int = 0, detail: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.detail = detail


class FlowFailed(LightworkError):
    """The flow called ``self.fail(message)``."""


class PlatformError(LightworkError):
    """The runtime cannot provide what was requested: a quota or a capacity is exhausted, or an engine is missing."""


LightningPlatformException = PlatformError


class WorkError(LightworkError):
    """A call failed in its work.

    `WorkError` itself replaces an exception of ``run`` whose class is not imported in this process. A subclass means
    that the call failed for a reason other than an exception of ``run``.

    Attributes:
        work: Name of the work, ``root.trials.0``.
        type_name: Qualified name of the remote exception's class, empty for the subclasses.
    """

    def __init__(self, message: str, *, work: str = "", type_name: str = "") -> None:
        super().__init__(message)
        self.work = work
        self.type_name = type_name

    def __reduce__(self) -> tuple[object, ...]:
        return type(self)._rebuild, (type(self), str(self), self.work, self.type_name)

    @staticmethod
    def _rebuild(cls: type[WorkError], message: str, work: str, type_name: str) -> WorkError:
        return cls(message, work=work, type_name=type_name)


class CallTimeout(WorkError, TimeoutError):
    """The call took longer than the work's ``timeout``, or its machine did not start in time."""


class InvalidReturnValue(WorkError, TypeError):
    """``run`` returned a value that cannot be encoded."""


class WorkerDied(WorkError):
    """The work's process died or was lost during the call."""


class LaunchFailed(WorkError, PlatformError):
    """The work's process could not be started or did not become ready. If an exception caused it, it is chained."""


class CallStopped(WorkError):
    """The work was stopped before the call finished."""


class ProtocolError(LightworkError):
    """The peer of a connection broke the protocol. The connection is closed."""


class RemoteTraceback(Exception):
    """Carries the text of a worker's traceback as the ``__cause__`` of the exception raised here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"
