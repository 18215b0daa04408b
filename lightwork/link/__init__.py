"""Code that both ends of a connection share: the handshake, the numbered exchange, and the connection itself."""

from __future__ import annotations

from lightwork.link.connection import Connection, Frames
from lightwork.link.handshake import ClientHandshake, Handshake, ServerHandshake
from lightwork.link.peer import FrameTooLarge, Peer, PeerClosed, PeerStatistics
from lightwork.link.session import Session
from lightwork.link.tls import TlsLayer

__all__ = [
    "ClientHandshake",
    "Connection",
    "FrameTooLarge",
    "Frames",
    "Handshake",
    "Peer",
    "PeerClosed",
    "PeerStatistics",
    "ServerHandshake",
    "Session",
    "TlsLayer",
]
