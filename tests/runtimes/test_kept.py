"""Cached folders: made once, used by many processes, and removed only while unused."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TypeAlias

import pytest

from lightwork_runtimes.remote import kept

MARKER = kept.MARKER

Problems: TypeAlias = "multiprocessing.SimpleQueue[str]"


def make(folder: Path, **facts: object) -> Path:
    folder.mkdir(parents=True)
    (folder / MARKER).write_text(json.dumps(facts))
    return folder


def discard(folder: Path) -> bool:
    return kept.discard(str(folder.parent), folder.name)


def only_entry(folder: Path) -> dict[str, object]:
    (entry,) = kept.entries(str(folder.parent), "environment")
    return entry


def test_what_is_held_is_not_discarded(tmp_path: Path) -> None:
    """A folder cannot be discarded while a user holds a descriptor; afterwards it goes, with the files beside it."""
    folder = make(tmp_path / "a")
    first, second = (kept.hold(str(folder), MARKER) for _ in range(2))
    for held in (first, second):
        assert held is not None
        assert only_entry(folder)["in_use"]
        assert not discard(folder)
        assert folder.is_dir()
        os.close(held)
    assert not only_entry(folder)["in_use"]
    assert discard(folder)
    assert list(tmp_path.iterdir()) == []


def test_what_is_being_made_is_not_discarded(tmp_path: Path) -> None:
    """A folder is in use, and cannot be discarded, while its maker has the lock."""
    folder = tmp_path / "a"
    with kept.locked(f"{folder}.lock"):
        folder.mkdir()
        assert only_entry(folder)["in_use"]
        assert not discard(folder)
    assert discard(folder)


def test_what_is_not_whole_cannot_be_held(tmp_path: Path) -> None:
    """A folder that does not exist or has no marker cannot be held, and the attempt leaves no files."""
    (tmp_path / "half").mkdir()
    assert kept.hold(str(tmp_path / "never"), MARKER) is None
    assert kept.hold(str(tmp_path / "half"), MARKER) is None
    assert [path.name for path in tmp_path.iterdir()] == ["half"]


def test_what_cannot_be_held_can_be_used(tmp_path: Path) -> None:
    """A folder can be used even if no lock file can be made beside it."""
    folder = make(tmp_path / "a")
    (tmp_path / "a.used").mkdir()
    held = kept.hold(str(folder), MARKER)
    assert held is not None
    os.close(held)


@pytest.mark.parametrize("name", ["never", "nowhere/never"])
def test_what_is_not_there_is_gone(name: str, tmp_path: Path) -> None:
    """Discarding a folder that was never made returns True and makes no files."""
    assert discard(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_processes_go(tmp_path: Path) -> None:
    """Discarding removes the rest of a killed removal and of a killed unpacking; only the latter is listed."""
    make(tmp_path / ".gone-a-12345678")
    make(tmp_path / "a.new")
    assert [entry["name"] for entry in kept.entries(str(tmp_path), "code")] == ["a"]
    assert discard(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_last_use_is_remembered(tmp_path: Path) -> None:
    """A folder is unused since it was last held, or since it was made if it was never held."""
    folder = make(tmp_path / "a")
    day_ago = time.time() - 86400
    os.utime(folder, (day_ago, day_ago))
    assert only_entry(folder)["unused_for"] == pytest.approx(86400, abs=60)
    held = kept.hold(str(folder))
    assert held is not None
    assert only_entry(folder)["unused_for"] == 0
    os.close(held)
    assert only_entry(folder)["unused_for"] == pytest.approx(0, abs=60)
    os.utime(f"{folder}.used", (day_ago, day_ago))
    assert only_entry(folder)["unused_for"] == pytest.approx(86400, abs=60)


def test_size_is_what_it_takes_of_the_disk(tmp_path: Path) -> None:
    """Every file counts once in the size, also a file with several hard links."""
    folder = make(tmp_path / "a")
    before = only_entry(folder)["size"]
    (folder / "big").write_bytes(b"x" * 1_000_000)
    os.link(folder / "big", folder / "again")
    after = only_entry(folder)["size"]
    assert isinstance(before, int)
    assert isinstance(after, int)
    assert 1_000_000 <= after - before < 1_100_000


def test_no_secret_is_shown(tmp_path: Path) -> None:
    """The detail of an environment lists what it was made from, without the passwords in addresses."""
    folder = make(tmp_path / "a", requirements=["x @ https://me:pass@example.com/x.whl"], commands=["make"])
    assert only_entry(folder)["detail"] == "x @ https://***@example.com/x.whl, make"


@pytest.mark.parametrize("take", ["lock", "used"])
def test_waiting_for_what_is_removed_gets_the_next(take: str, tmp_path: Path) -> None:
    """If a lock file is removed during a wait, the waiter locks the new file at that path, not the removed one."""
    path = tmp_path / f"a.{take}"
    took = threading.Event()

    def wait() -> None:
        with kept.locked(str(path)):
            took.set()

    with kept.locked(str(path)):
        thread = threading.Thread(target=wait)
        thread.start()
        while "->" not in Path("/proc/locks").read_text():
            continue
        path.unlink()
        with kept.locked(str(path)):  # a lock of the new file, which no process holds
            pass
    thread.join()
    assert took.is_set()


def _use(folder: str, over: Event, problems: Problems) -> None:
    while not over.is_set():
        held = kept.hold(folder, MARKER)
        if held is None:
            with kept.locked(f"{folder}.lock"):
                if not os.path.exists(folder):
                    os.mkdir(folder)
                    with open(f"{folder}/{MARKER}.new", "w") as file:
                        file.write("{}")
                    os.rename(f"{folder}/{MARKER}.new", f"{folder}/{MARKER}")
            continue
        for _ in range(random.randrange(20)):
            if not os.path.exists(f"{folder}/{MARKER}"):
                problems.put("removed while it was used")
        os.close(held)


def _discard(folder: str, over: Event, problems: Problems) -> None:
    gone = 0
    while gone < 50:
        was_there = os.path.exists(folder)
        gone += discard(Path(folder)) and was_there


def test_users_makers_and_removers_at_once(tmp_path: Path) -> None:
    """While processes concurrently make, use and discard one folder, no user loses the folder that it uses."""
    fresh = multiprocessing.get_context("spawn")
    problems, over = fresh.SimpleQueue(), fresh.Event()
    jobs: list[Callable[[str, Event, Problems], None]] = [_use, _use, _discard, _discard]
    processes = [fresh.Process(target=job, args=(str(tmp_path / "a"), over, problems)) for job in jobs]
    for process in processes:
        process.start()
    for process in processes[2:]:
        process.join()
    over.set()
    for process in processes[:2]:
        process.join()
    said = "" if problems.empty() else problems.get()
    problems.close()
    assert said == ""
    assert [process.exitcode for process in processes] == [0] * 4
