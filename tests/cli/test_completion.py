from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lightwork.server.types import CommandView
from tests.cli.fake_server import FakeServer
from tests.cli.invoke import invoke


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **more}


def complete(words: str, **more: str) -> list[str]:
    """Return the completions of the last word."""
    number = len(words.split()) - (not words.endswith(" "))
    asked = {"_LIGHTWORK_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number)}
    command = [sys.executable, "-m", "lightwork"]
    done = subprocess.run(command, env=environment(**asked, **more), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_that_the_shell_takes(shell: str, tmp_path: Path) -> None:
    """Each installed shell reads its script without an error."""
    done = invoke("completion", shell)
    assert done.code == 0
    assert f"{shell}_complete" in done.out
    if shutil.which(shell):
        (tmp_path / "script").write_text(done.out)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_with_it(server: FakeServer, tmp_path: Path) -> None:
    """In bash, the script completes the names of works of the running app."""
    server.add_work("root.train")
    program = tmp_path / "lightwork"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lightwork "$@"\n')
    program.chmod(0o755)
    script = """
eval "$(lightwork completion bash)"
COMP_WORDS=(lightwork logs tr)
COMP_CWORD=2
_lightwork_completion lightwork
echo "${COMPREPLY[@]}"
"""
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], env=environment(PATH=path), capture_output=True, text=True, check=True
    )
    assert done.stdout == "train\n", done.stderr


def test_an_unknown_shell_gives_2() -> None:
    """A shell without a script is a usage error."""
    assert invoke("completion", "csh").code == 2


def test_names_of_works_are_completed(server: FakeServer) -> None:
    """Names of works, components and commands come from the running app, with or without ``root.`` as typed."""
    for name in ("root.train", "root.trials.0", "root.other"):
        server.add_work(name)
    server.commands = [CommandView("add", "", [])]
    assert complete("lightwork logs ") == ["root.train", "root.trials.0", "root.other"]
    assert complete("lightwork logs root.tr") == ["root.train", "root.trials.0"]
    assert complete("lightwork logs -f tri") == ["trials.0"]
    assert complete("lightwork inspect roo") == ["root", "root.train", "root.trials.0", "root.other"]
    assert complete("lightwork app a") == ["add"]
    server.token = "secret"
    assert complete("lightwork logs ") == []
    assert complete("lightwork logs --token secret root.o") == ["root.other"]


def test_completion_is_silent_where_there_is_no_app(tmp_path: Path) -> None:
    """Without an app, or with an app that does not answer, there are no names and no message."""
    assert complete("lightwork logs ", XDG_RUNTIME_DIR=str(tmp_path)) == []
    assert complete("lightwork logs ", LIGHTWORK_URL="http://127.0.0.1:1") == []
    assert complete("lightwork logs ", LIGHTWORK_URL="nonsense") == []


def test_completion_loads_neither_the_engine_nor_aiohttp(server: FakeServer) -> None:
    """A shell waits for the completion at each key press, so it loads no more than it needs."""
    code = """
import sys
from lightwork.cli import main
try:
    main([])
finally:
    loaded = [name for name in sys.modules if name.startswith(("aiohttp", "lightwork.engine", "rich", "structlog"))]
    assert not loaded, loaded
"""
    words = {"_LIGHTWORK_COMPLETE": "bash_complete", "COMP_WORDS": "lightwork logs ", "COMP_CWORD": "2"}
    server.add_work("root.train")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(**words), capture_output=True, text=True, check=False)
    assert done.stdout == "plain,root.train\n", done.stderr
