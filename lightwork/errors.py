"""Every error that lightwork raises, by what you should do about it.

`UsageError` and its children: the program is wrong; mend the line that raised. `WorkError` and its
children: a call did not succeed; the reason is in the type. `PlatformError`: the runtime could not
provide what was asked. `ProtocolError`: whoever is at the other end of a connection is not ours.
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
    """The base of every error of lightwork."""


class UsageError(LightworkError):
    """The program uses lightwork in a way that cannot work; the message says how to mend it."""


class ComponentError(UsageError, TypeError):
    """A component is built or placed wrongly: no ``run``, no ``super().__init__()``, two parents, ..."""


class StateError(UsageError, TypeError, AttributeError):
    """A state attribute that was not declared, or a value that the state cannot hold.

    It is an `AttributeError` too, so that ``hasattr`` and ``getattr`` with a default stay well-behaved.
    """


class ArgumentsError(UsageError, TypeError):
    """The arguments of a call do not fit the signature or the annotations of ``run``."""


class ConfigError(UsageError, ValueError):
    """A key of the configuration is unknown, or its value is bad; names the key and where it stands."""


class JournalError(LightworkError):
    """A journal cannot be used: in use, damaged, of another app or a newer version, or it cannot be written."""


class LayoutError(UsageError, ValueError):
    """``configure_layout`` raised or gave what cannot be shown, or a `Frontend` cannot be served."""


class ScheduleError(UsageError, ValueError):
    """A cron pattern is none; names the pattern and the field, and gives an example."""


class ProposalRefused(LightworkError):
    """A running work refused a change that the flow made to its state."""


class AppEnded(LightworkError):
    """The app ended before what was waited for came true."""


class AppUnreachable(LightworkError):
    """No app answers where one was expected: it has ended, is somewhere else, or what answers is no app."""


class RequestFailed(LightworkError):
    """A running app did not do what a `lightwork.client.Client` asked.

    Attributes:
        code: Why, for programs: ``unknown_work``, ``refused``, ...; see ``docs/http.md``.
        status: The HTTP status.
        detail: What else the app says, by name.
    """

    def __init__(self, message: str, *, code: str, status: int = 0, detail: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.detail = detail


class FlowFailed(LightworkError):
    """The flow called ``self.fail(message)``."""


class PlatformError(LightworkError):
    """The runtime cannot provide what was asked: a quota, a capacity, a missing engine."""


LightningPlatformException = PlatformError


class WorkError(LightworkError):
    """A call failed in its work.

    Raised itself where the exception's own class is not imported here; its children say that the call
    failed for another reason than an exception of the user's.

    Attributes:
        work: Name of the work, ``root.trials.0``.
        type_name: Qualified name of the remote exception's class, empty for the children.
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
    """The call took longer than the work's ``timeout``, or its machine did not come up in time."""


class InvalidReturnValue(WorkError, TypeError):
    """``run`` returned a value that cannot be encoded."""


class WorkerDied(WorkError):
    """The work's process ended, or was lost, while the call was with it."""


class LaunchFailed(WorkError, PlatformError):
    """The work's process could not be started, or never came up; the cause is chained where it is an exception."""


class CallStopped(WorkError):
    """The work was stopped before the call was done."""


class ProtocolError(LightworkError):
    """The peer of a connection sent what it must not; the connection is closed."""


class RemoteTraceback(Exception):
    """Carries the text of a worker's traceback as the ``__cause__`` of the exception raised here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"
