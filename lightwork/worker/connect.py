"""How a worker comes to be connected: it dials, says hello and is welcomed, over as many connections as that takes.

A connection may break at any byte of this, or fall silent. That says nothing about the scheduler, so the worker dials
again; only a scheduler that has proved itself and refuses the worker is believed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from lightwork.errors import LightworkError, ProtocolError
from lightwork.link import messages
from lightwork.link.connection import Connection, Frames
from lightwork.worker.dial import DialFailed, dial, patience

__all__ = ["RefusedByScheduler", "connect"]

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0


class RefusedByScheduler(LightworkError):
    """The scheduler does not want this worker, and says why."""


async def connect(
    ticket: messages.Ticket,
    hello: Callable[[], messages.Hello],
    take: Callable[[Connection, messages.Welcome], None],
    *,
    timeout: float,
) -> messages.Welcome:
    """Connect until the scheduler welcomes the worker; give what it says.

    A connection that is proved and then brings nothing is given up as a route that is silent. Cancelling closes what
    was begun.

    Args:
        ticket: As given to the worker.
        hello: Makes the first frame of a connection.
        take: Called with the connection and the welcome; takes over the connection's callbacks.
        timeout: Seconds for all of it.

    Raises:
        DialFailed: There was no welcome in time.
        Refused: The scheduler does not want this worker.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    pause = _FIRST_PAUSE
    while True:
        connection = await dial(ticket, timeout=deadline - loop.time())
        try:
            async with asyncio.timeout_at(deadline):
                return await _be_welcomed(connection, hello(), take, patience(ticket, timeout))
        except (OSError, ProtocolError) as error:  # a TimeoutError is an OSError
            left = deadline - loop.time()
            if left < _FIRST_PAUSE:
                why = str(error) or "it is silent"
                raise DialFailed(f"the scheduler gave no welcome within {timeout:g} s: {why}") from error
        await asyncio.sleep(min(pause * random.uniform(0.5, 1.5), left / 2))
        pause = min(pause * 2, _LONGEST_PAUSE)


async def _be_welcomed(
    connection: Connection,
    hello: messages.Hello,
    take: Callable[[Connection, messages.Welcome], None],
    silence: float,
) -> messages.Welcome:
    welcomed: asyncio.Future[messages.Welcome] = asyncio.get_running_loop().create_future()

    def on_frames(frames: Frames) -> None:
        answer = messages.decode_from_scheduler(frames[0][1])
        if isinstance(answer, messages.Refuse):
            connection.abort(RefusedByScheduler(answer.message))
        elif not isinstance(answer, messages.Welcome):
            raise ProtocolError(f"the scheduler's first frame is {type(answer).__name__}, not a Welcome")
        else:
            take(connection, answer)
            if not welcomed.done():
                welcomed.set_result(answer)
            if frames[1:]:
                connection.on_frames(frames[1:])

    def on_closed(error: Exception | None) -> None:
        if not welcomed.done():
            welcomed.set_exception(error or ConnectionResetError("the connection was closed before the welcome"))

    connection.on_frames = on_frames
    connection.on_closed = on_closed
    connection.send(messages.pack(messages.encode(hello)))
    try:
        # Not one limit for all of it: the welcome carries the work, which may be large.
        got = -1
        while not welcomed.done():
            if connection.buffered == got:
                raise TimeoutError(f"no welcome: the scheduler said nothing for {silence:g} s")
            got = connection.buffered
            await asyncio.wait({welcomed}, timeout=silence)
        return await welcomed
    except BaseException:
        connection.abort()
        if not welcomed.cancel() and not welcomed.cancelled():
            welcomed.exception()  # seen: else the loop reports it as never retrieved
        raise
