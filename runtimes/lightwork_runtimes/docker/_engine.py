"""The engine's API calls that this runtime uses, over aiodocker. Its errors become those of `lightwork.runtime`."""

from __future__ import annotations

import contextlib
import json
import re
import struct
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from types import ModuleType
from typing import IO, TYPE_CHECKING, Any

from lightwork.errors import PlatformError
from lightwork.runtime import RuntimeFailure, Unreachable
from lightwork_runtimes.docker._address import EngineAddress

if TYPE_CHECKING:
    import aiodocker

__all__ = ["BuildFailed", "DockerEngine", "EngineError", "parse_time", "require_client"]

_FRACTION = re.compile(r"(\.\d{1,6})\d*")
_LOG_HEADER = struct.Struct(">BxxxL")
_NO_ANSWER = 900  # the status that aiodocker reports when it cannot connect
_CONNECT_WITHIN = 15.0
_KEPT_LINES = 30


class EngineError(RuntimeFailure):
    """The engine refused a request. `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class BuildFailed(RuntimeFailure):
    """A build failed. The message has the last lines of its output."""


def require_client() -> ModuleType:
    """Return the module aiodocker.

    Raises:
        PlatformError: aiodocker is not installed.
    """
    try:
        import aiodocker
    except ImportError as error:
        raise PlatformError(
            f"the runtime `docker` needs the package {error.name or 'aiodocker'}: install lightwork[docker]"
        ) from error
    return aiodocker


class DockerEngine:
    """A connection to an engine. Every method may be called concurrently; the number of connections is not limited.

    Attributes:
        address: The engine's address.
        id: The engine's own id, the same from every machine.
        now: The engine's clock when the connection was opened, in seconds since the epoch.
        is_desktop: Whether containers run in a virtual machine on this machine (Docker Desktop).
    """

    def __init__(self, address: EngineAddress) -> None:
        self.address = address
        self.id = ""
        self.now = 0
        self.is_desktop = False
        self._docker: aiodocker.Docker = None  # type: ignore[assignment]
        self._error: type[Exception] = Exception

    async def open(self) -> None:
        """Connect.

        Raises:
            PlatformError: aiodocker is not installed, or the engine does not answer; the message says how to start it.
        """
        library = require_client()
        import aiohttp

        self._error = library.DockerError
        # No limit: each running work keeps a connection open for its output. With aiohttp's default limit of 100,
        # more works would block each other forever.
        if self.address.socket is not None:
            connector: aiohttp.BaseConnector = aiohttp.UnixConnector(self.address.socket, limit=0)
            url = "unix://localhost"
        else:
            context = self.address.ssl_context()
            connector = aiohttp.TCPConnector(ssl=context if context is not None else True, limit=0)
            url = f"{'https' if context is not None else 'http'}://{self.address.host}:{self.address.port}"
        timeout = aiohttp.ClientTimeout(sock_connect=_CONNECT_WITHIN)
        session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        self._docker = library.Docker(url=url, connector=connector, session=session, timeout=timeout)
        try:
            info = await self._json("info")
        except BaseException as error:
            await self.close()
            if isinstance(error, RuntimeFailure):
                raise PlatformError(_how_to_start(self.address, error)) from error
            raise
        self.is_desktop = info.get("OperatingSystem") == "Docker Desktop"
        self.id = str(info.get("ID") or self.address.url)
        self.now = int(parse_time(info["SystemTime"]))

    async def close(self) -> None:
        """Close every connection."""
        if self._docker is not None:
            await self._docker.session.close()
            await self._docker.close()

    # --- containers -------------------------------------------------------------------------------

    async def create(self, name: str, config: dict[str, Any]) -> None:
        """Create a container. Status 409: the name is taken; 404: the image does not exist."""
        with self._translated():
            await self._docker.containers.create(config, name=name)

    async def start(self, name: str, stdin: bytes = b"") -> None:
        """Start a container and send it its whole standard input."""
        container = self._docker.containers.container(name)
        with self._translated():
            if not stdin:
                await container.start()
                return
            # Attach before the start, so that no other client attaches first. Detach after it: with StdinOnce the end
            # of this connection is the end of the container's input.
            async with container.attach(stdin=True) as stream:
                await stream.write_in(stdin)
                await container.start()

    async def inspect(self, name: str) -> dict[str, Any] | None:
        """Return the engine's description of a container, None if it does not exist."""
        try:
            found: dict[str, Any] = await self._json(f"containers/{name}/json")
        except EngineError as error:
            if error.status == 404:
                return None
            raise
        return found

    async def kill(self, name: str, signal: str) -> None:
        """Send a signal to the first process of a container. Do nothing if the container does not run."""
        try:
            with self._translated():
                await self._docker.containers.container(name).kill(signal=signal)
        except EngineError as error:
            if error.status not in (404, 409):
                raise

    async def remove(self, name: str) -> bool:
        """Remove a container, running or not, and its anonymous volumes. Return False if another client removes it."""
        try:
            with self._translated():
                await self._docker.containers.container(name).delete(force=True, v=True)
        except EngineError as error:
            if error.status == 409:
                return False
            if error.status != 404:
                raise
        return True

    async def names(self, label: str, name: str = "") -> list[str]:
        """Return the names of the containers with a label, in every state. `name` keeps only names that contain it."""
        filters = {"label": [label], **({"name": [name]} if name else {})}
        found = await self._json("containers/json", params={"all": True, "filters": json.dumps(filters)})
        return sorted(container["Names"][0].lstrip("/") for container in found)

    async def output(self, name: str, *, follow: bool) -> AsyncIterator[bytes]:
        """Yield the output of a container from its beginning, both streams in the order of writing."""
        params = {"stdout": True, "stderr": True, "follow": follow}
        async with self._stream(f"containers/{name}/logs", params=params) as content:
            while header := await _read_all(content, _LOG_HEADER.size):
                yield await _read_all(content, _LOG_HEADER.unpack(header)[1])

    async def events(self, since: int, label: str, events: list[str]) -> AsyncIterator[dict[str, Any]]:
        """Yield the events of containers with a label from an engine's time on. The first event is empty."""
        filters = json.dumps({"type": ["container"], "label": [label], "event": events})
        async with self._stream("events", params={"since": since, "filters": filters}) as content:
            yield {}
            while line := await content.readline():
                yield json.loads(line)

    # --- images and networks ----------------------------------------------------------------------

    async def image(self, name: str) -> dict[str, Any] | None:
        """Return the engine's description of an image, None if it does not exist."""
        try:
            with self._translated():
                found: dict[str, Any] = await self._docker.images.inspect(name)
        except EngineError as error:
            if error.status == 404:
                return None
            raise
        return found

    async def pull(self, name: str) -> AsyncIterator[dict[str, Any]]:
        """Pull an image and yield the engine's progress."""
        with self._translated():
            async for step in self._docker.images.pull(name, stream=True):
                yield step

    async def build(self, context: IO[bytes], tag: str, labels: dict[str, str]) -> AsyncIterator[str]:
        """Build an image from a tar with a Dockerfile and yield the lines of its output.

        Raises:
            BuildFailed: A step failed; the message has the last lines.
        """
        said: list[str] = []
        with self._translated():
            try:
                steps = self._docker.images.build(
                    fileobj=context, encoding="identity", tag=tag, labels=labels, forcerm=True, stream=True
                )
                async for step in steps:
                    for line in step.get("stream", "").splitlines():
                        said.append(line)
                        del said[:-_KEPT_LINES]
                        yield line
            except self._error as error:
                if not getattr(error, "status", 0):  # an error in the stream: the build itself failed
                    raise BuildFailed("\n".join([*said, _text(error)])) from error
                raise

    async def images(self) -> list[dict[str, Any]]:
        """Return the engine's list of images, intermediate ones included."""
        found: list[dict[str, Any]] = await self._json("images/json", params={"all": True})
        return found

    async def images_in_use(self) -> set[str]:
        """Return the ids of the images of all containers, running or not. None of these images can be removed."""
        found = await self._json("containers/json", params={"all": True})
        return {container["ImageID"] for container in found}

    async def tags(self, label: str) -> list[str]:
        """Return the tags of the images with a label."""
        found = await self._json("images/json", params={"filters": json.dumps({"label": [label]})})
        return [tag for image in found for tag in image.get("RepoTags") or ()]

    async def remove_image(self, tag: str) -> bool:
        """Remove an image unless a container uses it. Return whether it is gone."""
        try:
            await self._json(f"images/{tag}", method="DELETE")
        except EngineError as error:
            if error.status not in (404, 409):
                raise
            return error.status == 404
        return True

    async def gateway(self, network: str) -> str | None:
        """Return the address of the engine's machine in a network, None if the network has no gateway.

        Raises:
            EngineError: With status 404: the network does not exist.
        """
        found = await self._json(f"networks/{network}")
        for config in found.get("IPAM", {}).get("Config") or ():
            if gateway := config.get("Gateway"):
                return str(gateway).partition("/")[0]
        return None

    # --- the client -------------------------------------------------------------------------------

    async def _json(self, path: str, method: str = "GET", **keywords: Any) -> Any:
        with self._translated():
            return await self._docker._query_json(path, method, **keywords)

    @contextlib.asynccontextmanager
    async def _stream(self, path: str, params: dict[str, Any]) -> AsyncIterator[Any]:
        """Open the body of a response as a stream of bytes. aiodocker's own readers decode output as text."""
        with self._translated():
            response = await self._docker._do_query(path, "GET", params=params, timeout=None)
            try:
                yield response.content
            finally:
                response.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        import aiohttp

        try:
            yield
        except self._error as error:
            status = getattr(error, "status", 0)
            if status == _NO_ANSWER:
                raise Unreachable(f"the Docker engine {self.address} does not answer: {_text(error)}") from error
            raise EngineError(status, _text(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            text = str(error) or type(error).__name__
            raise Unreachable(f"the Docker engine {self.address} broke the connection: {text}") from error


def parse_time(text: str) -> float:
    """Parse a time of the engine, RFC 3339 with nanoseconds, into seconds since the epoch."""
    return datetime.fromisoformat(_FRACTION.sub(r"\1", text)).timestamp()


async def _read_all(content: Any, size: int) -> bytes:
    """Return exactly `size` bytes, or nothing at the end of the stream."""
    try:
        data: bytes = await content.readexactly(size)
    except EOFError:
        return b""
    return data


def _text(error: Exception) -> str:
    return str(getattr(error, "message", "") or error)


def _how_to_start(address: EngineAddress, error: Exception) -> str:
    if address.socket is not None:
        how = "start it (`sudo systemctl start docker`, or Docker Desktop); your user needs access to its socket"
    else:
        how = "start it on its machine, or set `host` of the profile to another engine"
    return f"{error}. Is the Docker engine running? {how[0].upper()}{how[1:]}"
