"""Runs an app until it ends, handles signals, and returns the exit code."""

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
"""Seconds after which a signal that the event loop has not handled means that the loop is blocked."""


class Runnable(Protocol):
    """The part of an app that this module uses. `lightwork.App` describes each member."""

    @property
    def stop_message(self) -> str | None:
        """The message with which the flow stopped."""

    @property
    def works(self) -> Sequence[Any]:
        """The present works."""

    @property
    def url(self) -> str | None:
        """The URL of its HTTP server while it runs; None without a server."""

    @property
    def token(self) -> str | None:
        """The token that clients of the HTTP server need; None if they need none."""

    async def __aenter__(self) -> Any:
        """Start the app."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None:
        """End everything, and raise if the app failed."""

    async def wait_stopped(self) -> Any:
        """Return when the app has to end."""

    def stop(self, message: str | None = None) -> Any:
        """End everything gracefully."""

    def kill(self) -> Any:
        """End everything now."""

    def watch(self, fn: Callable[[Change], None], /) -> Callable[[], Any]:
        """Call `fn` with every change until the returned function is called."""


class Interrupts:
    """Handles signals: the first signal stops the app gracefully, the second kills it.

    A third signal ends this process without waiting for anything. The handlers take no lock: they run in the event
    loop. A flow that blocks the loop cannot be stopped that way. Therefore a signal that arrives while an earlier
    signal has waited for more than `_STUCK` seconds raises `KeyboardInterrupt` in the blocking code.

    Attributes:
        exit_code: 128 plus the number of the last signal; None if no signal arrived.
        is_killed: Whether the second signal has arrived.
    """

    def __init__(self, app: Runnable, say: Callable[[str], None], exit_now: Callable[[int], Any] = os._exit) -> None:
        self.exit_code: int | None = None
        self.is_killed: bool = False
        self._app = app
        self._say = say
        self._exit_now = exit_now
        self._handled = 0
        self._has_ended = False
        self._waiting_since: float | None = None
        self._installed: list[signal.Signals] = []

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Under nohup SIGHUP is ignored, and it stays ignored.
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue
            loop.add_signal_handler(number, self._handle, number)
            # The loop is woken through its file descriptor, whatever the Python handler is. This handler runs even
            # while the loop is blocked.
            signal.signal(number, self._arrive)
            self._installed.append(number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._has_ended = True
        loop = asyncio.get_running_loop()
        for number in self._installed:
            loop.remove_signal_handler(number)

    def _arrive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._waiting_since is None:
            self._waiting_since = now
        elif now - self._waiting_since > _STUCK:
            raise KeyboardInterrupt

    def _handle(self, number: signal.Signals) -> None:
        if self._has_ended:
            return  # the signal arrived before the app ended, but the loop had no time to handle it
        self._waiting_since = None
        self._handled += 1
        self.exit_code = 128 + number
        if self._handled == 1:
            self._say(f"{number.name}: stopping gracefully; a second signal kills everything")
            self._app.stop(f"interrupted by {number.name}")
        elif self._handled == 2:
            self.is_killed = True
            self._say(f"{number.name}: killing everything")
            self._app.kill()
        else:
            self._exit_now(self.exit_code)


def serve(
    app: Runnable, view: View, *, use_uvloop: bool = False, full_tracebacks: bool = False, shows_token: bool = False
) -> int:
    """Run the app in a new event loop until it ends, and return the exit code. See `supervise`.

    Raises:
        click.UsageError: uvloop is requested and not installed.
    """
    with asyncio.Runner(loop_factory=_uvloop_factory() if use_uvloop else None) as runner:
        return runner.run(supervise(app, view, full_tracebacks=full_tracebacks, shows_token=shows_token))


async def supervise(
    app: Runnable,
    view: View,
    *,
    full_tracebacks: bool = False,
    shows_token: bool = False,
    exit_now: Callable[[int], Any] = os._exit,
) -> int:
    """Run the app in this event loop, show it, handle signals, and return the exit code.

    With `shows_token` the view receives the URL of the HTTP server with its token, so that the URL opens in a browser.

    Errors of the app are printed to standard error, not raised. After a second signal the process ends here
    through `exit_now`: a thread that a flow left behind must not delay the end.
    """
    error: BaseException | None = None
    with Interrupts(app, view.message, exit_now) as interrupts:
        unsubscribe = app.watch(view.change)
        view.start(app.works)
        try:
            async with app:
                if app.url is not None:
                    view.serving(f"{app.url}/?token={app.token}" if shows_token and app.token else app.url)
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
        # Some errors of the configuration appear only at the start: a busy port, a missing runtime, the journal of
        # another app. The message says what to do. A traceback does not help: no line of the user caused the error.
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
