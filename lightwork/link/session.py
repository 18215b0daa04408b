"""The numbered exchange: frames arrive exactly once and in order over any number of connections. No I/O.

Each direction counts from 1. What is sent is kept until the other end says that it has taken it in. A new
connection begins with both ends telling the last number they have taken in; each then sends the rest again.
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
        sent: The last number given out.
        received: The last number taken in; all before it are too. Set by whoever takes in the one that is expected.
        unacked_bytes: Size of all frames that are kept, headers included.
        told: The last number that an acknowledgement of ours has named.
    """

    def __init__(self) -> None:
        self.sent: int = 0
        self.received: int = 0
        self.unacked_bytes: int = 0
        self.acked_to_peer: int = 0
        self._kept: deque[bytes] = deque()  # frames `sent - len(_kept) + 1` to `sent`

    @property
    def unacked(self) -> int:
        """How many frames are kept."""
        return len(self._kept)

    def send(self, body: bytes) -> bytes:
        """Number a frame and keep it; return its bytes for the wire."""
        self.sent += 1
        data = _pack(len(body), self.sent) + body
        self._kept.append(data)
        self.unacked_bytes += len(data)
        return data

    def expects(self, number: int) -> bool:
        """Whether a frame of this number is to be taken in: it is the next one, or 0; False if it was seen.

        Raises:
            ProtocolError: If frames before it are missing.
        """
        if not number or number == self.received + 1:
            return True
        if number <= self.received:
            return False
        raise ProtocolError(f"frame {number} came after frame {self.received}: those between are missing")

    def resume(self, sent: int, received: int) -> None:
        """Go on where an earlier end left off, whose frames up to `sent` the other end has taken in.

        What that end had sent beyond is lost. Only for a session that has sent and received nothing.
        """
        self.sent = sent
        self.received = self.acked_to_peer = received

    def acked(self, number: int) -> None:
        """Drop every frame up to this number; the other end has taken them in.

        Raises:
            ProtocolError: If no frame of this number was sent.
        """
        if number > self.sent:
            raise ProtocolError(f"frame {number} was acknowledged, but the last one sent is {self.sent}")
        take = self._kept.popleft
        self.unacked_bytes -= sum([len(take()) for _ in range(number - (self.sent - len(self._kept)))])

    def replay(self, received: int) -> list[bytes]:
        """The frames to send again, in order, to an end that has taken in all up to `received`.

        Raises:
            ProtocolError: If no frame of that number was sent, or frames after it are no longer kept. Nothing is
                changed.
        """
        first = self.sent - len(self._kept)
        if received < first:
            raise ProtocolError(f"frames from {received + 1} are asked for, but up to {first} they were acknowledged")
        self.acked(received)
        return list(self._kept)

    def ack_due(self, every: int = 64, upto: int | None = None) -> bool:
        """Whether as many frames were taken in since the last acknowledgement; `upto` as in `ack`."""
        return (self.received if upto is None else upto) - self.acked_to_peer >= every

    def ack(self, upto: int | None = None) -> int:
        """The number to acknowledge now, 0 if there is nothing new to say.

        Args:
            upto: Acknowledge no more than this number; None for all that was taken in.
        """
        number = self.received if upto is None else upto
        if number <= self.acked_to_peer:
            return 0
        self.acked_to_peer = number
        return number
