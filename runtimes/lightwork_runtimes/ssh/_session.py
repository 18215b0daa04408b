"""One SSH connection to one machine: log in, start the helper, make requests, forward a port, send files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
import anyio.to_thread
import asyncssh

from lightwork.runtime import Address, Conflict, NoCapacity, Rejected, RuntimeFailure, Unreachable
from lightwork_runtimes.ssh import _tunnel
from lightwork_runtimes.ssh._login import explain, log_in
from lightwork_runtimes.ssh._options import SshOptions, Target
from lightwork_runtimes.ssh._packages import helper_files

__all__ = ["Facts", "Session"]

Facts = Mapping[str, Any]
"""The facts that the helper reports about its machine; see `lightwork_runtimes.remote.serve`."""

_HELLO = b"lightwork-helper "
_LENGTHS = struct.Struct(">II")
_MOST_BANNER = 65536
_CLOSE_WITHIN = 2.0
_BEATS_MISSED = 4
"""Heartbeats that the helper may miss before it takes the connection for dead. This side waits equally long."""

_CANNOT_OPEN = 2
"""Exit code of an interpreter whose script does not exist."""

_KINDS: dict[str, type[RuntimeFailure]] = {
    "rejected": Rejected,
    "conflict": Conflict,
    "no_capacity": NoCapacity,
    "failed": RuntimeFailure,
}


class _NoHelper(Exception):
    """The helper did not start. `code` is its exit code, `text` its output."""

    def __init__(self, code: int | None, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Session:
    """An open connection and the helper at its other end.

    Create it with `Session.open`. `facts` are the facts of the machine.

    Args:
        where: Names of profile and host for messages.
        connection: The SSH connection.
        on_lost: Called once when the connection or the helper has gone.
    """

    def __init__(self, where: str, connection: asyncssh.SSHClientConnection, on_lost: Callable[[], None]) -> None:
        self.where = where
        self.facts: Facts = {}
        self._connection = connection
        self._on_lost = on_lost
        self._helper: _Helper | None = None
        self._listener: asyncssh.SSHListener | None = None
        self._forwarding = anyio.Lock()
        self._sending = anyio.Lock()

    @classmethod
    async def open(
        cls, where: str, target: Target, options: SshOptions, instance: str, on_lost: Callable[[], None]
    ) -> Session:
        """Connect, log in and start the helper. If the machine does not have the helper, send it first.

        Raises:
            Rejected: The host key is wrong, the login was refused, or the machine cannot run the helper.
            Unreachable: The machine did not answer in time, or not at all.
        """
        try:
            async with asyncio.timeout(options.connect_timeout):
                connection = await log_in(where, target, options)
                session = cls(where, connection, on_lost)
                try:
                    await session._start_helper(target, instance, options.keepalive)
                except BaseException:
                    connection.abort()
                    raise
                return session
        except TimeoutError:
            raise Unreachable(f"{where}: no answer within {options.connect_timeout:g} s (connect_timeout)") from None
        except (OSError, asyncssh.Error) as error:
            raise explain(where, target, error) from error

    @property
    def is_open(self) -> bool:
        """Whether requests can be made."""
        return self._helper is not None and self._helper.is_open

    @property
    def local_address(self) -> str:
        """The address of this machine that the remote machine sees, unless a device in between translates addresses."""
        return str(self._connection.get_extra_info("sockname")[0])

    async def aclose(self) -> None:
        """Close the connection. Remote launches are left alone."""
        if self._helper is not None:
            self._helper.leave()
        if self._listener is not None:
            self._listener.close()
        self._connection.close()
        with anyio.move_on_after(_CLOSE_WITHIN):
            await self._connection.wait_closed()
            return
        self._connection.abort()

    # --- the helper -----------------------------------------------------------------------------

    async def _start_helper(self, target: Target, instance: str, keepalive: float) -> None:
        digest, files = helper_files()
        place = f"{target.folder}/helper/{digest}"
        words = ["exec", target.python, "-I", place, "serve", target.folder, instance]
        words.append(f"{keepalive * _BEATS_MISSED:g}")
        command = shlex.join(words)
        try:
            try:
                self._helper = await self._run_helper(command)
            except _NoHelper as error:
                if error.code != _CANNOT_OPEN:
                    raise
                await self._send_helper(place, files)
                self._helper = await self._run_helper(command)
        except _NoHelper as error:
            said = f":\n{error.text.strip()}" if error.text.strip() else ""
            raise Rejected(
                f"{self.where}: {target.python!r} could not run lightwork's helper (exit code {error.code}); set "
                f"`python` to a Python of 3.9 or newer on the machine{said}"
            ) from None
        self.facts = self._helper.facts
        if "error" in self.facts:
            raise Rejected(f"{self.where}: {self.facts['error']}")
        self._helper.beat(keepalive)

    async def _run_helper(self, command: str) -> _Helper:
        helper = _Helper(self)
        await self._connection.create_session(lambda: helper, command, encoding=None)
        await helper.ready()
        return helper

    async def _send_helper(self, place: str, files: Mapping[str, bytes]) -> None:
        aside = f"{place}.{os.urandom(4).hex()}"
        async with self._sftp("lightwork's helper") as sftp:
            for folder in sorted({os.path.dirname(f"{aside}/{name}") for name in files}):
                await sftp.makedirs(folder, asyncssh.SFTPAttrs(permissions=0o700), exist_ok=True)
            for name, data in files.items():
                async with sftp.open(f"{aside}/{name}", "wb") as file:
                    await file.write(data)
            with contextlib.suppress(asyncssh.SFTPError):  # another scheduler has just sent the same helper
                await sftp.rename(aside, place)

    async def request(self, op: str, payload: bytes = b"", **arguments: Any) -> tuple[Any, bytes]:
        """Make a request to the helper. Return value and payload of its answer. Cancelling also cancels it there.

        Raises:
            RuntimeFailure: The helper's error, as the class that the helper names.
            Unreachable: The connection was lost; the outcome is unknown.
        """
        if self._helper is None or not self._helper.is_open:
            raise Unreachable(f"{self.where}: the connection was lost")
        return await self._helper.request(op, payload, arguments)

    def lost(self) -> None:
        """End the connection after the helper has gone: nothing else on it can be used."""
        if self._helper is not None:
            self._helper.leave()
        self._connection.abort()
        self._on_lost()

    # --- the tunnel -----------------------------------------------------------------------------

    async def forward(self, ports: Sequence[int], listener: Address) -> None:
        """Forward one of these ports of the remote loopback to `listener`, unless one is forwarded already.

        Raises:
            NoCapacity: No port can be forwarded.
        """
        async with self._forwarding:
            if self._listener is not None:
                return
            try:
                self._listener = await _tunnel.forward(self._connection, ports, listener)
            except (OSError, asyncssh.Error) as error:
                raise Unreachable(f"{self.where}: the connection was lost: {error}") from error
        if self._listener is None:
            raise NoCapacity(
                f"{self.where}: none of the ports {', '.join(map(str, ports))} could be forwarded. Either all are "
                "taken (set `ports`), or the server forbids forwarding (AllowTcpForwarding; then set `direct`)"
            )

    async def open_channel(self, factory: _tunnel.SessionFactory, port: int) -> None:
        """Open a channel to a port of the remote loopback.

        Raises:
            Unreachable: Nothing listens on the port, or the connection was lost.
        """
        try:
            await self._connection.create_connection(factory, "127.0.0.1", port, encoding=None)
        except (OSError, asyncssh.Error) as error:
            raise Unreachable(f"{self.where}: port {port} of the remote loopback cannot be reached: {error}") from error

    # --- files ----------------------------------------------------------------------------------

    async def send(self, files: Mapping[str, str]) -> None:
        """Send files. Keys are local paths, values paths relative to lightwork's folder there. Each write is atomic.

        Raises:
            NoCapacity: The remote machine refused a file; its disk may be full.
        """
        # One at a time: most servers allow only ten sessions in one connection.
        async with self._sending:
            for source, target in files.items():
                async with self._sftp(os.path.basename(target)) as sftp:
                    await self._send(sftp, source, f"{self.facts['folder']}/{target}")

    async def _send(self, sftp: asyncssh.SFTPClient, source: str, target: str) -> None:
        aside = f"{target}.{os.urandom(4).hex()}"
        await sftp.makedirs(os.path.dirname(target), asyncssh.SFTPAttrs(permissions=0o700), exist_ok=True)
        try:
            await sftp.put(source, aside)
            await sftp.posix_rename(aside, target)
        except BaseException:
            with anyio.move_on_after(_CLOSE_WITHIN, shield=True), contextlib.suppress(asyncssh.Error):
                await sftp.remove(aside)
            raise

    @contextlib.asynccontextmanager
    async def _sftp(self, what: str) -> Any:
        try:
            async with self._connection.start_sftp_client() as sftp:
                yield sftp
        except asyncssh.SFTPPermissionDenied as error:
            raise Rejected(f"{self.where}: {what} could not be sent: {error.reason}") from error
        except (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, asyncssh.DisconnectError) as error:
            raise Unreachable(f"{self.where}: the connection was lost: {error.reason}") from error
        except asyncssh.SFTPError as error:
            raise NoCapacity(
                f"{self.where}: {what} could not be sent: {error.reason}. The server gives no reason; is the disk full?"
            ) from error
        except asyncssh.ChannelOpenError as error:
            raise Rejected(f"{self.where}: the server has no SFTP, needed to send files: {error.reason}") from error


class _Helper(asyncssh.SSHClientSession[bytes]):
    """The channel to the helper. It sends requests as frames and hands each answer to the waiting request."""

    def __init__(self, session: Session) -> None:
        self.is_open = False
        self.facts: Facts = {}
        self._session = session
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._hello: asyncio.Future[Facts] = asyncio.get_running_loop().create_future()
        self._waiting: dict[int, asyncio.Future[tuple[Any, bytes]]] = {}
        self._count = 0
        self._buffer = bytearray()
        self._noise = b""
        self._beats: asyncio.TimerHandle | None = None

    async def ready(self) -> None:
        """Return when the helper has sent its hello.

        Raises:
            _NoHelper: The helper ended before that.
        """
        self.facts = await self._hello
        self.is_open = True

    def leave(self) -> None:
        """Accept no more requests. The end of the connection then does not count as a loss."""
        self.is_open = False
        self._stop_beating()

    def beat(self, every: float) -> None:
        """Send a heartbeat to the helper now and every `every` seconds."""
        if self.is_open:
            self._send({"id": 0, "op": "beat"}, b"")
            self._beats = asyncio.get_running_loop().call_later(every, self.beat, every)

    def _stop_beating(self) -> None:
        if self._beats is not None:
            self._beats.cancel()
            self._beats = None

    async def request(self, op: str, payload: bytes, arguments: Mapping[str, Any]) -> tuple[Any, bytes]:
        self._count += 1
        number = self._count
        answer: asyncio.Future[tuple[Any, bytes]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._send({"id": number, "op": op, **arguments}, payload)
        try:
            return await answer
        except asyncio.CancelledError:
            if self.is_open:
                self._send({"id": 0, "op": "cancel", "of": number}, b"")
            raise
        finally:
            self._waiting.pop(number, None)

    def _send(self, header: Mapping[str, Any], payload: bytes) -> None:
        assert self._channel is not None
        text = json.dumps(header).encode()
        self._channel.write(_LENGTHS.pack(len(text), len(payload)) + text + payload)

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        if datatype is not None:  # standard error: needed only if the helper does not start
            self._noise = (self._noise + data)[-_MOST_BANNER:]
            return
        self._buffer += data
        if not self._hello.done():
            self._read_hello()
        while self._hello.done() and len(self._buffer) >= _LENGTHS.size:
            head, body = _LENGTHS.unpack_from(self._buffer)
            end = _LENGTHS.size + head + body
            if len(self._buffer) < end:
                return
            header = json.loads(self._buffer[_LENGTHS.size : _LENGTHS.size + head])
            payload = bytes(self._buffer[_LENGTHS.size + head : end])
            del self._buffer[:end]
            self._answer(header, payload)

    def _read_hello(self) -> None:
        """Find the helper's line in the output of the login."""
        start = self._buffer.find(_HELLO)
        end = self._buffer.find(b"\n", start)
        if start >= 0 and end >= 0:
            self._hello.set_result(json.loads(self._buffer[start + len(_HELLO) : end]))
            del self._buffer[: end + 1]
        elif len(self._buffer) > _MOST_BANNER:
            self._hello.set_exception(_NoHelper(None, "the login prints more than 64 kB before the helper starts"))

    def _answer(self, header: Mapping[str, Any], payload: bytes) -> None:
        waiter = self._waiting.get(header["id"])
        if waiter is None or waiter.done():
            return
        if "error" in header:
            kind = _KINDS.get(header["kind"], RuntimeFailure)
            waiter.set_exception(kind(f"{self._session.where}: {header['error']}"))
        else:
            waiter.set_result((header["value"], payload))

    def connection_lost(self, exc: Exception | None) -> None:
        assert self._channel is not None
        was_open, self.is_open = self.is_open, False
        self._stop_beating()
        if not self._hello.done():
            text = (self._noise + bytes(self._buffer)).decode("utf-8", "replace")
            self._hello.set_exception(exc or _NoHelper(self._channel.get_exit_status(), text))
        for waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_exception(Unreachable(f"{self._session.where}: the connection was lost"))
        if was_open:
            self._session.lost()
