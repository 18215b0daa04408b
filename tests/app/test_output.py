"""The output of works: every line arrives as a log line of its work."""

from __future__ import annotations

import pytest

from lightwork.changes import LogLine
from lightwork.engine.workers.output import LineCutter
from lightwork.errors import WorkerDied
from tests.app.support_calls import Prints, lines, running


async def test_everything_that_a_run_writes_arrives_in_order() -> None:
    """Prints, standard error, C libraries, raw writes and child processes: each line arrives, in order."""
    work = Prints()
    async with running("local", work=work) as app:
        printed = lines(app, work)
        await work.submit("lines")
        await work.stop()
    assert printed == ["from python", "to stderr", "from C", "raw", "from a child", "last"]


async def test_many_lines() -> None:
    """Two thousand lines arrive, each once and in order."""
    work = Prints()
    async with running("local", work=work) as app:
        printed = lines(app, work)
        await work.submit("many")
        await work.stop()
    assert printed == [str(number) for number in range(2000)]


async def test_output_arrives_while_the_work_runs() -> None:
    """A line arrives when it is written, not when the work ends."""
    work = Prints()
    async with running("local", work=work) as app:
        printed = lines(app, work)
        work.submit("lines")
        async for change in app.changes():
            if isinstance(change, LogLine) and change.text == "last":
                break
        assert work.has_started
        assert printed[-1] == "last"


async def test_long_line_is_cut() -> None:
    """A line without an end uses bounded memory: it arrives in pieces, and no character is split."""
    work = Prints()
    async with running("local", work=work) as app:
        printed = lines(app, work)
        await work.submit("long")
        await work.stop()
    assert printed[-1] == "after"
    assert len(printed) > 2
    assert "".join(printed[:-1]) == "é" * 100_000


async def test_bytes_that_are_no_text() -> None:
    """Invalid UTF-8 arrives with replacement characters."""
    work = Prints()
    async with running("local", work=work) as app:
        printed = lines(app, work)
        await work.submit("bytes")
        await work.stop()
    assert printed == ["\ufffd\ufffd ok"]


async def test_last_words_before_a_crash() -> None:
    """Text written before a SIGKILL, even without a line end, has arrived when the call fails."""
    work = Prints()
    async with running("local", work=work) as app:
        printed = lines(app, work)
        with pytest.raises(WorkerDied, match="SIGKILL"):
            await work.submit("crash")
        assert printed == ["one", "two", "three"]


async def test_output_of_two_works_is_kept_apart() -> None:
    """Each line carries the name of the work that wrote it."""
    one, two = Prints(), Prints()
    async with running("local", one=one, two=two) as app:
        first, second = lines(app, one), lines(app, two)
        await one.submit("bytes")
        await two.submit("lines")
        await one.stop()
        await two.stop()
    assert len(first) == 1
    assert len(second) == 6


@pytest.mark.bare
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_splitter_gives_the_same_lines_however_the_output_is_cut(size: int) -> None:
    """The lines do not depend on the sizes of the chunks that arrive."""
    data = "one\ntwo\r\n\nçé€😀\nrest".encode()
    cutter = LineCutter()
    found = [cutter.feed(data[start : start + size]) for start in range(0, len(data), size)]
    assert all(piece.endswith(b"\n") for piece in found if piece)
    assert b"".join(found) == "one\ntwo\r\n\nçé€😀\n".encode()
    assert cutter.rest() == b"rest\n"
    assert cutter.rest() == b""


@pytest.mark.bare
@pytest.mark.parametrize("shift", range(4))
def test_splitter_does_not_cut_characters(shift: int) -> None:
    """A long line is cut between two characters."""
    text = "x" * shift + "😀" * 50_000
    cutter = LineCutter()
    found = (cutter.feed(text.encode()) + cutter.rest()).decode().splitlines()
    assert "".join(found) == text
    assert len(found) == 4
