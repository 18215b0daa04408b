"""Requirements and build commands of works on the local runtime."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import signal
import sys
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from lightwork.build import BuildConfig
from lightwork.runtime import NoCapacity, Rejected, Runtime
from lightwork_runtimes.inprocess import InProcessRuntime
from lightwork_runtimes.local import LocalRuntime, _venvs
from lightwork_runtimes.local._venvs import Venvs
from lightwork_runtimes.remote.kept import MARKER, cache_folder
from lightwork_runtimes.remote.venv import find_uv
from tests.runtimes.support import OWNER, first_output, is_alive, local, output, read_bytes, spec

PROBE = """
import json, os, sys

VERSION = {version!r}

def main():
    sys.stdin.read()
    import numpy, lightwork
    path = os.environ["PATH"].split(os.pathsep)[0]
    facts = dict(version=VERSION, prefix=sys.prefix, executable=sys.executable, virtual=os.environ["VIRTUAL_ENV"],
                 path=path, numpy=numpy.__file__, cwd=os.getcwd(), python_path=sys.path)
    print(json.dumps(facts))
"""


@dataclass
class Commands(BuildConfig):
    commands: list[str] = field(default_factory=list)

    def build_commands(self) -> list[str]:
        return self.commands


def make_wheel(folder: Path, version: str = "1.0", name: str = "lw_probe") -> Path:
    """Make a wheel with one module, which has the version and the entry `main`."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": PROBE.format(version=version),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path


def folders(venvs: Path) -> list[Path]:
    """Return the folders of all environments, complete or half-made."""
    return [path for path in venvs.iterdir() if path.is_dir()] if venvs.exists() else []


async def read_pids(fifo: Path) -> list[int]:
    """Wait until a build command writes the pids of its processes."""
    return [int(pid) for pid in (await asyncio.to_thread(fifo.read_text)).split()]


async def wait_unlocked(venvs: Path) -> None:
    """Wait until no maker runs."""

    def wait() -> None:
        for path in venvs.glob("*.lock"):
            with path.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX)

    await asyncio.to_thread(wait)


def is_contended(venvs: Path) -> bool:
    """Whether a maker waits for another maker's lock."""
    (lock,) = venvs.glob("*.lock")
    inode = f":{lock.stat().st_ino} "
    return any("->" in line and inode in line for line in read_bytes("/proc/locks").decode().splitlines())


def slow_command(folder: Path) -> str:
    """Return a build command that writes its pids and runs forever, or succeeds at once if the file `ok` exists."""
    os.mkfifo(folder / "fifo")
    return f"cd {folder}; test -e ok && exit 0; sleep 1000 & echo $$ $! > fifo; wait"


@pytest.fixture(params=["uv", "pip"])
def tool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "pip":
        monkeypatch.setattr(_venvs, "find_uv", lambda: None)
    elif find_uv() is None:
        pytest.skip("uv is not installed")
    return str(request.param)


async def test_worker_runs_in_an_environment_of_its_own(tool: str, tmp_path: Path) -> None:
    """The worker can import its requirement and has the prefix, executable and search path of the environment."""
    wheel = make_wheel(tmp_path / "wheels")
    venvs = tmp_path / "venvs"
    async with local(tmp_path / "home", venvs=str(venvs)) as runtime:
        asked = spec("", entry="lw_probe:main", build=BuildConfig([str(wheel)]), cwd=str(tmp_path))
        ref = await runtime.launch(asked)
        facts = json.loads(await output(runtime, ref))
        assert (await runtime.wait(ref)).exit_code == 0
        assert await runtime.launch(asked) == ref
    (folder,) = folders(venvs)
    assert facts["version"] == "1.0"
    assert facts["prefix"] == facts["virtual"] == str(folder)
    assert facts["executable"] == str(folder / "bin" / "python")
    assert facts["path"] == str(folder / "bin")
    assert facts["cwd"] == str(tmp_path)
    assert not facts["numpy"].startswith(str(folder))
    with pytest.raises(ModuleNotFoundError):
        __import__("lw_probe")


async def test_requirement_wins_over_the_scheduler_s_package(tmp_path: Path) -> None:
    """A requirement that the scheduler also has, in another version, is imported from the environment."""
    wheel = make_wheel(tmp_path / "wheels", "0.0.1", "cloudpickle")
    async with local(tmp_path / "home", venvs=str(tmp_path / "venvs")) as runtime:
        ref = await runtime.launch(spec("", entry="cloudpickle:main", build=BuildConfig([str(wheel)])))
        facts = json.loads(await output(runtime, ref))
    assert facts["version"] == "0.0.1"
    own = [index for index, path in enumerate(facts["python_path"]) if path.startswith(facts["prefix"])]
    assert own
    assert max(own) < facts["python_path"].index(str(Path(facts["numpy"]).parents[1]))


async def test_environment_is_made_once_and_kept(tmp_path: Path) -> None:
    """Concurrent launches of two schedulers make one environment, and a later scheduler finds it."""
    build = Commands(commands=[f"echo made >> {tmp_path / 'made'}"])
    venvs = str(tmp_path / "venvs")
    async with local(tmp_path / "a", venvs=venvs) as one, local(tmp_path / "b", venvs=venvs) as two:
        launches = [runtime.launch(spec("exit 0", name, build=build)) for runtime in (one, two) for name in "ab"]
        await asyncio.gather(*launches)
    async with local(tmp_path / "a", venvs=venvs) as later:
        ref = await later.launch(spec("wait", build=build))
        assert await first_output(later, ref) == "waiting\n"
        (report,) = await later.poll([ref])
        (folder,) = folders(tmp_path / "venvs")
        assert f"in {folder}" in report.detail
    assert (tmp_path / "made").read_text() == "made\n"


async def test_requirements_that_do_not_resolve_are_rejected(tool: str, tmp_path: Path) -> None:
    """The error has the requirement and the last lines of the installer, and nothing is left behind."""
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "1.0")
    build = BuildConfig(["--no-index", f"--find-links {wheels}", "lw-probe==2.0"])
    async with local(tmp_path / "home", venvs=str(tmp_path / "venvs")) as runtime:
        with pytest.raises(Rejected) as caught:
            await runtime.launch(spec("", entry="lw_probe:main", build=build))
        first, *rest = str(caught.value).splitlines()
        assert "cannot install the requirements " in first
        assert "'lw-probe==2.0' (" in first
        assert "exit code 1" in first
        assert any("2.0" in line for line in rest)
        assert await runtime.find(OWNER) == []
        assert folders(tmp_path / "venvs") == []


async def test_failure_is_not_remembered(tmp_path: Path) -> None:
    """A rejected launch succeeds later, when its requirement is available."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    build = BuildConfig(["--no-index", f"--find-links {wheels}", "lw-probe==2.0"])
    async with local(tmp_path / "home", venvs=str(tmp_path / "venvs")) as runtime:
        asked = spec("", entry="lw_probe:main", build=build)
        with pytest.raises(Rejected, match="lw-probe"):
            await runtime.launch(asked)
        make_wheel(wheels, "2.0")
        assert json.loads(await output(runtime, await runtime.launch(asked)))["version"] == "2.0"


async def test_name_that_no_index_has_is_rejected(tmp_path: Path) -> None:
    """A requirement that the package index does not have is rejected with its name."""
    build = BuildConfig(["lightwork-tests-no-such-package"])
    async with local(tmp_path / "home", venvs=str(tmp_path / "venvs")) as runtime:
        with pytest.raises(Rejected, match="lightwork-tests-no-such-package"):
            await runtime.launch(spec("exit 0", build=build))


async def test_failed_command_fails_all_who_waited_for_it(tmp_path: Path) -> None:
    """A failed build command runs once, and every waiting launch gets its exit code and output."""
    build = Commands(commands=[f"echo x >> {tmp_path / 'count'}; echo no such library; exit 7"])
    async with local(tmp_path / "home", venvs=str(tmp_path / "venvs")) as runtime:
        launches = [runtime.launch(spec("exit 0", name, build=build)) for name in "abc"]
        errors = await asyncio.gather(*launches, return_exceptions=True)
        assert [type(error) for error in errors] == [Rejected] * 3
        assert "exit code 7):\nno such library" in str(errors[0])
        assert len({str(error) for error in errors}) == 1
        assert (tmp_path / "count").read_text() == "x\n"
        assert folders(tmp_path / "venvs") == []


async def test_commands_run_activated_and_before_the_requirements(tmp_path: Path) -> None:
    """Build commands run in order, in the work's folder, with the environment's pip, before the installation."""
    wheels = tmp_path / "wheels"
    wheel = make_wheel(wheels)
    commands = ["pwd > seen", "command -v pip >> seen", f"mv {wheel} {wheel}.tmp; mv {wheel}.tmp {wheel}"]
    build = Commands(["--no-index", "--find-links wheels", "lw-probe"], commands=commands)
    async with local(tmp_path / "home", venvs=str(tmp_path / "venvs")) as runtime:
        ref = await runtime.launch(spec("", entry="lw_probe:main", build=build, cwd=str(tmp_path)))
        assert (await runtime.wait(ref)).exit_code == 0
    (folder,) = folders(tmp_path / "venvs")
    assert (tmp_path / "seen").read_text() == f"{tmp_path}\n{folder / 'bin' / 'pip'}\n"


async def test_cancelled_launch_leaves_nothing_half_made(tmp_path: Path) -> None:
    """Cancelling a launch kills the installer and its children and removes their files; the next launch succeeds."""
    build = Commands(commands=[slow_command(tmp_path)])
    async with local(tmp_path / "home", venvs=str(tmp_path / "venvs")) as runtime:
        launching = asyncio.ensure_future(runtime.launch(spec("exit 0", build=build)))
        pids = await read_pids(tmp_path / "fifo")
        assert all(map(is_alive, pids))
        launching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await launching
        assert not [pid for pid in pids if is_alive(pid)]
        assert folders(tmp_path / "venvs") == []
        assert await runtime.find(OWNER) == []
        (tmp_path / "ok").touch()
        assert (await runtime.wait(await runtime.launch(spec("exit 5", build=build)))).exit_code == 5


async def test_waiting_launch_makes_what_a_cancelled_one_began(tmp_path: Path) -> None:
    """If the launch that makes an environment is cancelled, a waiting launch makes it instead."""
    build = Commands(commands=[slow_command(tmp_path)])
    async with local(tmp_path / "home", venvs=str(tmp_path / "venvs")) as runtime:
        first = asyncio.ensure_future(runtime.launch(spec("exit 0", "a", build=build)))
        await read_pids(tmp_path / "fifo")
        second = asyncio.ensure_future(runtime.launch(spec("exit 6", "b", build=build)))
        (tmp_path / "ok").touch()
        first.cancel()
        assert (await runtime.wait(await second)).exit_code == 6
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_maker_that_is_killed_is_redone(tmp_path: Path) -> None:
    """A killed maker fails the launch with `NoCapacity`, and the next launch makes the environment from scratch."""
    build = Commands(commands=[slow_command(tmp_path)])
    async with local(tmp_path / "home", venvs=str(tmp_path / "venvs")) as runtime:
        launching = asyncio.ensure_future(runtime.launch(spec("exit 0", build=build)))
        shell, sleep = await read_pids(tmp_path / "fifo")
        os.kill(psutil.Process(shell).ppid(), signal.SIGKILL)
        os.kill(sleep, signal.SIGKILL)
        with pytest.raises(NoCapacity, match="cannot make the environment"):
            await launching
        (half,) = folders(tmp_path / "venvs")
        assert not (half / MARKER).exists()
        (half / "left").touch()
        (tmp_path / "ok").touch()
        assert (await runtime.wait(await runtime.launch(spec("exit 5", build=build)))).exit_code == 5
        assert folders(tmp_path / "venvs") == [half]
        assert not (half / "left").exists()


CONTROLLER = """
import asyncio, sys
from lightwork_runtimes.local._venvs import Venvs
from tests.runtimes.test_local_build import Commands
asyncio.run(Venvs(sys.argv[1]).ready(Commands(commands=[sys.argv[2]]), None))
"""


async def test_killed_scheduler_leaves_no_installer(tmp_path: Path) -> None:
    """If the scheduler is killed during an installation, the installer ends and no half-made environment is left."""
    venvs = tmp_path / "venvs"
    argv = [sys.executable, "-c", CONTROLLER, str(venvs), slow_command(tmp_path)]
    scheduler = await asyncio.create_subprocess_exec(*argv, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    pids = await read_pids(tmp_path / "fifo")
    scheduler.kill()
    await scheduler.wait()
    await wait_unlocked(venvs)
    assert not [pid for pid in pids if is_alive(pid)]
    assert folders(venvs) == []


async def test_waiting_for_another_scheduler_s_maker_can_be_cancelled(tmp_path: Path) -> None:
    """A launch that waits for another process's lock can be cancelled at once and does not disturb that process."""
    build = Commands(commands=[slow_command(tmp_path)])
    venvs = tmp_path / "venvs"
    first = asyncio.ensure_future(Venvs(str(venvs)).ready(build, None))
    pids = await read_pids(tmp_path / "fifo")
    second = asyncio.ensure_future(Venvs(str(venvs)).ready(build, None))
    while not is_contended(venvs):  # noqa: ASYNC110 -- the kernel lists lock waiters but sends no event
        await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert all(map(is_alive, pids))
    assert len(folders(venvs)) == 1
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_changed_file_is_another_environment(tmp_path: Path) -> None:
    """A requirement that is a file makes another environment when the file changes."""
    wheel = make_wheel(tmp_path / "wheels")
    venvs = Venvs(str(tmp_path / "venvs"))
    build = BuildConfig([f"lw-probe @ file://{wheel}"])
    first = await venvs.ready(build, None)
    assert await venvs.ready(build, None) == first
    os.utime(wheel, ns=(1, 1))
    assert await venvs.ready(build, None) != first


async def test_order_of_requirements_does_not_matter(tmp_path: Path) -> None:
    """The same requirements in another order, or from another work folder, use the same environment."""
    one, two = make_wheel(tmp_path / "wheels"), make_wheel(tmp_path / "wheels", name="lw_other")
    venvs = Venvs(str(tmp_path / "venvs"))
    lines = [f"lw-probe @ file://{one}", f"lw-other @ file://{two}"]
    assert await venvs.ready(BuildConfig(lines), None) == await venvs.ready(BuildConfig(lines[::-1]), str(tmp_path))


async def test_relative_paths_are_the_folder_s(tmp_path: Path) -> None:
    """A relative path in the requirements is resolved from the work's folder; two folders make two environments."""
    venvs = Venvs(str(tmp_path / "venvs"))
    for folder in ("a", "b"):
        make_wheel(tmp_path / folder)
    build = BuildConfig(["./lw_probe-1.0-py3-none-any.whl"])
    made = {await venvs.ready(build, str(tmp_path / folder)) for folder in ("a", "b")}
    assert len(made) == 2


async def test_nothing_to_build_costs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without requirements and commands no environment is made; an image or Dockerfile logs one warning."""
    venvs = tmp_path / "venvs"
    async with local(tmp_path / "home", venvs=str(venvs)) as runtime:
        builds = [None, BuildConfig(), BuildConfig(image="a"), BuildConfig(dockerfile="FROM b")]
        for number, build in enumerate(builds):
            ref = await runtime.launch(spec("exit 0", f"n{number}", build=build))
            assert (await runtime.wait(ref)).exit_code == 0
    assert not venvs.exists()
    records = [record for record in caplog.records if record.name.startswith("lightwork")]
    assert [record.levelno for record in records] == [logging.WARNING]
    assert "ignores image and dockerfile" in records[0].getMessage()


async def test_commands_of_the_wrong_type_are_rejected(tmp_path: Path) -> None:
    """`build_commands` that returns a string, and a missing cwd, are rejected before anything is made."""

    class Wrong(BuildConfig):
        def build_commands(self) -> list[str]:
            return "echo"  # type: ignore[return-value]

    with pytest.raises(Rejected, match=r"Wrong.build_commands\(\) must return a list"):
        await Venvs(str(tmp_path / "venvs")).ready(Wrong(), None)
    with pytest.raises(Rejected, match=r"cwd must be an existing folder, got '.*nowhere'"):
        await Venvs(str(tmp_path / "venvs")).ready(BuildConfig(["a"]), str(tmp_path / "nowhere"))


def test_default_folder_is_the_user_s_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the option the environments are in an absolute XDG_CACHE_HOME, otherwise in .cache of the home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert cache_folder("venvs") == Venvs(None).folder == "/cache/lightwork/venvs"
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert Venvs(None).folder == f"{tmp_path}/.cache/lightwork/venvs"


@pytest.mark.parametrize("kind", [LocalRuntime, InProcessRuntime])
def test_runtimes_of_this_machine_are_not_remote(kind: type[Runtime]) -> None:
    """Works of `local` and `inprocess` get their local build configuration."""
    assert kind.is_remote is False
