"""Runs an app to its end in a loop of its own: signals in, exit code out."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any, Protocol, Self

import click

from lightwork.changes import Change
from lightwork.cli.plain import View
from lightwork.cli.report import format_error
from lightwork.errors import ConfigError, JournalError

__all__ = ["Interrupts", "Runnable", "serve", "supervise"]

_STUCK = 1.0
"""Seconds after which a signal that the loop has not heard means that something blocks the loop."""


class Runnable(Protocol):
    """What is needed of an app here; `lightwork.App` says what each does."""

    @property
    def stop_message(self) -> str | None:
        """What the flow said when it stopped."""

    @property
    def works(self) -> Sequence[Any]:
        """The works that exist now."""

    @property
    def url(self) -> str | None:
        """Where its HTTP side is, while it runs; None without one."""

    @property
    def token(self) -> str | None:
        """What that asks for; None where it asks for nothing."""

    async def __aenter__(self) -> Any:
        """Begin to run."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None:
        """End everything; raise if the app failed."""

    async def wait_stopped(self) -> Any:
        """Return when it is to end."""

    def stop(self, message: str | None = None) -> Any:
        """End everything in order."""

    def kill(self) -> Any:
        """End everything now."""

    def watch(self, fn: Callable[[Change], None], /) -> Callable[[], Any]:
        """Call `fn` with every change from now on, until the returned function is called."""


class Interrupts:
    """Turns signals into orders: the first stops the app in order, the second ends it now.

    A third ends this process without waiting for anything. Handlers take no lock: all but counting
    happens in the loop. A flow that blocks the loop cannot be stopped that way, so a signal that comes
    while an earlier one has been waiting for `_STUCK` seconds raises `KeyboardInterrupt` where it blocks.

    Attributes:
        exit_code: What the signals make of the exit code (128 and the signal's number), None without one.
        is_killed: Whether the second one came.
    """

    def __init__(self, app: Runnable, say: Callable[[str], None], exit_now: Callable[[int], Any] = os._exit) -> None:
        self.exit_code: int | None = None
        self.is_killed: bool = False
        self._app = app
        self._say = say
        self._exit_now = exit_now
        self._heard = 0
        self._is_over = False
        self._waiting_since: float | None = None
        self._taken: list[signal.Signals] = []

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Under nohup a hang-up is ignored, and stays so.
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue
            loop.add_signal_handler(number, self._hear, number)
            # The loop is woken by the file descriptor it has set, whatever the handler is. This one sees a
            # signal even while the loop is blocked.
            signal.signal(number, self._arrive)
            self._taken.append(number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        loop = asyncio.get_running_loop()
        for number in self._taken:
            loop.remove_signal_handler(number)

    def _arrive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._waiting_since is None:
            self._waiting_since = now
        elif now - self._waiting_since > _STUCK:
            raise KeyboardInterrupt

    def _hear(self, number: signal.Signals) -> None:
        if self._is_over:
            return  # it came when the app had ended, before the loop could hear it
        self._waiting_since = None
        self._heard += 1
        self.exit_code = 128 + number
        if self._heard == 1:
            self._say(f"{number.name}: stopping in order; once more ends everything now")
            self._app.stop(f"interrupted by {number.name}")
        elif self._heard == 2:
            self.is_killed = True
            self._say(f"{number.name}: ending everything now")
            self._app.kill()
        else:
            self._exit_now(self.exit_code)


def serve(
    app: Runnable, view: View, *, use_uvloop: bool = False, full_tracebacks: bool = False, tells_token: bool = False
) -> int:
    """Run the app to its end in a new event loop; the exit code. See `supervise`.

    Raises:
        click.UsageError: If uvloop is asked for and not installed.
    """
    with asyncio.Runner(loop_factory=_uvloop_factory() if use_uvloop else None) as runner:
        return runner.run(supervise(app, view, full_tracebacks=full_tracebacks, tells_token=tells_token))


async def supervise(
    app: Runnable,
    view: View,
    *,
    full_tracebacks: bool = False,
    tells_token: bool = False,
    exit_now: Callable[[int], Any] = os._exit,
) -> int:
    """Run the app in this loop, show it, obey signals; the exit code.

    With `tells_token` the view is told the address of the HTTP side with its token, which opens it in a browser.

    Errors of the app are printed to standard error, not raised. After a second signal the process ends here,
    by `exit_now`: at that point a thread that a flow left behind must not hold it up.
    """
    error: BaseException | None = None
    with Interrupts(app, view.message, exit_now) as interrupts:
        unsubscribe = app.watch(view.change)
        view.start(app.works)
        try:
            async with app:
                if app.url is not None:
                    view.serving(f"{app.url}/?token={app.token}" if tells_token and app.token else app.url)
                await app.wait_stopped()
        except asyncio.CancelledError as cancelled:
            if interrupts.exit_code is None:
                raise
            error = cancelled
        except Exception as raised:
            error = raised
        finally:
            unsubscribe()
            if error is None and app.stop_message and interrupts.exit_code is None:
                view.message(f"stopped: {app.stop_message}")
            view.stop()
    if interrupts.is_killed:
        sys.stdout.flush()
        sys.stderr.flush()
        exit_now(interrupts.exit_code or 1)
    return _exit_code(error, interrupts, full_tracebacks)


def _exit_code(error: BaseException | None, interrupts: Interrupts, full_tracebacks: bool) -> int:
    is_misconfigured = isinstance(error, (ConfigError, JournalError))
    if is_misconfigured and not full_tracebacks:
        # Some of the configuration can only be checked by starting: a busy port, a runtime that is not there, a journal
        # that is another app's. Its message says what to do, and no line of the user's has to do with it.
        click.echo(f"Error: {error}", err=True)
    elif error is not None and not isinstance(error, asyncio.CancelledError) and not interrupts.is_killed:
        click.echo(format_error(error, full=full_tracebacks), err=True, nl=False)
    if interrupts.exit_code is not None:
        return interrupts.exit_code
    if is_misconfigured:
        return 2
    return 0 if error is None else 1


def _uvloop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        raise click.UsageError("uvloop is not installed; install lightwork[uvloop], or leave out --uvloop") from None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
