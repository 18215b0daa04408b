"""The numbered exchange: frames arrive exactly once and in order over any number of connections. No I/O.

Each direction counts its frames from 1. An end keeps each sent frame until the other end acknowledges it. A new
connection begins with an exchange: each end sends the last number it has received, and the other sends the rest again.
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
        sent: The number of the last sent frame.
        received: The number of the last received frame; all frames before it are received too. The caller of `expects`
            sets it.
        unacked_bytes: Size of all kept frames in bytes, headers included.
        acked_to_peer: The last number that this end has acknowledged.
    """

    def __init__(self) -> None:
        self.sent: int = 0
        self.received: int = 0
        self.unacked_bytes: int = 0
        self.acked_to_peer: int = 0
        self._kept: deque[bytes] = deque()  # frames `sent - len(_kept) + 1` to `sent`

    @property
    def unacked(self) -> int:
        """Number of kept frames."""
        return len(self._kept)

    def send(self, body: bytes) -> bytes:
        """Number and keep a frame; return its bytes for the wire."""
        self.sent += 1
        data = _pack(len(body), self.sent) + body
        self._kept.append(data)
        self.unacked_bytes += len(data)
        return data

    def expects(self, number: int) -> bool:
        """Return whether to accept a frame of this number: true for the next number and 0, false for one seen before.

        Raises:
            ProtocolError: If frames before it are missing.
        """
        if not number or number == self.received + 1:
            return True
        if number <= self.received:
            return False
        raise ProtocolError(f"expected frame {self.received + 1}, got frame {number}: the frames between are missing")

    def resume(self, sent: int, received: int) -> None:
        """Continue the exchange of an earlier end. The other end has received its frames up to `sent`.

        Later frames of the earlier end are lost. Only for a session that has sent and received nothing.
        """
        self.sent = sent
        self.received = self.acked_to_peer = received

    def acked(self, number: int) -> None:
        """Drop every frame up to this number: the other end has received them.

        Raises:
            ProtocolError: If no frame of this number was sent.
        """
        if number > self.sent:
            raise ProtocolError(f"the other end acknowledged frame {number}, but the last one sent is {self.sent}")
        take = self._kept.popleft
        self.unacked_bytes -= sum([len(take()) for _ in range(number - (self.sent - len(self._kept)))])

    def replay(self, received: int) -> list[bytes]:
        """Return the frames to send again, in order, to an end that has received every frame up to `received`.

        Raises:
            ProtocolError: If no frame of this number was sent, or if frames after it are no longer kept. Nothing is
                changed.
        """
        first = self.sent - len(self._kept)
        if received < first:
            raise ProtocolError(
                f"the other end requests the frames from {received + 1}, but it has acknowledged those up to {first}"
            )
        self.acked(received)
        return list(self._kept)

    def ack_due(self, every: int = 64, upto: int | None = None) -> bool:
        """Return whether at least `every` frames were received since the last acknowledgement; `upto` as in `ack`."""
        return (self.received if upto is None else upto) - self.acked_to_peer >= every

    def ack(self, upto: int | None = None) -> int:
        """Return the number to acknowledge now, or 0 if there is no new number.

        Args:
            upto: Highest number to acknowledge; None for every received frame.
        """
        number = self.received if upto is None else upto
        if number <= self.acked_to_peer:
            return 0
        self.acked_to_peer = number
        return number
