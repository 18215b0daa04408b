"""`lightwork checkpoint`, and journals that an app refuses."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from lightwork import App, Flow, Work
from lightwork.errors import JournalError, StateError
from lightwork.journal.store import Store
from tests.cli.invoke import invoke


class Count(Work):
    """A work that counts its runs in its state."""

    def __init__(self, cache_calls: bool = True) -> None:
        super().__init__(cache_calls=cache_calls)
        self.runs = 0

    async def run(self, x: int) -> int:
        self.runs += 1
        return 2 * x


class Root(Flow):
    """Makes one call and stops."""

    def __init__(self) -> None:
        super().__init__()
        self.work = Count()
        self.found: list[int] = []

    async def run(self) -> None:
        self.found.append(await self.work.run(21))
        self.stop()


class Wider(Flow):
    """A flow with one more component and one more attribute, under the same name as `Root`."""

    def __init__(self) -> None:
        super().__init__()
        self.work = Count()
        self.more = Count()
        self.found: list[int] = []
        self.other = 1

    async def run(self) -> None:
        self.stop()


Wider.__qualname__ = "Root"


class Waiting(Flow):
    """Never ends."""

    async def run(self) -> None:
        await asyncio.Event().wait()


async def run(root: Flow, path: Path, **settings: Any) -> Flow:
    await App(root, journal=path, runtime="inprocess", **settings).run()
    return root


async def test_states_and_results_outlive_a_run_that_ended(tmp_path: Path) -> None:
    """With resume the state and the results continue; without it the app begins again and keeps a checkpoint."""
    path = tmp_path / "journal"
    await run(Root(), path)
    again = await run(Root(), path, resume=True)
    assert isinstance(again, Root)
    assert (again.found, again.work.runs, again.work.num_successes) == ([42, 42], 1, 1)
    again = await run(Root(), path)
    assert isinstance(again, Root)
    assert (again.found, again.work.runs) == ([42], 1)
    labels = [row["label"] for row in invoke("checkpoint", "ls", str(path), "-o", "json").json["items"]]
    assert labels == ["began", "the app ended", "resumed", "the app ended", "began", "the app ended"]


async def test_a_checkpoint_is_shown_and_restored(tmp_path: Path) -> None:
    """The contents of a checkpoint can be listed, and a journal that is made from it continues from there."""
    path, new = str(tmp_path / "journal"), str(tmp_path / "new")
    await run(Root(), Path(path))
    await run(Root(), Path(path), resume=True)
    shown = invoke("checkpoint", "show", path, "2", "-o", "json").json
    assert shown["components"]["root"]["vars"] == {"found": [42]}
    assert shown["components"]["root.work"]["results"] == 1
    assert "found = [42, 42]" in invoke("checkpoint", "show", path).out
    assert invoke("checkpoint", "restore", path, "2", new).code == 0
    restored = await run(Root(), Path(new), resume=True)
    assert isinstance(restored, Root)
    assert (restored.found, restored.work.runs) == ([42, 42], 1)


async def test_a_checkpoint_of_a_running_app(tmp_path: Path) -> None:
    """A journal can be read while its app runs; a restored copy has no worker, and its calls have ended."""
    path, new = str(tmp_path / "journal"), str(tmp_path / "new")
    root = Root()
    root.__class__.run, ended = Waiting.run, Root.run  # type: ignore[method-assign, assignment]
    try:
        async with App(root, journal=path, runtime="inprocess") as app:
            assert await root.work.submit(1) == 2
            await app._running().engine.core.journal.committed()
            assert "runs = 1" in invoke("checkpoint", "show", path).out
            assert invoke("checkpoint", "restore", path, "1", new).code == 0
            with pytest.raises(JournalError, match="in use by the scheduler with pid"):
                await run(Root(), Path(path), resume=True)
    finally:
        Root.run = ended  # type: ignore[method-assign]
    restored = await run(Root(), Path(new), resume=True)
    assert isinstance(restored, Root)
    assert restored.found == [42]


async def test_what_does_not_exist(tmp_path: Path) -> None:
    """A missing journal or checkpoint number is an error that says so; no file is overwritten."""
    path = str(tmp_path / "journal")
    assert "there is no journal" in invoke("checkpoint", "ls", path).err
    await run(Root(), Path(path))
    assert "there is no checkpoint 9" in invoke("checkpoint", "show", path, "9").err
    assert "exists already" in invoke("checkpoint", "restore", path, "1", path).err


# --- journals that are refused --------------------------------------------------------------------------


async def test_a_journal_of_another_app(tmp_path: Path) -> None:
    """It is refused, the error names both apps, and the journal stays unchanged."""
    await run(Root(), tmp_path / "journal")
    for resume in (True, False):
        with pytest.raises(JournalError, match="belongs to the app 'Root', but this app is 'Waiting'"):
            await run(Waiting(), tmp_path / "journal", resume=resume)
    assert isinstance(await run(Root(), tmp_path / "journal", resume=True), Root)


async def test_a_tree_that_does_not_fit(tmp_path: Path) -> None:
    """Code that makes other components or attributes is refused, and the error names them."""
    await run(Root(), tmp_path / "journal")
    with pytest.raises(StateError, match=r"the code makes root\.more, .* the code sets root\.other"):
        await run(Wider(), tmp_path / "journal", resume=True)


async def test_an_unfinished_run(tmp_path: Path) -> None:
    """Without resume it is refused, and the error says what to do."""
    path = tmp_path / "journal"
    await run(Root(), path)
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM snapshot WHERE label = 'the app ended'")
    connection.commit()
    connection.close()
    with pytest.raises(JournalError, match="holds a run that has not ended: continue it with --resume"):
        await run(Root(), path)
    await run(Root(), path, resume=True)


async def test_a_journal_of_another_version_with_a_run_that_has_not_ended(tmp_path: Path) -> None:
    """It is refused, because another version may make other decisions from the same records."""
    path = tmp_path / "journal"
    await run(Root(), path)
    store = Store.open(path)
    store.set_meta({"lightwork": b"0.0.1"})
    store._connection.execute("DELETE FROM snapshot WHERE label = 'the app ended'")
    store.close()
    with pytest.raises(JournalError, match=r"a run of lightwork 0\.0\.1 that has not ended"):
        await run(Root(), path, resume=True)


async def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    """The app does not start."""
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="cannot be written"):
        await run(Root(), tmp_path / "file" / "journal")
