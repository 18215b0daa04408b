from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys

import pytest

from lightwork.cli import main
from lightwork.server.types import LogEntry
from tests.cli.fake_server import FakeServer
from tests.cli.support import read_terminal

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def called(*args: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_help_lists_the_commands_without_importing_them() -> None:
    """`lightwork --help` shows each command's line and loads none of their modules."""
    code = """
import sys
from lightwork.cli import main
try:
    main(["--help"])
finally:
    loaded = {"lightwork.cli.run", "rich", "structlog", "aiohttp"} & set(sys.modules)
    assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert re.search("  run +Run the app of a file until it stops[.]", done.stdout)


def test_a_command_that_asks_an_app_does_not_load_the_engine(server: FakeServer) -> None:
    """`lightwork ps` loads an HTTP client and the types of the answers, but no module that runs an app."""
    code = """
import sys
from lightwork.cli import main
try:
    main(["ps", "-q"])
finally:
    heavy = ("lightwork.engine", "lightwork.app", "lightwork.worker", "lightwork.link", "rich", "structlog")
    loaded = [name for name in sys.modules if name.startswith(heavy)]
    assert not loaded, loaded
"""
    server.add_work("root.train")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env={**ENVIRONMENT, "LIGHTWORK_URL": server.url})
    assert done.stdout == "root.train\n", done.stderr


def test_the_module_is_the_program() -> None:
    """`python -m lightwork` is `lightwork`."""
    command = [sys.executable, "-m", "lightwork", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stdout.startswith("lightwork ")


def test_the_shell_completes_commands() -> None:
    """Completion, which a shell requests through environment variables, completes the commands."""
    environment = {
        **ENVIRONMENT,
        "_LIGHTWORK_COMPLETE": "bash_complete",
        "COMP_WORDS": "lightwork ru",
        "COMP_CWORD": "1",
    }
    command = [sys.executable, "-m", "lightwork"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "plain,run\n"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["rum"], "No such command 'rum'"),
        (["run"], "Missing argument 'APP'"),
        (["run", "--port", "70000", "x.py"], "70000"),
        (["run", "--frobnicate", "x.py"], "--frobnicate"),
    ],
)
def test_usage_errors_give_2(args: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An invalid command line is explained on standard error. The exit code is 2."""
    assert called(*args) == 2
    assert says in capsys.readouterr().err


def started(server: FakeServer, *args: str) -> subprocess.Popen[str]:
    """The program in a separate process, which asks the fake app."""
    return subprocess.Popen(
        [sys.executable, "-m", "lightwork", *args],
        env={**ENVIRONMENT, "LIGHTWORK_URL": server.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("command", [["logs", "-f"], ["wait", "a"], ["state", "watch"], ["call", "a"]])
def test_an_interrupt_gives_130(server: FakeServer, command: list[str]) -> None:
    """Ctrl-C ends a waiting command with exit code 130 and without a traceback."""
    server.add_work("root.a", calls={"running": 1})
    server.lines = [LogEntry(1, "root.a", 1.5, "a line")]
    server.ends = False
    with started(server, *command) as process:
        assert server.has_followed.wait(50)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=50)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.endswith("interrupted\n")
    assert ("continues; `lightwork cancel" in err) == (command == ["call", "a"])


def test_a_reader_that_has_gone_ends_it(server: FakeServer) -> None:
    """`lightwork logs | head -1` ends without a traceback."""
    server.add_work("root.a")
    server.lines = [LogEntry(seq, "root.a", 1.5, "x" * 1000) for seq in range(1, 2000)]
    with started(server, "logs", "--all") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("root.a | xxx")
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(50) == 1


def test_a_terminal_shows_a_coloured_table(server: FakeServer) -> None:
    """On a terminal the stage of a work is coloured, and no line exceeds the width of the terminal."""
    server.add_work("root.a", "failed", message="a long message " * 20)
    ours, theirs = pty.openpty()
    environment = {**ENVIRONMENT, "LIGHTWORK_URL": server.url, "TERM": "xterm-256color", "COLUMNS": "80"}
    environment.pop("NO_COLOR", None)  # as CI sets it
    command = [sys.executable, "-m", "lightwork", "ps"]
    process = subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while chunk := read_terminal(ours):
        shown += chunk
    os.close(ours)
    assert process.wait(50) == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    head, row = text.splitlines()
    assert head.split()[:2] == ["work", "stage"]
    assert row.split()[:2] == ["root.a", "failed"]
    assert len(row) <= 80
    assert "…" in row
    assert "\x1b[31m\x1b[1mfailed" in shown.decode()
