from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from lightwork.errors import PlatformError
from lightwork.server.discovery import AppFile, announce, apps_folder, running_apps

pytestmark = pytest.mark.bare

HOLDER = """
import os, sys, time
from lightwork.server.discovery import AppFile, announce
announce(AppFile(run=sys.argv[1], name="other", pid=os.getpid(), url="http://127.0.0.1:1", started_at=1.0))
print("announced", flush=True)
time.sleep(1000)
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def app_file(run: str = "r1", started_at: float = 0.0) -> AppFile:
    url = "http://127.0.0.1:7501"
    return AppFile(run=run, name="Sweep", pid=os.getpid(), url=url, started_at=started_at, token="t")


def test_an_app_is_found_until_it_withdraws() -> None:
    """A published app is listed, the latest first, until it withdraws; withdrawing twice is safe."""
    assert running_apps() == []
    ends = [announce(app_file("r1", 1.0)), announce(app_file("r2", 2.0))]
    assert running_apps() == [app_file("r2", 2.0), app_file("r1", 1.0)]
    for end in [*ends, *ends]:
        end()
    assert running_apps() == []
    assert list(apps_folder().iterdir()) == []


def test_only_this_user_can_read_it() -> None:
    """The folder and each file are closed to other users, because a file holds the token."""
    end = announce(app_file())
    (file,) = apps_folder().iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(apps_folder().stat().st_mode) == 0o700
    assert "'t'" not in repr(app_file())
    end()


def test_what_a_killed_app_left_is_removed() -> None:
    """The file of a killed process is not listed, and its reader removes it."""
    command = [sys.executable, "-c", HOLDER, "r9"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "announced\n"
        assert [app.run for app in running_apps()] == ["r9"]
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    assert (apps_folder() / "r9.json").exists()
    assert running_apps() == []
    assert not (apps_folder() / "r9.json").exists()


def test_a_fork_that_outlives_its_app_is_not_the_app() -> None:
    """A lock that a forked child still holds does not keep a dead app listed."""
    with subprocess.Popen([sys.executable, "-c", "pass"]) as gone:
        gone.wait(20)
    end = announce(msgspec.structs.replace(app_file(), pid=gone.pid))
    assert running_apps() == []
    end()


def test_a_file_of_another_version_is_left_alone() -> None:
    """A running app whose file this version cannot read is skipped, and its file stays."""
    end = announce(app_file())
    (file,) = apps_folder().iterdir()
    file.write_text('{"what": 1}')
    assert running_apps() == []
    assert file.exists()
    end()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to somebody else")
def test_a_folder_of_somebody_else_is_not_trusted() -> None:
    """A folder that another user made first is refused when an app is published and when apps are listed."""
    folder = apps_folder()
    folder.mkdir(parents=True)
    os.chown(folder, 12345, 12345)
    with pytest.raises(PlatformError, match="must be a folder of the current user"):
        running_apps()
    with pytest.raises(PlatformError, match="must be a folder of the current user"):
        announce(app_file())
