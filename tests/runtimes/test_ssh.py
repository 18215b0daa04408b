from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import re
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from lightwork import App, BuildConfig, CloudCompute, Flow, Mount
from lightwork.config import Config
from lightwork.errors import ConfigError, PlatformError
from lightwork.runtime import (
    Address,
    Cause,
    Health,
    ListenerAddress,
    NoCapacity,
    Ref,
    Rejected,
    Runtime,
    Spec,
    Standing,
    Unreachable,
)
from tests.runtimes.sshd import Server, free_port, needs_sshd, sshd
from tests.runtimes.support import first_output, output

from lightwork_runtimes.ssh import SshOptions, SshRuntime  # isort: skip -- after the imports that skip the module
from lightwork_runtimes.ssh._ports import service_ports, usual_ports  # isort: skip
from lightwork_runtimes.remote.supervise import MARGIN  # isort: skip
from tests.runtimes.ssh_works import Echo  # isort: skip

pytestmark = needs_sshd

ENTRY = "lightwork.testing.conformance:main"
OWNER = "owner"


def spec(command: str, name: str = "a", **changes: Any) -> Spec:
    fields: dict[str, Any] = {"name": name, "owner": OWNER, "entry": ENTRY, "ticket": command.encode()}
    return Spec(**{**fields, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, so that keys are made once and the helper is sent once."""
    return tmp_path_factory.mktemp("ssh")


@pytest.fixture
async def server(folder: Path) -> AsyncIterator[Server]:
    async with sshd(folder) as server:
        yield server


@contextlib.asynccontextmanager
async def entered(server: Server, **options: Any) -> AsyncIterator[SshRuntime]:
    """A runtime. At the end it releases all its launches."""
    async with server.runtime(**{"code": [], **options}) as runtime:
        try:
            yield runtime
        finally:
            for ref in await runtime.find(OWNER):
                await runtime.release(ref)
            assert server.launches() == []


async def standing(runtime: Runtime, ref: Ref) -> Standing:
    (report,) = await runtime.poll([ref])
    return report.standing


# --- works ----------------------------------------------------------------------------------------


class Holder(Flow):
    def __init__(self) -> None:
        super().__init__()
        self.echo = Echo()

    async def run(self) -> None:
        await asyncio.Event().wait()


async def test_app_calls_a_work_behind_a_tunnel(server: Server) -> None:
    """A work's calls, results and state use the forwarded port; its code and its folder are copies on the machine."""
    root = Holder()
    async with App(root, runtime="far", runtimes={"far": server.runtime()}):
        value, pid, cwd, file, python = await root.echo.run(7)
        assert (value, root.echo.count) == (7, 1)
        assert pid != os.getpid()
        assert str(cwd).startswith(f"{server.far}/code/")
        assert f"{cwd}/tests/runtimes/ssh_works.py" in map(str, server.far.glob("code/*/tests/runtimes/*.py"))
        assert str(file).endswith("tests/runtimes/ssh_works.py")
        assert python == sys.executable
    assert server.launches() == []


async def test_work_survives_a_cut_connection(server: Server) -> None:
    """When the SSH connection breaks, the worker reconnects through the next one, and is the same process."""
    root = Holder()
    async with App(root, runtime="far", runtimes={"far": server.runtime()}):
        first = await root.echo.run(1)
        server.cut()
        second = await root.echo.run(2)
        assert (second[0], root.echo.count) == (2, 2)
        assert first[1] == second[1]


async def test_code_is_sent_once(server: Server, tmp_path: Path) -> None:
    """Unchanged code is not sent again, not even by another runtime; changed code is sent to another folder."""
    module = tmp_path / "only_here.py"
    for content, copies in [("1", 1), ("1", 1), ("2", 2)]:
        module.write_text(content)
        async with entered(server, code=[str(tmp_path)]) as runtime:
            ref = await runtime.launch(spec("exit 0", cwd=str(tmp_path)))
            assert (await runtime.wait(ref)).exit_code == 0
        found = list(server.far.glob("code/*/only_here.py"))
        assert len(found) == copies
        assert not list(server.far.glob("incoming/*"))


async def test_work_s_own_patterns_are_left_out(server: Server, tmp_path: Path) -> None:
    """Files in a work's `lightningignore` are not sent for it, but for another work of the same folder."""
    for name in ("kept.txt", "secret.txt"):
        (tmp_path / name).write_text(name)
    async with entered(server, code=[str(tmp_path)]) as runtime:
        before = set(server.far.glob("code/*/kept.txt"))
        for patterns in [("secret.txt",), ()]:
            ref = await runtime.launch(spec("exit 0", f"a{len(patterns)}", cwd=str(tmp_path), lightningignore=patterns))
            assert (await runtime.wait(ref)).exit_code == 0
        sent = [path.parent for path in set(server.far.glob("code/*/kept.txt")) - before]
        assert sorted((folder / "secret.txt").exists() for folder in sent) == [False, True]


async def test_whole_home_is_no_code(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A scheduler that is started in the home folder raises an error instead of sending the whole folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    async with entered(server, code=None) as runtime:
        with pytest.raises(Rejected, match=r"the whole of .* would be sent"):
            await runtime.launch(spec("exit 0", cwd=str(tmp_path)))


# --- slots ----------------------------------------------------------------------------------------


async def test_launch_waits_for_a_slot(server: Server) -> None:
    """If every slot is taken, launches wait; a cancelled one leaves nothing, the other starts when a slot is free."""
    async with entered(server, slots=1) as runtime:
        first = await runtime.launch(spec("wait", "first"))
        waiting = asyncio.ensure_future(runtime.launch(spec("wait", "second")))
        given_up = asyncio.ensure_future(runtime.launch(spec("wait", "third")))
        assert await runtime.launch(spec("wait", "first")) == first  # a known launch needs no slot
        assert [ref.name for ref in await runtime.find(OWNER)] == ["first"]
        given_up.cancel()
        await asyncio.wait([given_up])
        await runtime.stop(first, 0)
        second = await waiting
        assert await standing(runtime, second) is Standing.RUNNING
        assert [ref.name for ref in await runtime.find(OWNER)] == ["first", "second"]


async def test_slots_count_over_schedulers(server: Server) -> None:
    """A second scheduler with the same folder counts the launches of the first one."""
    async with entered(server, slots=1) as one, entered(server, slots=1) as two:
        ref = await one.launch(spec("wait", "first"))
        waiting = asyncio.ensure_future(two.launch(spec("say done", "second")))
        await two.find(OWNER)
        assert not waiting.done()
        await one.release(ref)
        assert (await two.wait(await waiting)).exit_code == 0


class Queue(Flow):
    def __init__(self) -> None:
        super().__init__()
        self.first = Echo()
        self.second = Echo()

    async def run(self) -> None:
        await asyncio.Event().wait()


async def test_work_without_a_slot_is_pending(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """While no slot is free a call is pending without limit, which is logged; it runs when a slot is released."""
    caplog.set_level(logging.INFO, "lightwork")
    root = Queue()
    runtime = server.runtime(slots=1)
    async with App(root, runtime="far", runtimes={"far": runtime}, launch_timeout=30):
        await root.first.run(1)
        call = root.second.submit(2)
        with caplog.at_level(logging.INFO):
            while "no slot is free" not in caplog.text:
                await runtime.find(OWNER)
        assert root.second.is_pending
        assert not call.done
        await root.first.stop()
        assert (await call)[0] == 2


async def test_pool_uses_every_host(server: Server) -> None:
    """Works spread over the machines of a profile, and are found without the hint of their ref."""
    other = f"localhost:{server.port}"
    known = (server.folder / "known_hosts").read_text()
    (server.folder / "known_hosts").write_text(known + known.replace("127.0.0.1", "localhost"))
    hosts = [{"host": server.host, "folder": f"{server.far}1"}, {"host": other, "folder": f"{server.far}2"}]
    options = msgspec.convert({**msgspec.to_builtins(server.options(slots=1, code=[])), "hosts": hosts}, SshOptions)
    async with SshRuntime("pool", options) as runtime:
        refs = [await runtime.launch(spec("wait", name)) for name in ("a", "b")]
        assert {ref.hint["host"] for ref in refs} == {server.host, other}
    async with SshRuntime("pool", options) as runtime:
        bare = [Ref("pool", ref.name) for ref in refs]
        assert [report.standing for report in await runtime.poll(bare)] == [Standing.RUNNING] * 2
        for ref in bare:
            await runtime.release(ref)
        assert await runtime.find(OWNER) == []


# --- connections that break -----------------------------------------------------------------------


async def test_launch_goes_on_when_the_connection_is_cut(server: Server) -> None:
    """`wait` and `logs` survive a broken connection; a poll reconnects and finds the same process running."""
    async with entered(server) as runtime:
        ref = await runtime.launch(spec("wait"))
        assert await first_output(runtime, ref) == "waiting\n"
        waiting = asyncio.ensure_future(runtime.wait(ref))
        following = asyncio.ensure_future(output(runtime, ref))
        (before,) = await runtime.poll([ref])
        server.cut()
        while (await standing(runtime, ref)) is Standing.UNKNOWN:
            continue
        assert await runtime.poll([ref]) == [before]
        await runtime.stop(ref, 30)
        assert (await waiting).cause is Cause.STOPPED
        assert await following == "waiting\n"


async def test_unreachable_is_unknown_and_not_dead(folder: Path) -> None:
    """While the server is down a launch is unknown; when the server is back the same launch runs."""
    port = free_port()
    async with sshd(folder, port=port) as server:
        options = server.options(code=[])
    runtime = SshRuntime("away", options)
    async with runtime:
        async with sshd(folder, port=port):
            ref = await runtime.launch(spec("wait"))
        assert await standing(runtime, ref) is Standing.UNKNOWN
        with pytest.raises(Unreachable):
            await runtime.find(OWNER)
        async with sshd(folder, port=port):
            assert (await runtime.poll([Ref("away", "never", ref.hint)]))[0].standing is Standing.ABSENT
            assert await standing(runtime, ref) is Standing.RUNNING
        with pytest.raises(ExceptionGroup, match="could not be released"):
            await runtime.release(ref)
        async with sshd(folder, port=port):
            await runtime._hosts[options.hosts[0]].session()  # type: ignore[index]
            assert await standing(runtime, ref) is Standing.ABSENT  # the failed release was done after the reconnect


async def test_half_open_connection_gives_its_port_back(server: Server) -> None:
    """If the server has not noticed that a connection is dead, the next one ends it and takes over its port."""
    async with entered(server) as runtime:
        await runtime.routes(Address("127.0.0.1", 1))
        await runtime.launch(spec("wait"))
        host = runtime._hosts[server.host]
        session = host._session
        assert session is not None
        (old,) = server.sessions()
        old.suspend()
        session.lost()
        assert await host.session() is not session
        psutil.wait_procs([old])


async def test_orphan_is_ended_on_the_far_side(server: Server) -> None:
    """A worker without a scheduler for too long is ended on its machine, without a request from any scheduler."""
    # This happens after two seconds: the margin of the supervisor is subtracted first.
    async with server.runtime(code=[]) as first:
        ref = await first.launch(spec("stubborn", orphan_after=2 - MARGIN))
    async with entered(server) as second:
        assert await output(second, ref) == "waiting\n"
        (report,) = await second.poll([ref])
        assert (report.standing, report.exit_code, report.cause) == (Standing.EXITED, -signal.SIGKILL, Cause.STOPPED)


async def test_second_controller_adopts_everything(server: Server) -> None:
    """After kill -9 of a scheduler another one finds its launches, follows, waits for, stops and releases them."""
    profile = msgspec.json.encode(server.options(code=[])).decode()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.runtimes.ssh_works", "first", profile), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
    finally:
        process.kill()
        await process.wait()
    async with entered(server) as runtime:
        refs = await runtime.find(OWNER)
        assert [ref.name for ref in refs] == ["c0", "c1"]
        assert (await runtime.wait(refs[1])).exit_code == 0
        assert await output(runtime, refs[1]) == "done\n"
        waiting = asyncio.ensure_future(runtime.wait(refs[0]))
        assert await standing(runtime, refs[0]) is Standing.RUNNING
        await runtime.stop(refs[0], 0)
        assert (await waiting).cause is Cause.STOPPED


async def test_tree_goes_with_its_supervisor(server: Server, tmp_path: Path) -> None:
    """A stop ends the whole tree, daemons included, even if the supervisor was killed before."""
    async with entered(server, code=[os.getcwd()]) as runtime:
        for name in ("stopped", "killed"):
            file = tmp_path / name
            entry = "tests.runtimes.entries:main"
            ref = await runtime.launch(spec(f"tree {file}", name, entry=entry, cwd=os.getcwd()))
            await first_output(runtime, ref)
            pids = [psutil.Process(pid) for pid in json.loads(file.read_text())]
            if name == "killed":
                os.kill(json.loads((server.far / "launches" / OWNER / name / "pid").read_text())[0], signal.SIGKILL)
            await runtime.stop(ref, 0)
            (report,) = await runtime.poll([ref])
            assert report.standing is Standing.EXITED
            assert not [process for process in pids if process.is_running() and process.status() != "zombie"]


async def test_ticket_is_nowhere_visible(server: Server) -> None:
    """The ticket's content is in no remote file, no command line and no environment."""
    secret = os.urandom(16).hex()
    async with entered(server) as runtime:
        await first_output(runtime, await runtime.launch(spec(f"wait {secret}")))
        files = [path for path in server.far.rglob("*") if path.is_file()]
        assert files
        assert not [path for path in files if secret.encode() in path.read_bytes()]
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                assert secret not in f"{process.cmdline()} {process.environ()}"


# --- the tunnel -----------------------------------------------------------------------------------


class Upper(asyncio.Protocol):
    """Answers in capital letters. An exclamation mark makes it end gracefully, a question mark at once."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.ends: list[Exception | None] = []
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=1000, low=10)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())
        if data.endswith(b"!"):
            self.transport.close()
        if data.endswith(b"?"):
            self.transport.abort()
        assert self.transport.is_closing() is (data[-1:] in b"!?")

    def connection_lost(self, exc: Exception | None) -> None:
        self.ends.append(exc)
        self.ended.set()


@contextlib.asynccontextmanager
async def door(server: Server) -> AsyncIterator[tuple[list[Upper], int]]:
    """The protocols that serve tunnel connections to a port without a listener; and the remote port."""
    served: list[Upper] = []

    def accept() -> Upper:
        served.append(Upper())
        return served[-1]

    async with entered(server, ports=[free_port()]) as runtime:
        (route,) = await runtime.routes(ListenerAddress("127.0.0.1", 1, accept))
        await runtime.launch(spec("wait"))
        yield served, route.port


@pytest.mark.parametrize(("last", "answer"), [(b"bye!", b"BYE!"), (b"", b""), (b"now?", None)])
async def test_scheduler_serves_the_channel_itself(server: Server, last: bytes, answer: bytes | None) -> None:
    """A connection through the tunnel reaches the scheduler's protocol, not its port, until either side ends it."""
    async with door(server) as (served, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x" * 100_000)
        assert await reader.readexactly(100_000) == b"X" * 100_000
        writer.write(last)
        writer.write_eof()
        if answer is not None:
            assert await reader.read() == answer
        (one,) = served
        await one.ended.wait()
        writer.close()
    assert one.ends == [None]


async def test_served_message_leaves_in_one_segment(server: Server) -> None:
    """The scheduler's message to a worker and the empty packet before it are sent in one segment."""
    async with door(server) as (served, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def ask() -> None:
            writer.write(b"x")
            assert await reader.readexactly(1) == b"X"

        await ask()
        connection = served[0].transport._sock  # type: ignore[attr-defined]  # no public API has it
        before = segments(connection)
        for _ in range(20):
            await ask()
        assert 20 <= segments(connection) - before < 30  # heartbeats of the runtime are sent too
        writer.close()


def segments(connection: socket.socket) -> int:
    """Return the number of segments with data that were sent, counted by Linux (`tcpi_data_segs_out`)."""
    (count,) = struct.unpack_from("=I", connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160), 156)
    return int(count)


async def test_served_channel_ends_with_the_connection(server: Server) -> None:
    """When the SSH connection breaks, the scheduler's protocol is notified of the lost connection."""
    async with door(server) as (served, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x")
        assert await reader.read(1) == b"X"
        server.cut()
        await served[0].ended.wait()
        assert isinstance(served[0].ends[0], Exception)
        writer.close()


def test_no_two_ports_are_the_same() -> None:
    """A service's local and remote ports are never ports that workers connect to, and are the same on every start."""
    dialled = usual_ports("far")
    assert len(set(dialled)) == len(dialled)
    for number in range(2000):
        local, remote = service_ports(f"launch {number}", dialled)
        assert local != remote
        assert not {local, remote} & set(dialled)
        assert service_ports(f"launch {number}", [remote])[1] != remote
        assert service_ports(f"launch {number}", dialled) == (local, remote)


@pytest.mark.parametrize("is_fixed", [False, True])
async def test_url_is_kept_whose_port_was_not_the_usual_one(server: Server, is_fixed: bool) -> None:
    """A service whose preferred port was taken here has the same url after another runtime finds its launch."""
    local, remote = service_ports("a", ())
    changes: dict[str, Any] = {}
    if is_fixed:  # the work names its port
        remote = changes["port"] = free_port()
    async with server.runtime(code=[]) as first:
        with socket.create_server(("127.0.0.1", local)):
            ref = await first.launch(spec("wait", **changes))
        assert "waiting" in await first_output(first, ref)
        assert await first.launch(spec("wait", **changes)) == ref
        (url,) = urls_of_workers(server)
    async with entered(server) as second:
        assert await second.find(OWNER) == [ref]
        waiting = asyncio.ensure_future(second.wait(ref))
        port = int(url.rpartition(":")[2])
        assert port != local
        visited = asyncio.Event()

        def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            visited.set()
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", remote):
            while not visited.is_set():
                with contextlib.suppress(OSError):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    await reader.read()
                    writer.close()
                await asyncio.sleep(0.05)
        waiting.cancel()


def urls_of_workers(server: Server) -> set[str]:
    """Return the urls that the workers of a server received for their services."""
    urls = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            told, parent = process.environ().get("_LIGHTWORK_SERVICE"), process.parent()
            if told and parent is not None and str(server.far) in str(parent.cmdline()):
                urls.add(told.split(",")[2])
    return urls


# --- errors -------------------------------------------------------------------------------------


async def launch_error(server: Server, **options: Any) -> PlatformError:
    """Return the error of a launch; it names profile and host."""
    async with server.runtime(**{"code": [], **options}) as runtime:
        with pytest.raises(PlatformError) as caught:
            await runtime.launch(spec("exit 0"))
    assert f"runtimes.test{server.port}: host " in str(caught.value)
    return caught.value


async def test_changed_host_key_is_rejected(server: Server, tmp_path: Path) -> None:
    """A host whose key is not the known one is not connected to."""
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{server.port} {(server.folder / 'key.pub').read_text()}")
    error = await launch_error(server, known_hosts=str(known))
    assert isinstance(error, Rejected)
    assert "host key" in str(error)
    assert "ssh-keygen -R" in str(error)


async def test_unknown_host_key_is_rejected(server: Server, tmp_path: Path) -> None:
    """A host without a known key is not connected to."""
    (tmp_path / "known_hosts").write_text("")
    assert "host key" in str(await launch_error(server, known_hosts=str(tmp_path / "known_hosts")))


async def test_check_of_host_keys_cannot_be_turned_off(server: Server, tmp_path: Path) -> None:
    """A configuration that turns off the host key check is refused."""
    (tmp_path / "config").write_text("Host *\n  UserKnownHostsFile none\n")
    error = await launch_error(server, known_hosts=None, config=str(tmp_path / "config"))
    assert "turns off the host key check" in str(error)


async def test_refused_key_is_rejected(server: Server) -> None:
    """A login that the server refuses is an error that names what to check."""
    error = await launch_error(server, client_keys=[str(server.folder / "host_key")])
    assert isinstance(error, Rejected)
    assert "authorized_keys" in str(error)


async def test_missing_key_is_rejected(server: Server) -> None:
    """The error names a key file that does not exist."""
    assert "nowhere/key" in str(await launch_error(server, client_keys=["/nowhere/key"]))


async def test_nobody_listens(server: Server) -> None:
    """A port without a listener is unreachable, not rejected."""
    error = await launch_error(server, hosts=[f"127.0.0.1:{free_port()}"])
    assert isinstance(error, Unreachable)
    assert "Connection refused" in str(error)


async def test_server_that_hangs(server: Server) -> None:
    """A server that accepts and sends nothing fails after connect_timeout."""
    with socket.create_server(("127.0.0.1", 0)) as hanging:  # the kernel accepts, but no process does
        port = hanging.getsockname()[1]
        error = await launch_error(server, hosts=[f"127.0.0.1:{port}"], connect_timeout=0.3)
    assert isinstance(error, Unreachable)
    assert "no answer within 0.3 s (connect_timeout)" in str(error)


async def test_helper_that_hangs(server: Server, tmp_path: Path) -> None:
    """A login that succeeds but never runs the helper also fails after connect_timeout."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec cat\n")
    python.chmod(0o755)
    assert isinstance(await launch_error(server, python=str(python), connect_timeout=1), Unreachable)


async def test_python_that_is_not_there(server: Server) -> None:
    """The error names an interpreter that cannot be run, and has the shell's output."""
    error = await launch_error(server, python="/nowhere/python")
    assert isinstance(error, Rejected)
    assert "'/nowhere/python' could not run lightwork's helper (exit code 127)" in str(error)


async def test_full_disk(server: Server, tmp_path: Path) -> None:
    """If the disk is full, the launch has no capacity and leaves nothing."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nulimit -f 0\nexec {sys.executable} -B "$@"\n')
    python.chmod(0o755)
    far = tmp_path / "far"
    async with server.runtime(code=[], folder=str(far)) as runtime:
        await runtime.find(OWNER)
    # Without its file, a session of this instance could not even start. With the file, the launch is what fails.
    error = await launch_error(server, python=str(python), folder=str(far))
    assert re.search("too large|No space", str(error))
    assert [path for path in far.glob("launches/*/*") if path.is_dir()] == []


async def test_what_it_cannot_do_is_rejected(server: Server) -> None:
    """Mounts, requirements without `prepare`, an invalid entry, and variables that cannot be set are refused."""
    wrong: list[dict[str, Any]] = [
        {"compute": CloudCompute(mounts=Mount("data", "/data"))},
        {"build": BuildConfig(requirements=["numpy"])},
        {"entry": "nothing"},
        {"env": {"A": "\0"}},
        {"name": "../a"},
    ]
    async with entered(server) as runtime:
        for number, changes in enumerate(wrong):
            with pytest.raises(Rejected):
                await runtime.launch(spec("exit 0", **{"name": f"a{number}", **changes}))


async def test_ports_that_are_taken(server: Server) -> None:
    """The first free port is forwarded; if all are taken, the error says what to do."""
    listener = Address("127.0.0.1", 1)
    taken = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with taken:
        port = taken.sockets[0].getsockname()[1]
        async with entered(server, ports=[port]) as runtime:
            assert await runtime.routes(listener) == [Address("127.0.0.1", port)]
            with pytest.raises(NoCapacity, match="AllowTcpForwarding"):
                await runtime.launch(spec("exit 0"))
        async with entered(server, ports=[port, free_port()]) as runtime:
            await runtime.routes(listener)
            assert (await runtime.wait(await runtime.launch(spec("exit 0")))).exit_code == 0


async def test_direct_routes(server: Server) -> None:
    """Works connect to the address that the remote machine sees; the loopback is refused as that address."""
    async with entered(server, direct=True) as runtime:
        assert await runtime.routes(Address("0.0.0.0", 5)) == [Address("127.0.0.1", 5)]
        assert await runtime.routes(Address("10.0.0.1", 5)) == [Address("10.0.0.1", 5)]
        with pytest.raises(Rejected, match="direct = true"):
            await runtime.routes(Address("127.0.0.1", 5))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hosts": []}, "hosts is empty"),
        ({"hosts": ["me@"]}, "'me@' is not of the form user@host:port"),
        ({"hosts": ["a:99999"]}, "user@host:port"),
        ({"hosts": ["a", "a"]}, "hosts names 'a' twice"),
        ({"hosts": ["a"], "slots": 0}, "slots"),
        ({"hosts": [{"host": "a", "slot": 2}]}, "slot"),
        ({"hosts": ["a"], "ports": [0]}, "ports must be between"),
        ({"hosts": ["a"], "connect_timeout": 0}, "connect_timeout must be more than 0"),
        ({"hosts": ["a"], "wheels": "yes"}, "wheels"),
        ({}, "hosts"),
        ({"host": "a"}, "host"),
    ],
)
def test_wrong_options_name_profile_and_key(options: dict[str, Any], said: str) -> None:
    """A profile with a bad value is a configuration error that names the profile and the key."""
    config = Config(runtimes={"gpu": {"kind": "ssh", **options}})
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        config.options("gpu", SshOptions)
    assert "runtimes.gpu" in str(caught.value)


def test_hosts_are_read() -> None:
    """User, host, port and slots come from the host's entry, otherwise from the profile."""
    hosts = ["me@a:2222", "b", {"host": "[::1]:22", "slots": 3, "folder": "~/x"}]
    options = msgspec.convert({"hosts": hosts, "slots": 2}, SshOptions)
    found = [(one.user, one.host, one.port, one.slots, one.folder) for one in options.targets()]
    usual = ".cache/lightwork/ssh"
    assert found == [("me", "a", 2222, 2, usual), (None, "b", None, 2, usual), (None, "::1", 22, 3, "x")]


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without asyncssh the runtime cannot be created, and the error says what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"lightwork\[ssh\]"):
        SshRuntime("gpu", SshOptions(hosts=["a"]))


async def test_diagnose_logs_in_to_each_machine(server: Server) -> None:
    """A machine with a login reports its Python; a machine without one is a problem; nothing is left on the machine."""
    far = server.folder / "untouched"
    findings = await SshRuntime.diagnose("ssh", server.options(folder=str(far)))
    found = {finding.what: finding for finding in findings}
    assert found[f"host {server.host}"].health is Health.OK
    assert found[f"host {server.host}"].detail.startswith("Python 3.")
    assert not far.exists()
    wrong = server.options(python="no-such-python", client_keys=[str(server.folder / "nothing")])
    found = {finding.what: finding for finding in await SshRuntime.diagnose("ssh", wrong)}
    assert found["keys"].health is Health.PROBLEM
    assert found[f"host {server.host}"].health is Health.PROBLEM
    free = server.options(hosts=[f"127.0.0.1:{free_port()}"])
    found = {finding.what: finding for finding in await SshRuntime.diagnose("ssh", free)}
    assert any(finding.health is Health.PROBLEM for finding in found.values())
