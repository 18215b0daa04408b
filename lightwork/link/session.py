"""The numbered exchange: frames arrive exactly once and in order over any number of connections. No I/O.

Each direction numbers its frames from 1. A sent frame is kept until the other end acknowledges it. A new connection
begins with each end naming the number of the last frame that it has received; the other end then sends the frames after
that one again.
"""

from __future__ import annotations

from collections import deque

from lightwork.errors import ProtocolError
from lightwork.link.messages import HEADER

__all__ = ["Session"]

_pack = HEADER.pack


class Session:
    """One end of a numbered exchange.

    Attributes:
        sent: Number of the last frame sent.
        received: Number of the last frame received; all frames before it were received, too. The caller sets it when it
            handles a frame that is expected.
        unacked_bytes: Size of all kept frames in bytes, headers included.
        acked_to_peer: Number of the last received frame that was acknowledged to the other end.
    """

    def __init__(self) -> None:
        self.sent: int = 0
        self.received: int = 0
        self.unacked_bytes: int = 0
        self.acked_to_peer: int = 0
        self._kept: deque[bytes] = deque()  # frames `sent - len(_kept) + 1` to `sent`

    @property
    def unacked(self) -> int:
        """The number of kept frames."""
        return len(self._kept)

    def send(self, body: bytes) -> bytes:
        """Number a frame and keep it. Return its bytes for the wire."""
        self.sent += 1
        data = _pack(len(body), self.sent) + body
        self._kept.append(data)
        self.unacked_bytes += len(data)
        return data

    def expects(self, number: int) -> bool:
        """Whether a frame of this number is to be handled: it is the next one, or 0. False if it was received before.

        Raises:
            ProtocolError: Frames before it are missing.
        """
        if not number or number == self.received + 1:
            return True
        if number <= self.received:
            return False
        raise ProtocolError(f"expected frame {self.received + 1}, got frame {number}: frames between are missing")

    def resume(self, sent: int, received: int) -> None:
        """Continue the session of an earlier end, whose frames up to `sent` the other end has received.

        The frames that the earlier end sent after `sent` are lost. Only for a session that has sent and received
        nothing.
        """
        self.sent = sent
        self.received = self.acked_to_peer = received

    def acked(self, number: int) -> None:
        """Drop every frame up to this number: the other end has received them.

        Raises:
            ProtocolError: No frame of this number was sent.
        """
        if number > self.sent:
            raise ProtocolError(f"the other end acknowledged frame {number}, but the last one sent is {self.sent}")
        take = self._kept.popleft
        self.unacked_bytes -= sum([len(take()) for _ in range(number - (self.sent - len(self._kept)))])

    def replay(self, received: int) -> list[bytes]:
        """Return the frames to send again, in order, to an end that has received all frames up to `received`.

        Raises:
            ProtocolError: No frame of that number was sent, or frames after it are no longer kept. Nothing is changed.
        """
        first = self.sent - len(self._kept)
        if received < first:
            raise ProtocolError(f"frames from {received + 1} are requested, but frames up to {first} were acknowledged")
        self.acked(received)
        return list(self._kept)

    def ack_due(self, every: int = 64, upto: int | None = None) -> bool:
        """Whether at least `every` frames were received since the last acknowledgement; `upto` as in `ack`."""
        return (self.received if upto is None else upto) - self.acked_to_peer >= every

    def ack(self, upto: int | None = None) -> int:
        """Return the number to acknowledge now, 0 if every frame is acknowledged already.

        Args:
            upto: Acknowledge frames up to this number alone; None for all frames that were received.
        """
        number = self.received if upto is None else upto
        if number <= self.acked_to_peer:
            return 0
        self.acked_to_peer = number
        return number
