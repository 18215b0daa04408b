"""The environment of a work in its process, and what lightwork leaves unchanged in the process of the app."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import sys
import threading
import tomllib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from lightwork import App, Flow, Work

ROOT = Path(__file__).parents[2]


def double(x: int) -> int:
    """Return what a pool inside of a work computes."""
    return 2 * x


class Inside(Work):
    """Inspects its process, and uses threads and processes as a Trainer does."""

    def run(self) -> dict[str, object]:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
            doubled = pool.submit(double, 21).result()
        heard: list[int] = []
        thread = threading.Thread(target=heard.append, args=(1,))
        thread.start()
        thread.join()
        return {
            "doubled": doubled,
            "heard": heard,
            "start_method": multiprocessing.get_start_method(allow_none=True),
            "is_main_thread": threading.current_thread() is threading.main_thread(),
        }


class Families(Work):
    """Returns the address families of the sockets of its process."""

    def run(self) -> list[str]:
        found = set()
        for name in os.listdir("/proc/self/fd"):
            try:
                with socket.socket(fileno=os.dup(int(name))) as one:
                    if one.type == socket.SOCK_STREAM:
                        found.add(one.family.name)
            except OSError:
                continue  # not a socket, or the folder's own descriptor, which is closed by now
        return sorted(found)


class Write(Work):
    """Writes a file."""

    def run(self, folder: str) -> str:
        path = Path(folder, "data.txt")
        path.write_text("what one work has found out")
        return str(path)


class Read(Work):
    """Reads the file."""

    def run(self, path: str) -> str:
        return Path(path).read_text()


class Root(Flow):
    """Holds the works."""

    def __init__(self, **works: Work) -> None:
        super().__init__()
        self.members = works

    async def run(self) -> None:
        await asyncio.Event().wait()


async def test_threads_and_processes_of_a_work() -> None:
    """Pitfall 24: threads, forked pools and the main thread of a forked work are those of a new process."""
    before = multiprocessing.get_start_method(allow_none=True)
    work = Inside()
    async with App(Root(inside=work), runtime="local"):
        found = await work.submit()
    assert found == {
        "doubled": 42,
        "heard": [1],
        "start_method": None,
        "is_main_thread": True,
    }
    assert multiprocessing.get_start_method(allow_none=True) == before


class Ancestry(Work):
    """Returns the modules that the process it was forked from had imported."""

    def __init__(self, modules: list[str]) -> None:
        super().__init__()
        self.modules = modules

    def on_start(self) -> None:
        # Unpickling this work has imported this module. The launcher has not, as its parent's memory map shows.
        self._maps = Path(f"/proc/{os.getppid()}/maps").read_text()

    def run(self) -> list[str]:
        return [name for name in self.modules if name in self._maps]


def libraries_here() -> str:
    """Return the libraries that this process has mapped."""
    return Path("/proc/self/maps").read_text()


async def test_nothing_of_the_user_is_forked() -> None:
    """Pitfall 24: works are forked from a process without the user's libraries, so CUDA and threads are safe."""
    import numpy as np

    assert np.zeros(1).shape == (1,)
    assert "numpy" in libraries_here()
    work = Ancestry(["numpy", "libc"])
    async with App(Root(work=work), runtime="local"):
        assert await work.submit() == ["libc"]


async def test_a_plain_folder_is_shared(tmp_path: Path) -> None:
    """Pitfall 26: works exchange files by a plain folder and its path; no service is needed."""
    write, read = Write(), Read()
    async with App(Root(write=write, read=read), runtime="local"):
        assert await read.submit(await write.submit(str(tmp_path))) == "what one work has found out"


def test_dependencies_are_few_and_explained() -> None:
    """Pitfall 27: the core needs at most a dozen small packages, and CONTRIBUTING.md gives the reason for each."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [requirement.split(">")[0].split("[")[0].strip() for requirement in project["dependencies"]]
    assert len(names) <= 12
    explained = (ROOT / "CONTRIBUTING.md").read_text()
    assert [name for name in names if f"| {name} |" not in explained] == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has Unix sockets without a file")
async def test_works_of_this_machine_dial_a_unix_socket() -> None:
    """Works on this machine dial a Unix socket, unless an address is advertised, which may lead through a proxy."""
    work = Families()
    async with App(Root(work=work)):
        assert await work.submit() == ["AF_UNIX"]
        assert work.internal_ip == "127.0.0.1"
    work = Families()
    async with App(Root(work=work), advertise="127.0.0.1"):
        assert "AF_INET" in await work.submit()
