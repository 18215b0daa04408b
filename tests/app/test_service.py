"""The work's own service: host, port and url."""

from __future__ import annotations

import asyncio

import pytest

from lightwork import App, Work
from lightwork.components.ports import reserve_port
from tests.support_works import Root, Told

RUNTIMES = ["inprocess", "local"]


class Greeter(Told):
    """Serves one line of text to each connection, from one request until another."""

    def __init__(self, port: int | None = None, host: str = "127.0.0.1") -> None:
        super().__init__(parallel=True, host=host, port=port)
        self.seen_port = 0
        self.may_serve = False
        self.may_close = False
        self.has_closed = False

    async def run(self) -> None:
        port = self.port
        assert port is not None
        self.seen_port = port
        await self.until("may_serve")

        def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello\n")
            writer.close()

        async with await asyncio.start_server(greet, self.host, port):
            await self.until("may_close")
        self.has_closed = True
        await asyncio.Event().wait()


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_url_is_there_while_the_service_answers(runtime: str) -> None:
    """The url is set while something answers at the port, and empty before and after."""
    work = Greeter()
    async with App(Root(work), runtime=runtime) as app:
        work.submit()
        await app.wait_for(lambda: work.seen_port)
        assert work.port == work.seen_port
        assert work.url == ""
        work.may_serve = True
        await app.wait_for(lambda: work.url)
        assert work.url == f"http://127.0.0.1:{work.seen_port}"
        reader, writer = await asyncio.open_connection("127.0.0.1", work.seen_port)
        assert await reader.readline() == b"hello\n"
        writer.close()
        await writer.wait_closed()
        work.may_close = True
        await app.wait_for(lambda: work.has_closed and not work.url)


@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_addresses_are_empty_until_the_work_is_up_and_when_it_is_gone(runtime: str) -> None:
    """A running work has an internal_ip, and no public_ip here; a stop clears addresses, url and free port."""
    work = Greeter()
    async with App(Root(work), runtime=runtime) as app:
        await work.start()
        await app.wait_for(lambda: work.internal_ip)
        assert (work.internal_ip, work.public_ip) == ("127.0.0.1", "")
        work.submit()
        await app.wait_for(lambda: work.port)
        await work.stop()
        assert (work.internal_ip, work.url, work.port) == ("", "", None)


async def test_a_given_port_is_kept() -> None:
    """Run sees a port that was given, and the port stays after a stop."""
    holder = Greeter()
    port = reserve_port("127.0.0.1", holder)
    work = Greeter(port)
    async with App(Root(work), runtime="local") as app:
        work.submit()
        await app.wait_for(lambda: work.seen_port)
        assert work.seen_port == port
        await work.stop()
        assert work.port == port


async def test_many_works_get_different_ports() -> None:
    """Pitfall 18: works that pick their ports at the same moment get different ports."""
    works = [Greeter() for _ in range(12)]
    async with App(Root(*works), runtime="local") as app:
        for work in works:
            work.submit()
        await app.wait_for(lambda: all(work.seen_port for work in works))
        assert len({work.seen_port for work in works}) == len(works)


async def test_a_service_on_all_addresses_is_named_by_one() -> None:
    """The url of a service that binds all addresses has the address at which the work is reached."""
    work = Greeter(host="0.0.0.0")
    async with App(Root(work), runtime="local") as app:
        work.may_serve = True
        work.submit()
        await app.wait_for(lambda: work.url)
        assert work.url == f"http://127.0.0.1:{work.seen_port}"


class OnAnotherMachine(Work):
    """Reads a port for a host of another machine."""

    def __init__(self) -> None:
        super().__init__(host="192.0.2.1")

    async def run(self) -> int | None:
        return self.port


async def test_host_of_another_machine() -> None:
    """Reading a port for a host that this machine does not have is an error that names the host."""
    work = OnAnotherMachine()
    async with App(Root(work), runtime="local"):
        with pytest.raises(OSError, match=r"192\.0\.2\.1.*no address of its machine"):
            await work.run()
