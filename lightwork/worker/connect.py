"""How a worker connects: it dials, sends its hello and waits for the welcome, over any number of connections.

A connection may break at any byte, or fall silent. That does not mean that the scheduler is gone, so the worker dials
again. It gives up at once only if a scheduler that has proved the secret refuses it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from lightwork._common.backoff import Backoff
from lightwork.errors import LightworkError, ProtocolError
from lightwork.link import messages
from lightwork.link.connection import Connection, Frames
from lightwork.worker.dial import DialFailed, dial, patience

__all__ = ["RefusedByScheduler", "connect"]

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0


class RefusedByScheduler(LightworkError):
    """The scheduler has refused this worker; the message is its reason."""


async def connect(
    ticket: messages.Ticket,
    hello: Callable[[], messages.Hello],
    take: Callable[[Connection, messages.Welcome], None],
    *,
    timeout: float,
) -> messages.Welcome:
    """Connect until the scheduler welcomes the worker; return the welcome.

    A proved connection that then stays silent is closed after the time limit of a silent route. Cancelling closes a
    connection in progress.

    Args:
        ticket: The worker's ticket.
        hello: Returns the first frame of a connection.
        take: Called with the connection and the welcome; sets the connection's callbacks.
        timeout: Seconds for all attempts together.

    Raises:
        DialFailed: There was no welcome in time.
        RefusedByScheduler: The scheduler refused this worker.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
    while True:
        connection = await dial(ticket, timeout=deadline - loop.time())
        try:
            async with asyncio.timeout_at(deadline):
                return await _be_welcomed(connection, hello(), take, patience(ticket, timeout))
        except (OSError, ProtocolError) as error:  # a TimeoutError is an OSError
            left = deadline - loop.time()
            if left < _FIRST_PAUSE:
                why = str(error) or "it sent nothing"
                raise DialFailed(f"the scheduler did not welcome this worker within {timeout:g} s: {why}") from error
        await asyncio.sleep(min(backoff.advance() * random.uniform(0.5, 1.5), left / 2))


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
            raise ProtocolError(f"the scheduler's first frame must be a Welcome, got {type(answer).__name__}")
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
        # The limit applies to silence, not to the whole welcome: it carries the work, which may be large.
        got = -1
        while not welcomed.done():
            if connection.buffered == got:
                raise TimeoutError(f"no welcome: the scheduler sent nothing for {silence:g} s")
            got = connection.buffered
            await asyncio.wait({welcomed}, timeout=silence)
        return await welcomed
    except BaseException:
        connection.abort()
        if not welcomed.cancel() and not welcomed.cancelled():
            welcomed.exception()  # mark it as retrieved: otherwise the loop reports it
        raise
