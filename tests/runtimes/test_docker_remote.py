"""An engine behind TCP and TLS, like the engine of another machine."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lightwork.errors import PlatformError
from lightwork.runtime import Address
from lightwork.testing.conformance import CHECKS, run_check
from lightwork_runtimes.docker import DockerOptions, DockerRuntime
from tests.runtimes.docker_base import base_image, require_engine

require_engine()
if shutil.which("openssl") is None:
    pytest.skip("the command `openssl` is not installed", allow_module_level=True)

pytestmark = pytest.mark.timeout(120)

SOCKET = "/var/run/docker.sock"
ENOUGH = ["exit_code_is_reported", "stop_forces_after_the_grace", "output_is_followed", "cancelled_launch_is_found"]


def make_certificates(folder: Path, name: str) -> Path:
    """Make an authority and a certificate of it for both ends."""
    folder.mkdir()
    (folder / "ext").write_text("subjectAltName=IP:127.0.0.1\n")
    new = "openssl req -newkey rsa:2048 -nodes"
    for line in (
        f"{new} -x509 -days 2 -subj /CN={name} -keyout ca-key.pem -out ca.pem "
        "-addext keyUsage=critical,keyCertSign -addext basicConstraints=critical,CA:TRUE",
        f"{new} -subj /CN=both -keyout key.pem -out both.csr",
        "openssl x509 -req -days 2 -in both.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial "
        "-extfile ext -out cert.pem",
    ):
        subprocess.run(line.split(), cwd=folder, check=True, capture_output=True)
    return folder


@contextlib.asynccontextmanager
async def engine_behind_tls(certificates: Path) -> AsyncIterator[str]:
    """The local engine, at a TCP port that requires a certificate of the test's authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.pem"))
    context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    writers: set[asyncio.StreamWriter] = set()
    tasks: set[asyncio.Task[None]] = set()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except (ConnectionError, ssl.SSLError):
            return
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        other_reader, other_writer = await asyncio.open_unix_connection(SOCKET)
        writers.update((writer, other_writer))
        async with asyncio.TaskGroup() as group:
            group.create_task(pipe(reader, other_writer))
            group.create_task(pipe(other_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        if tasks:
            await asyncio.wait(tasks)


@pytest.mark.parametrize("check", [check for check in CHECKS if check.__name__ in ENOUGH], ids=lambda c: c.__name__)
async def test_engine_behind_tls_keeps_the_contract(check: object, tmp_path: Path) -> None:
    """Launching, the ticket on standard input, output and ending work over TLS as over the socket."""
    certificates = make_certificates(tmp_path / "certificates", "ours")
    async with engine_behind_tls(certificates) as host:
        options = DockerOptions(host=host, tls=str(certificates), image=base_image(), pull="never", network="host")
        await run_check(check, lambda: DockerRuntime("docker", options))  # type: ignore[arg-type]


async def test_engine_of_another_authority_is_refused(tmp_path: Path) -> None:
    """An engine with a certificate of another authority gets no request, nor does an engine without TLS."""
    ours, theirs = (make_certificates(tmp_path / name, name) for name in ("ours", "theirs"))
    async with engine_behind_tls(theirs) as host:
        for options in (DockerOptions(host=host, tls=str(ours)), DockerOptions(host=host)):
            with pytest.raises(PlatformError, match=host):
                await DockerRuntime("docker", options).__aenter__()


async def test_route_from_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """For an engine on another machine, the route is this machine's address towards it, and ports are published."""
    from lightwork_runtimes.docker import _routes
    from lightwork_runtimes.docker._address import EngineAddress
    from lightwork_runtimes.docker._engine import DockerEngine

    engine = DockerEngine(EngineAddress("tcp://192.0.2.7:2376", tls="/certs"))
    monkeypatch.setattr(_routes, "_own_address", lambda engine: "192.0.2.1")
    options = DockerOptions()
    assert await _routes.find_routes(engine, options, Address("0.0.0.0", 5)) == [Address("192.0.2.1", 5)]
    assert _routes.publish_address(engine, options) == "192.0.2.7"
    assert _routes.publish_address(engine, DockerOptions(publish=False)) is None
