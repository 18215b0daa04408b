from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from lightwork.cli.supervise import Interrupts, supervise
from lightwork.errors import ConfigError, FlowFailed, JournalError, RemoteTraceback
from tests.cli.support import FakeApp, FakeView, line


async def fail(app: FakeApp) -> None:
    app.emit(line("root.a", "before"))
    error = ValueError("bad data")
    raise error from RemoteTraceback("Traceback of the worker\nValueError: bad data")


def interrupt(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


async def test_an_app_that_stops_gives_0() -> None:
    """The exit code is 0, the view receives every change, and its last line is the flow's stop message."""

    async def script(app: FakeApp) -> None:
        app.emit(line("root.a", "text"))
        app.stop_message = "done"

    app, view = FakeApp(script), FakeView()
    assert await supervise(app, view) == 0
    assert view.shown == [("start", 0), line("root.a", "text"), "stopped: done", "stop"]
    assert app.watchers == []


async def test_an_app_that_fails_gives_1_and_its_remote_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """The error is printed on standard error after the view has ended, the worker's lines first."""
    app, view = FakeApp(fail), FakeView()
    assert await supervise(app, view) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Traceback of the worker\n")
    assert "in fail" in err
    assert "/cli/supervise.py" not in err
    assert view.shown[-1] == "stop"
    assert app.watchers == []


async def test_a_flow_that_says_it_failed_gives_1(capsys: pytest.CaptureFixture[str]) -> None:
    """FlowFailed is printed, and the exit code is 1."""

    async def script(app: FakeApp) -> None:
        raise FlowFailed("no model was good enough")

    assert await supervise(FakeApp(script), FakeView()) == 1
    assert "no model was good enough" in capsys.readouterr().err


async def test_a_configuration_that_cannot_be_used_gives_2(capsys: pytest.CaptureFixture[str]) -> None:
    """An error of the configuration that appears at the start is a usage error without a traceback."""
    for kind in (ConfigError, JournalError):

        async def script(app: FakeApp, kind: type[Exception] = kind) -> None:
            raise kind("port = 80: it is taken")

        assert await supervise(FakeApp(script), FakeView()) == 2
        assert capsys.readouterr().err == "Error: port = 80: it is taken\n"


async def test_a_signal_after_the_end_does_nothing() -> None:
    """A signal that the event loop handles after the app has ended does nothing."""

    async def script(app: FakeApp) -> None:
        app.stop_message = "done"

    app = FakeApp(script)
    with Interrupts(app, lambda text: None) as interrupts:
        await app.wait_stopped()
    interrupts._handle(signal.SIGINT)
    assert app.calls == ["run"]
    assert interrupts.exit_code is None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
async def test_the_first_signal_stops_in_order(number: signal.Signals, code: int) -> None:
    """The first signal stops the app gracefully, and the exit code names the signal."""

    async def script(app: FakeApp) -> None:
        interrupt(number)
        await app.stopped.wait()

    if number == signal.SIGHUP:
        signal.signal(number, signal.SIG_DFL)  # the tests themselves may run under nohup
    app, view = FakeApp(script), FakeView()
    assert await supervise(app, view) == code
    assert app.calls == ["run", f"stop interrupted by {number.name}"]
    assert view.shown[-2:] == [f"{number.name}: stopping gracefully; a second signal kills everything", "stop"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


async def test_an_error_while_stopping_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """An app that fails while it stops after a signal shows the error. The exit code is that of the signal."""

    async def script(app: FakeApp) -> None:
        interrupt()
        await app.stopped.wait()
        raise ValueError("on_exit failed")

    assert await supervise(FakeApp(script), FakeView()) == 130
    assert "on_exit failed" in capsys.readouterr().err


async def test_the_second_signal_ends_it_now() -> None:
    """The second signal kills the app, and the process ends without waiting for threads."""

    async def script(app: FakeApp) -> None:
        interrupt()
        await app.stopped.wait()
        interrupt()
        await app.killed.wait()
        raise asyncio.CancelledError

    app, view, codes = FakeApp(script), FakeView(), list[int]()
    assert await supervise(app, view, exit_now=codes.append) == 130
    assert app.calls[1:] == ["stop interrupted by SIGINT", "kill"]
    assert codes == [130]
    assert view.shown[-1] == "stop"


async def test_a_third_signal_waits_for_nothing() -> None:
    """If killing does not end the app, the third signal ends the process immediately."""
    ended = asyncio.Event()
    codes: list[int] = []

    def exit_now(code: int) -> None:
        codes.append(code)
        ended.set()

    async def script(app: FakeApp) -> None:
        interrupt()
        await app.stopped.wait()
        interrupt()
        await app.killed.wait()
        interrupt(signal.SIGTERM)
        await ended.wait()

    await supervise(FakeApp(script), FakeView(), exit_now=exit_now)
    assert codes[0] == 143


async def test_a_hang_up_that_is_ignored_stays_ignored() -> None:
    """Under nohup a closed terminal does not end the app."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:

        async def script(app: FakeApp) -> None:
            interrupt(signal.SIGHUP)

        app = FakeApp(script)
        assert await supervise(app, FakeView()) == 0
        assert app.calls == ["run"]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


async def test_cancelling_without_a_signal_is_no_exit_code() -> None:
    """Cancelling `supervise` itself raises the cancellation, and the view no longer receives changes."""
    reached = asyncio.Event()

    async def script(app: FakeApp) -> None:
        reached.set()
        await app.killed.wait()

    app, view = FakeApp(script), FakeView()
    task = asyncio.create_task(supervise(app, view))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert app.watchers == []
    assert view.shown[-1] == "stop"


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    if request.param == "asyncio":
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = pytest.importorskip("uvloop").new_event_loop
    # With the first loop, libuv opens a pipe for the signals of the whole process, and keeps it.
    factory().close()
    return factory


def test_a_blocked_loop_can_be_interrupted(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second signal raises KeyboardInterrupt in a flow that blocks the loop, with asyncio and with uvloop."""
    monkeypatch.setattr("lightwork.cli.supervise._STUCK", 0.0)
    go = threading.Event()

    def send_two() -> None:
        go.wait()
        interrupt()
        # Wait until the first signal has arrived: two pending signals are delivered as one.
        while not seen:
            os.sched_yield()
        interrupt()

    seen: list[int] = []
    real = signal.signal

    def spy(number: int, handler: object) -> object:
        def handle(*args: object) -> None:
            seen.append(number)
            handler(*args)  # type: ignore[operator]

        return real(number, handle if getattr(handler, "__name__", "") == "_arrive" else handler)  # type: ignore[arg-type]

    monkeypatch.setattr(signal, "signal", spy)

    async def block(app: FakeApp) -> None:
        go.set()
        # Short sleeps: a signal between Python's check for signals and the system call waits for the end of the call.
        while True:
            time.sleep(0.01)  # noqa: ASYNC251 -- blocking the loop is the case

    sender = threading.Thread(target=send_two)
    sender.start()
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner, pytest.raises(KeyboardInterrupt):
            runner.run(supervise(FakeApp(block), FakeView(), exit_now=lambda code: None))
    finally:
        sender.join()


async def test_the_view_is_told_where_the_dashboard_is() -> None:
    """The view receives the URL of an app's HTTP server at the start, if the app has one."""
    app, view = FakeApp(), FakeView()
    app.url = "http://127.0.0.1:7501"
    assert await supervise(app, view) == 0
    assert view.shown == [("start", 0), ("serving", "http://127.0.0.1:7501"), "stop"]
    app.token = "secret"
    for shows_token, shown in ((False, "http://127.0.0.1:7501"), (True, "http://127.0.0.1:7501/?token=secret")):
        view = FakeView()
        assert await supervise(app, view, shows_token=shows_token) == 0
        assert view.shown[1] == ("serving", shown)
