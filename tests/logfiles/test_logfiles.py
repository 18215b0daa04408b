"""The output of works on disk: nothing is lost, everything can be read, and the size is bounded."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from lightwork.logfiles import LogReader, LogWriter, begin_run, latest_run
from lightwork.logfiles import writer as writer_module

pytestmark = pytest.mark.bare

MB = 1024 * 1024


def block(start: int, count: int) -> bytes:
    """Return lines that contain their numbers."""
    return b"".join(b"%d\n" % number for number in range(start, start + count))


async def write(writer: LogWriter, works: list[str], blocks: int, seed: int = 0) -> list[tuple[int, str, str]]:
    """Write blocks of lines of random works; return all lines in order."""
    chance = random.Random(seed)
    lines = []
    for number in range(blocks):
        work, count = chance.choice(works), chance.randint(1, 40)
        first = writer.write(work, block(number * 100, count), count, float(number))
        lines += [(first + at, work, str(number * 100 + at)) for at in range(count)]
    await writer.wait_written()
    return lines


def log_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.log"))


def seen(page: Any) -> list[tuple[int, str, str]]:
    return [(one.seq, one.work, one.text) for one in page.items]


async def test_lines_come_back_in_order(tmp_path: Path) -> None:
    """Lines of several works are merged in the order of arrival, from any place, in both directions, page by page."""
    works = ["root.a", "root.b", "root.c"]
    writer = LogWriter(tmp_path, 64 * MB)
    lines = await write(writer, works, 300)
    reader = LogReader(tmp_path)
    assert reader.works() == works
    assert seen(reader.read(limit=10**6)) == lines
    assert seen(reader.read(tail=7)) == lines[-7:]
    forward, after = [], 0
    while page := reader.read(after=after, limit=173).items:
        forward += seen_items(page)
        after = page[-1].seq
    assert forward == lines
    backward: list[Any] = []
    before = None
    while True:
        page_back = reader.read(before=before, limit=173)
        backward = seen(page_back) + backward
        if not page_back.more:
            break
        before = page_back.first
    assert backward == lines
    assert (
        seen(reader.read(["root.b"], after=500, limit=9))
        == [one for one in lines if one[0] > 500 and one[1] == "root.b"][:9]
    )
    await writer.aclose()


def seen_items(items: Any) -> list[tuple[int, str, str]]:
    return [(one.seq, one.work, one.text) for one in items]


async def test_search(tmp_path: Path) -> None:
    """A search finds text in any case, ASCII or not, and only within single lines."""
    writer = LogWriter(tmp_path, MB)
    data = "one Error\ntwo\nthree ERROR\nÄrger\nerr\nor\n".encode()
    writer.write("root.a", data, 6, 1.0)
    await writer.wait_written()
    reader = LogReader(tmp_path)
    assert [one.text for one in reader.read(search="error").items] == ["one Error", "three ERROR"]
    assert [one.text for one in reader.read(search="ärger").items] == ["Ärger"]
    assert reader.read(search="none").items == []
    await writer.aclose()


async def test_rotation(tmp_path: Path) -> None:
    """For a work with endless output, the latest lines are kept, up to about the allowed number of bytes."""
    writer = LogWriter(tmp_path, MB)
    for number in range(400):
        writer.write("root.a", b"x" * 9999 + b"\n", 1, float(number))
        if number % 50 == 0:
            await writer.wait_written()
    writer.write("root.b", b"other\n", 1, 0.0)
    await writer.wait_written()
    size = sum(path.stat().st_size for path in log_files(tmp_path))
    assert MB / 2 < size <= MB + 10_000
    page = LogReader(tmp_path).read(["root.a"], limit=10**6)
    assert [one.seq for one in page.items] == list(range(page.first, 401))
    assert page.first > 1
    assert len(list(LogReader(tmp_path).read(["root.b"]).items)) == 1
    await writer.aclose()


@pytest.mark.parametrize(
    "work",
    ["root.a/b", "root...", "root.é", "root." + "x" * 500, "root.a~b", "root.%2e", "root.\x00", "root.CON.001.log"],
)
async def test_any_name_is_a_file_of_its_own(work: str, tmp_path: Path) -> None:
    """For any name of a work, its files are in the folder, and its name can be read back."""
    folder = tmp_path / "run"
    writer = LogWriter(folder, MB)
    writer.write(work, b"line\n", 1, 1.0)
    writer.write("root.other", b"line\n", 1, 1.0)
    await writer.aclose()
    assert sorted(LogReader(folder).works()) == sorted([work, "root.other"])
    assert [one.work for one in LogReader(folder).read([work]).items] == [work]
    assert b"".join(LogReader(folder).pieces(work)) == b"line\n"
    assert os.listdir(tmp_path) == ["run"]


async def test_more_works_than_files_may_be_open(tmp_path: Path) -> None:
    """The limit of open files does not limit the number of works."""
    writer = LogWriter(tmp_path, MB)
    works = [f"root.{number}" for number in range(300)]
    for _ in range(3):
        for work in works:
            writer.write(work, b"line\n", 1, 1.0)
    await writer.wait_written()
    assert len(os.listdir("/proc/self/fd")) < 250
    assert len(LogReader(tmp_path).read(limit=10_000).items) == 900
    assert len(log_files(tmp_path)) == 300
    await writer.aclose()


async def test_going_on_in_a_folder(tmp_path: Path) -> None:
    """A second writer of a folder keeps its lines and continues the numbers."""
    first = LogWriter(tmp_path, MB)
    first.write("root.a", b"one\ntwo\n", 2, 1.0)
    await first.aclose()
    second = LogWriter(tmp_path, MB)
    assert second.write("root.a", b"three\n", 1, 2.0) == 3
    await second.aclose()
    assert [one.text for one in LogReader(tmp_path).read().items] == ["one", "two", "three"]


async def test_disk_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines wait while the disk is full; afterwards all of them are written, each once."""
    monkeypatch.setattr(writer_module, "_PAUSE", 0.01)
    real = os.write
    refused: list[int] = []

    def write_some(descriptor: int, data: Any) -> int:
        if len(refused) < 20:
            refused.append(1)
            if len(refused) % 2:
                raise OSError(28, "No space left on device")
            return real(descriptor, data[:3])
        return real(descriptor, data)

    writer = LogWriter(tmp_path, MB)
    monkeypatch.setattr(os, "write", write_some)
    writer.write("root.a", block(0, 100), 100, 1.0)
    writer.write("root.a", block(100, 100), 100, 1.0)
    await writer.wait_written()
    assert [one.text for one in LogReader(tmp_path).read(limit=1000).items] == [str(number) for number in range(200)]
    await writer.aclose()


async def test_disk_that_stays_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app whose disk stays full ends within a bounded time."""
    monkeypatch.setattr(writer_module, "_PAUSE", 0.01)
    monkeypatch.setattr(writer_module, "_LAST_TRIES", 0.1)
    writer = LogWriter(tmp_path, MB)

    def refuse(descriptor: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", refuse)
    writer.write("root.a", block(0, 100), 100, 1.0)
    await writer.aclose()
    assert writer.backlog == 0


def test_runs(tmp_path: Path) -> None:
    """The latest run can be found; some older runs are kept; a folder that is not a run does not change."""
    folder = tmp_path / ".lightwork" / "logs"
    (folder / "precious").mkdir(parents=True)
    for number in range(30):
        run = f"20261125-0000{number:02}-abcdef"
        made = begin_run(folder, run)
        (made / ".lock").touch()
    assert latest_run(folder) == made
    kept = sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert len(kept) == 21
    assert kept[-1] == "precious"
    assert (tmp_path / ".lightwork" / ".gitignore").read_text() == "*\n"


async def test_run_that_still_writes_is_kept(tmp_path: Path) -> None:
    """The logs of a run stay while its app lives, however old the run is."""
    writer = LogWriter(begin_run(tmp_path, "20200101-000000-abcdef"), MB)
    for number in range(30):
        (begin_run(tmp_path, f"20261125-0000{number:02}-abcdef") / ".lock").touch()
    assert (tmp_path / "20200101-000000-abcdef").is_dir()
    await writer.aclose()


@pytest.mark.parametrize("text", ["", "../..", "/etc", "none", "a/b", ".."])
def test_latest_that_names_no_run(text: str, tmp_path: Path) -> None:
    """If ``latest`` does not name a run's folder, there is no latest run."""
    (tmp_path / "latest").write_text(text)
    assert latest_run(tmp_path) is None


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    """A folder without lines, or no folder, reads as empty."""
    page = LogReader(tmp_path / "none").read()
    assert (page.items, page.first, page.last, page.more) == ([], 0, 0, False)


@pytest.mark.parametrize("damage", [b"", b"x" * 5, b"\xff" * 64])
async def test_damaged_index(damage: bytes, tmp_path: Path) -> None:
    """An index that is truncated or invalid loses only its own lines."""
    writer = LogWriter(tmp_path, MB)
    writer.write("root.a", b"one\n", 1, 1.0)
    writer.write("root.b", b"two\n", 1, 1.0)
    await writer.aclose()
    log_files(tmp_path)[0].with_suffix(".idx").write_bytes(damage)
    found = [one.text for one in LogReader(tmp_path).read().items]
    assert found == ["two"]
