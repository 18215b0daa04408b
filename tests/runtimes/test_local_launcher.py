"""Decisions of the launcher about orphans and out-of-memory kills."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightwork.runtime import Cause
from lightwork_runtimes.local._launchdir import LaunchDir
from lightwork_runtimes.local._launcher import _Launcher, _Worker
from lightwork_runtimes.local._oom import OomCounter
from lightwork_runtimes.local._process import Identity, birth_of
from tests.runtimes.support import spec


@pytest.fixture
def launcher() -> Iterator[_Launcher]:
    ours, theirs = socket.socketpair()
    launcher = _Launcher(theirs)
    yield launcher
    ours.close()
    theirs.close()
    launcher._selector.close()
    launcher._wake_read.close()
    launcher._wake_write.close()


def test_adopted_worker_is_no_orphan(launcher: _Launcher, tmp_path: Path) -> None:
    """A worker whose keeper lives is checked again later; it is killed when its keeper was dead for a whole window."""
    me = Identity(os.getpid(), birth_of(os.getpid()) or "")
    folder, _ = LaunchDir.create(tmp_path, spec("wait"), me, me)
    made = folder.spec()
    assert made is not None
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
    worker = _Worker(child.pid, folder, made)
    folder.mark_keeper(me)
    launcher._end_orphan(worker, None)
    assert len(launcher._timers) == 1
    for birth in ("another boot", "a third one"):  # dead too, but not known to be dead at the last check
        folder.mark_keeper(Identity(me.pid, birth))
        launcher._timers.pop()[2]()
        assert len(launcher._timers) == 1
        assert folder.record().stop is None
        assert child.poll() is None
    launcher._timers.pop()[2]()
    assert child.wait() == -signal.SIGKILL
    assert folder.record().stop is Cause.STOPPED


@pytest.mark.parametrize("form", ["low 0\noom 7\noom_kill {}\n", "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"])
def test_memory_kill_explains_one_death(form: str, tmp_path: Path) -> None:
    """Each out-of-memory kill that the kernel counts explains one death; earlier kills explain none."""
    file = tmp_path / "memory.events"
    file.write_text(form.format(3))
    counter = OomCounter(file)
    assert not counter.take()
    file.write_text(form.format(5))
    assert [counter.take() for _ in range(3)] == [True, True, False]
    file.unlink()
    assert not counter.take()
