"""The runtime of docs/runtimes.md, taken from the page."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lightwork.runtime import Runtime
from lightwork.testing.conformance import CHECKS, Check, run_check

pytestmark = pytest.mark.bare

ROOT = Path(__file__).parents[2]

APP = """
from lightwork import App, Flow, Work


class Double(Work):
    async def run(self, n):
        return 2 * n


class Root(Flow):
    def __init__(self):
        super().__init__()
        self.double = Double()

    async def run(self):
        self.stop(f"twice 21 is {await self.double.run(21)}")


app = App(Root())
"""


def blocks(language: str) -> list[str]:
    """Return the page's code blocks in a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / "runtimes.md").read_text(), re.DOTALL)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with the page's module, installed with its entry point."""
    folder = tmp_path / "installed"
    info = folder / "folder_runtime-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "folder_runtime.py").write_text(blocks("python")[0])
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: folder-runtime\nVersion: 1.0\n")
    registered = blocks("toml")[0].replace('[project.entry-points."lightwork.runtimes"]', "[lightwork.runtimes]")
    (info / "entry_points.txt").write_text(registered.replace('"', ""))
    return folder


@pytest.fixture
def make(package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], Runtime]]:
    """A function that makes the page's runtime."""
    monkeypatch.syspath_prepend(package)
    module: Any = importlib.import_module("folder_runtime")
    yield lambda: module.FolderRuntime("folder", module.FolderOptions(str(tmp_path / "home")))
    del sys.modules["folder_runtime"]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_runtime_of_the_page_keeps_the_contract(check: Check, make: Callable[[], Runtime]) -> None:
    """The runtime that the page describes passes every check."""
    await run_check(check, make)


async def test_runtime_of_the_page_is_found_by_its_entry_point(package: Path, tmp_path: Path) -> None:
    """With the entry point and the profile of the page, `lightwork run` runs a work on it."""
    (tmp_path / "app.py").write_text(APP)
    profile = blocks("toml")[1].replace("/scratch/works", str(tmp_path / "works"))
    (tmp_path / "lightwork.toml").write_text(f'runtime = "scratch"\n{profile}')
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lightwork", "run", "app.py"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(package), str(ROOT), str(ROOT / "runtimes")])},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await program.communicate())[0].decode()
    assert program.returncode == 0, output
    assert "twice 21 is 42" in output
    assert (tmp_path / "works").is_dir()
    assert not list((tmp_path / "works").glob("*/*"))


def test_page_names_every_method() -> None:
    """The page's table has a line for each method of the protocol, and the page names each field of a spec."""
    import msgspec

    from lightwork.runtime import Runtime, Spec

    text = (ROOT / "docs" / "runtimes.md").read_text()
    methods = [name for name, value in vars(Runtime).items() if callable(value) and not name.startswith("_")]
    assert methods
    assert not [name for name in methods if f"| `{name}(" not in text]
    assert not [field.name for field in msgspec.structs.fields(Spec) if f"`{field.name}`" not in text]
