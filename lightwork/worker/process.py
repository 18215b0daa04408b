"""Runs an `Agent` in a process or a task: threads, signals and the exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable

import msgspec

from lightwork.errors import LightworkError
from lightwork.link import messages
from lightwork.remote_errors import describe_error
from lightwork.status import Reason
from lightwork.worker.agent import Agent
from lightwork.worker.execute import SWITCH_INTERVAL
from lightwork.worker.orphan import OrphanGuard

__all__ = ["main", "serve"]

_FAILED = 1
_decode_ticket = msgspec.msgpack.Decoder(messages.Ticket).decode


def main() -> int:
    """Run the worker of the ticket on standard input; return the exit code.

    An ``async def run`` shares the event loop of the agent, in the main thread. A plain ``run`` gets the main thread,
    and the loop continues in another thread.
    """
    ticket = _decode_ticket(sys.stdin.buffer.read())
    _close_input()
    with asyncio.Runner() as runner:
        # Not `Runner.run`: it handles Ctrl-C, which the agent does itself, and each worker would pay for both.
        loop = runner.get_loop()
        agent = loop.run_until_complete(_open(ticket, guarded=True))
        if agent is None:
            return _FAILED
        if agent.plain is None:
            loop.run_until_complete(_serve_async(agent))
            return agent.exit_code
        return _serve_plain(agent, agent.plain.serve, runner)


async def serve(ticket: bytes) -> int:
    """Run the worker of a ticket as a task of the running loop; return the exit code.

    Cancelling it ends the worker at once. A plain ``run`` has a separate thread, which ends only when ``run`` returns.
    """
    agent = await _open(_decode_ticket(ticket))
    if agent is None:
        return _FAILED
    if agent.plain is not None:
        threading.Thread(target=agent.plain.serve, name="lightwork-run", daemon=True).start()
    try:
        await agent.serve()
    finally:
        if agent.plain is not None:
            agent.plain.close()
        await agent.aclose()
    return agent.exit_code


async def _open(ticket: messages.Ticket, *, guarded: bool = False) -> Agent | None:
    agent = Agent(ticket, OrphanGuard() if guarded else None)
    try:
        await agent.open()
    except (LightworkError, OSError) as error:
        print(f"lightwork: this worker could not connect to its scheduler: {error}", file=sys.stderr)
        await agent.aclose()
        return None
    except Exception as error:
        print(f"lightwork: the work could not be unpacked:\n{describe_error(error).traceback}", file=sys.stderr)
        await agent.aclose()
        return None
    return agent


async def _serve_async(agent: Agent) -> None:
    _end_on_signals(agent, asyncio.get_running_loop())
    await agent.serve()
    await agent.aclose()


def _serve_plain(agent: Agent, run_calls: Callable[[], None], runner: asyncio.Runner) -> int:
    """Run the calls in the main thread, and continue the loop in a second thread."""
    loop = runner.get_loop()
    outcome = [_FAILED]

    async def serve() -> None:
        await agent.serve()
        await agent.aclose()

    def run_loop() -> None:
        assert agent.plain is not None
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(serve())
            outcome[0] = agent.exit_code
        finally:
            if not agent.plain.is_idle:
                # A run that ignores its cancellation blocks the main thread, and the grace period has ended.
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(outcome[0])
            agent.plain.close()

    _end_on_signals(agent, loop)
    sys.setswitchinterval(SWITCH_INTERVAL)
    thread = threading.Thread(target=run_loop, name="lightwork-agent")
    thread.start()
    run_calls()
    thread.join()
    return outcome[0]


def _end_on_signals(agent: Agent, loop: asyncio.AbstractEventLoop) -> None:
    """Make SIGTERM and SIGINT request the end, whatever the main thread does.

    There are two ways, and both are needed. A signal handler runs when the main thread executes Python code. It does
    not run if the signal arrives right before the thread blocks in a system call, or if another thread gets the signal.
    For those cases the interpreter writes a byte for each signal to a pipe, which the loop reads. But a run may
    redirect those bytes to its own event loop. (`loop.add_signal_handler` needs a loop in the main thread, and takes
    most of a millisecond.)
    """
    ending = (signal.SIGTERM, signal.SIGINT)
    readable, writable = os.pipe()
    for end in (readable, writable):
        os.set_blocking(end, False)

    def on_bytes() -> None:
        if not {*os.read(readable, 4096)}.isdisjoint(ending):
            agent.request_end(Reason.SIGTERM_SIGNAL_HANDLER)

    def on_signal(*_: object) -> None:
        # The handler only notifies the loop. It takes no lock: the interrupted thread may hold that lock.
        loop.call_soon_threadsafe(agent.request_end, Reason.SIGTERM_SIGNAL_HANDLER)

    loop.add_reader(readable, on_bytes)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    for number in ending:
        signal.signal(number, on_signal)


def _close_input() -> None:
    """Replace standard input by the null device: a worker has no input, so a read returns the end of the file."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
