"""The log lines of works over HTTP: from the disk and live."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import yarl

from lightwork.logfiles import LogReader, LogWriter, latest_run
from lightwork.server.http_server import HttpSide
from tests.server.support import Root, Worker, serving


async def test_lines_are_read_while_the_app_runs_and_after(tmp_path: Path) -> None:
    """Lines are numbered, are found by work and text, and remain on the disk after the app has ended."""
    root = Root(one=Worker(), two=Worker())
    async with serving("local", root=root, log_dir=str(tmp_path)) as client:
        for work in client.app.works:
            await work.submit("print", 50)
            await work.stop()
        page = await client.get("/logs?limit=1000")
        assert [line["seq"] for line in page["items"]] == list(range(1, 101))
        assert {line["work"] for line in page["items"][:50]} == {"root.one"}
        page = await client.get("/logs?work=root.two&search=LINE%204&tail=2")
        assert [line["text"] for line in page["items"]] == ["line 48", "line 49"]
        page = await client.get("/logs?after=10&limit=2")
        assert ([line["seq"] for line in page["items"]], page["more"]) == ([11, 12], True)
        page = await client.get("/logs?before=3")
        assert ([line["seq"] for line in page["items"]], page["more"]) == ([1, 2], False)
        async with client.session.get(f"{client.base}/api/v1/works/root.one/logs/download") as answer:
            assert (await answer.text()).splitlines() == [f"line {number}" for number in range(50)]
            assert answer.headers["Content-Disposition"] == 'attachment; filename="root.one.log"'
    folder = latest_run(tmp_path)
    assert folder is not None
    assert [line.text for line in LogReader(folder).read(["root.two"], tail=1).items] == ["line 49"]


async def test_whoever_followed_finds_the_rest_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the HTTP server ends, all lines are on the disk, even if the disk is slow."""
    gate = threading.Event()
    append, close, leave = LogWriter._append, LogWriter.aclose, HttpSide.aclose
    kept: list[str] = []

    def append_late(self: LogWriter, work: str, blocks: list[Any]) -> None:
        assert gate.wait(60)
        append(self, work, blocks)

    async def close_gladly(self: LogWriter) -> None:
        gate.set()
        await close(self)

    async def leave_and_look(self: HttpSide) -> None:
        folder = latest_run(tmp_path)
        assert folder is not None
        kept.extend(line.text for line in LogReader(folder).read(["root.work"]).items)
        gate.set()
        await leave(self)

    monkeypatch.setattr(LogWriter, "_append", append_late)
    monkeypatch.setattr(LogWriter, "aclose", close_gladly)
    monkeypatch.setattr(HttpSide, "aclose", leave_and_look)
    async with serving("local", root=Root(work=Worker()), log_dir=str(tmp_path)) as client:
        await client.app.works[0].submit("print", 5)
    assert kept == [f"line {number}" for number in range(5)]


async def test_live_lines(tmp_path: Path) -> None:
    """A client gets the lines of only those works that it follows."""
    root = Root(one=Worker(), two=Worker())
    async with serving("local", root=root, log_dir=str(tmp_path)) as client, client.feed() as feed:
        await feed.next()
        await feed.say(type="follow", logs=["root.two"])
        await feed.say(type="ping")
        await feed.next()
        for work in client.app.works:
            await work.submit("print", 5)
        seen = await feed.until(t="log", text="line 4")
        lines = [item for item in seen if item["t"] == "log"]
        assert {line["work"] for line in lines} == {"root.two"}
        page = await client.get("/logs?work=root.two")
        assert [line["seq"] for line in page["items"]] == [line["seq"] for line in lines]


@pytest.mark.bare
async def test_output_that_is_not_kept() -> None:
    """Without a log folder the answer is 404."""
    async with serving(log_dir="") as client:
        for path in ("/logs", "/works/root.work/logs/download"):
            assert (await client.ask("GET", path))[0] == 404


@pytest.mark.bare
@pytest.mark.parametrize(
    "name", ["..", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "%2Fetc%2Fpasswd", "root.work%2f..%2f..", "a%00b"]
)
async def test_paths_in_the_place_of_names(name: str, tmp_path: Path) -> None:
    """A work's name is looked up and never joined to a path: names with dots, slashes or NUL are not found."""
    (tmp_path / "secret").write_text("secret")
    async with serving(log_dir=str(tmp_path / "logs")) as client:
        for path in (f"/works/{name}/logs/download", f"/logs?work={name}"):
            async with client.session.get(yarl.URL(f"{client.base}/api/v1{path}", encoded=True)) as answer:
                assert answer.status in (400, 404)
                assert b"secret" not in await answer.read()
