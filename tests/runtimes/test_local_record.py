"""The record of a launch, to which several processes write at any time."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from lightwork.runtime import Cause, Spec
from lightwork_runtimes.local._launchdir import LaunchDir, PidFile
from lightwork_runtimes.local._process import Identity
from tests.disks import full, small_disk
from tests.runtimes.support import OWNER, spec

SOMEBODY = Identity(1, "then")


def _made(home: Path, asked: Spec) -> LaunchDir:
    return LaunchDir.create(home, asked, SOMEBODY, SOMEBODY)[0]


def test_one_claim_wins(tmp_path: Path) -> None:
    """If several threads claim a launch at the same time, exactly one claim succeeds."""
    for number in range(20):
        folder = _made(tmp_path, spec("exit 0", f"n{number}"))
        start = threading.Barrier(4)
        won: list[bool] = []

        def claim(folder: LaunchDir = folder, start: threading.Barrier = start, won: list[bool] = won) -> None:
            start.wait()
            won.append(folder.claim())

        threads = [threading.Thread(target=claim) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(won) == [False, False, False, True]


def test_first_word_counts(tmp_path: Path) -> None:
    """The first stop, the first end and the last keeper count."""
    folder = _made(tmp_path, spec("exit 0"))
    for cause, code, birth in ((Cause.LIFETIME, 1, "a"), (Cause.STOPPED, 2, "b")):
        folder.mark_stop(cause)
        folder.mark_keeper(Identity(2, birth))
        folder.write_ended(code, cause)
    record = folder.record()
    assert record.stop is Cause.LIFETIME
    assert record.keeper == Identity(2, "b")
    assert record.ended is not None
    assert record.ended.exit_code == 1


@pytest.mark.parametrize("torn", [b'\n{"type":"exit","exit_code":1,"cau', b'\n{"type":"claim"', b"\n"])
def test_torn_line_is_passed_over(torn: bytes, tmp_path: Path) -> None:
    """A line that a crash has cut short is skipped, and the line after it is read."""
    folder = _made(tmp_path, spec("exit 0"))
    with open(folder.record_path, "ab") as file:
        file.write(torn)
    folder.write_started(PidFile(SOMEBODY))
    record = folder.record()
    assert record.spec is not None
    assert record.started == PidFile(SOMEBODY)
    assert (record.ended, record.is_claimed) == (None, False)


def test_released_launch_takes_no_word(tmp_path: Path) -> None:
    """A released launch cannot be claimed or started, and recording a stop or an end does nothing."""
    folder = _made(tmp_path, spec("exit 0", "gone"))
    LaunchDir.remove(tmp_path, OWNER, "gone")
    assert not folder.claim()
    with pytest.raises(FileNotFoundError):
        folder.write_started(PidFile(SOMEBODY))
    folder.mark_stop(Cause.STOPPED)
    folder.write_ended(0, None)
    assert not folder.exists


def test_room_on_a_full_disk(tmp_path: Path) -> None:
    """On a full disk all lines that can follow the spec fit into the record, for every length of the spec."""
    disk = tmp_path / "disk"
    with small_disk(disk) as is_there:
        if not is_there:
            pytest.skip("this user may not mount a small disk")
        sizes = range(0, 9000, 50)
        folders = [_made(disk, spec("exit 0", f"n{size}", env={"LONG": "x" * size})) for size in sizes]
        with full(disk):
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                (disk / "other").write_bytes(b"x")
            for folder in folders:
                assert folder.claim()
                folder.write_started(PidFile(Identity(2, "b" * 50), "n" * 300))
                folder.mark_stop(Cause.STOPPED)
                folder.mark_keeper(SOMEBODY)
                folder.write_ended(-9, Cause.STOPPED, "d" * 1000)
            records = [folder.record() for folder in folders]
        assert all(record.ended and record.stop and record.keeper for record in records)
