"""The whole program: ``python -m lightwork run`` in a separate process, with works in separate processes."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import psutil
import pytest

from tests.cli.support import read_terminal

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "COLUMNS": "120"}

GOOD = """
import sys
from lightwork import App, Flow, Work

class Train(Work):
    def __init__(self, lr):
        super().__init__()
        self.lr, self.loss = lr, 1.0

    async def run(self, epochs: int) -> float:
        for epoch in range(epochs):
            self.loss *= self.lr
            print("epoch", epoch, "of", epochs)
        return self.loss

class Root(Flow):
    def __init__(self):
        super().__init__()
        self.train = Train(0.5)
        self.args = sys.argv[1:]

    async def run(self):
        result = await self.train.run(3)
        print("result", result, *self.args)
        self.stop("all done")

app = App(Root())
"""

BAD = """
from lightwork import App, Flow, Work

class Train(Work):
    async def run(self) -> None:
        self.fit()

    def fit(self):
        raise ValueError("the data is bad")  # the worker's line

class Root(Flow):
    def __init__(self):
        super().__init__()
        self.train = Train()

    async def run(self):
        await self.train.run()  # the flow's line

app = App(Root())
"""

ENDLESS = """
import asyncio, os, time
from lightwork import App, Flow, Work

class Wait(Work):
    async def run(self) -> None:
        print("pid", os.getpid(), flush=True)
        await asyncio.Event().wait()

    def on_exit(self):
        print("on_exit ran", flush=True)

class Stubborn(Work):
    def run(self) -> None:
        print("pid", os.getpid(), flush=True)
        while True:
            try:
                time.sleep(1000)
            except BaseException as error:
                print("ignored", type(error).__name__, flush=True)

class Root(Flow):
    def __init__(self, kind):
        super().__init__()
        self.work = kind()

    async def run(self):
        await self.work.run()

wait = App(Root(Wait))
stubborn = App(Root(Stubborn))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("good", GOOD), ("bad", BAD), ("endless", ENDLESS)):
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def lightwork(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lightwork", "run", *args]
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=50)


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the program with its output in pipes. Programs that still run after the test are killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "lightwork", "run", *args]
        process = subprocess.Popen(
            command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with process:
            process.kill()


def read_until(stream: IO[str] | None, pattern: str) -> tuple[re.Match[str], list[str]]:
    """Return the first match, and all lines up to it."""
    assert stream is not None
    lines: list[str] = []
    for text in stream:
        lines.append(text)
        if match := re.search(pattern, text):
            return match, lines
    raise AssertionError(f"the output ended without {pattern!r}:\n{''.join(lines)}")


def has_ended(pid: int) -> bool:
    try:
        psutil.Process(pid).wait(10)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


def test_an_app_runs_to_its_stop(folder: Path) -> None:
    """Statuses and output of the work and prints of the flow are lines, and the exit code is 0."""
    done = lightwork(folder, "good.py", "--port", "0", "--", "--extra")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "root.train | epoch 2 of 3" in lines
    assert "result 0.125 --extra" in lines
    assert "stopped: all done" in lines
    stages = [text.split()[1] for text in lines if re.match(r"root\.train [a-z]", text)]
    assert [stage for stage in stages if stage in ("running", "succeeded")] == ["running", "succeeded"]


@pytest.mark.parametrize("target", ["good.py:app", "good:app", "."])
def test_the_app_is_found_in_every_form(folder: Path, target: str) -> None:
    """A path, a module and a folder select the app, and the workers import its module too."""
    (folder / "app.py").write_text(GOOD)
    done = lightwork(folder, target)
    assert done.returncode == 0, done.stderr


def test_relative_imports_work_here_and_in_the_workers(folder: Path) -> None:
    """Pitfall 25: an app in a package is imported under its full name, here and in the workers."""
    package = folder / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "other.py").write_text("NAME = __name__")
    text = GOOD.replace("import sys\n", "import sys\nfrom .other import NAME\n").replace('"epoch"', "NAME")
    (package / "main.py").write_text(text)
    done = lightwork(folder, "pkg/main.py")
    assert done.returncode == 0, done.stderr
    assert "root.train | pkg.other 0 of 3" in done.stdout


def test_set_changes_the_state_before_the_start(folder: Path) -> None:
    """A work starts with the value from the command line."""
    done = lightwork(folder, "good.py", "--set", "root.train.lr=0.1")
    assert done.returncode == 0, done.stderr
    assert "result 0.001" in done.stdout


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["good.py", "--set", "root.trian.lr=1"], "did you mean root.train"),
        (["good.py", "--set", "root.train.le=1"], "did you mean lr?"),
        (["good.py", "--runtime", "nowhere"], "nowhere"),
        (["missing.py"], "file missing.py not found in "),
        (["endless.py"], "endless.py has 2 Apps: wait, stubborn"),
    ],
)
def test_what_the_command_line_has_wrong_gives_2(folder: Path, args: list[str], says: str) -> None:
    """Usage errors are explained on standard error without a traceback. The exit code is 2."""
    done = lightwork(folder, *args)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failure_shows_the_workers_line_and_the_flows(folder: Path) -> None:
    """Pitfall 23: the error on standard error shows the worker's lines, the flow's line, and no line of lightwork."""
    done = lightwork(folder, "bad.py")
    assert done.returncode == 1
    remote, local = done.stderr.index("# the worker's line"), done.stderr.index("# the flow's line")
    assert remote < local
    assert "ValueError: the data is bad" in done.stderr
    package = f"{os.sep}lightwork{os.sep}"
    assert not [text for text in done.stderr.splitlines() if text.startswith("  File") and package in text]


def test_json_lines(folder: Path) -> None:
    """With --json-logs all output of lightwork and the works is JSON, on both streams."""
    (folder / "good.py").write_text(GOOD.replace('print("result"', '(lambda *_: None)("result"'))
    done = lightwork(folder, "good.py", "--json-logs")
    assert done.returncode == 0, done.stderr
    events = [json.loads(text) for text in done.stdout.splitlines()]
    assert {"log", "status", "message", "serving"} == {event["event"] for event in events}
    for text in done.stderr.splitlines():
        json.loads(text)


def test_uvloop(folder: Path) -> None:
    """With --uvloop the app runs on uvloop's event loop."""
    pytest.importorskip("uvloop")
    check = "import asyncio\n        print(type(asyncio.get_running_loop()).__module__)\n        "
    (folder / "good.py").write_text(GOOD.replace("result = await", f"{check}result = await"))
    done = lightwork(folder, "good.py", "--uvloop")
    assert done.returncode == 0, done.stderr
    assert "uvloop" in done.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("options", [[], ["--uvloop"]])
def test_one_signal_ends_everything_in_order(
    start: Callable[..., subprocess.Popen[str]], number: int, code: int, options: list[str]
) -> None:
    """Pitfall 1: after one signal the work's on_exit runs, its process ends, and the exit code names the signal."""
    if options:
        pytest.importorskip("uvloop")
    process = start("endless.py:wait", *options)
    pid = int(read_until(process.stdout, r"pid (\d+)")[0][1])
    process.send_signal(number)
    rest, _ = process.communicate(timeout=40)
    assert process.returncode == code, rest
    assert "stopping gracefully" in rest
    assert "on_exit ran" in rest
    assert has_ended(pid)


def test_two_interrupts_end_everything_now(start: Callable[..., subprocess.Popen[str]]) -> None:
    """Pitfall 1: the second interrupt ends a run that ignores the first, and kills its process."""
    process = start("endless.py:stubborn")
    pid = int(read_until(process.stdout, r"pid (\d+)")[0][1])
    process.send_signal(signal.SIGINT)
    read_until(process.stdout, "stopping gracefully")
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=40)
    assert process.returncode == 130, rest
    assert has_ended(pid)


def test_an_interrupt_during_the_import_gives_130(folder: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    """Ctrl-C during the import of the app's file ends the program with exit code 130 and without a traceback."""
    (folder / "slow.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(1000)\n")
    process = start("slow.py")
    read_until(process.stdout, "importing")
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in rest


def test_a_terminal_shows_the_table(folder: Path) -> None:
    """On a terminal the works are a table with their output above it, and the final table stays."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "lightwork", "run", "good.py"]
    environment = {**ENVIRONMENT, "TERM": "xterm-256color", "LINES": "30"}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while chunk := read_terminal(ours):
        shown += chunk
    os.close(ours)
    assert process.wait(20) == 0, shown.decode()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "root.train | epoch 2 of 3" in text
    assert "result 0.125" in text
    # The process ends after the call succeeded: either status may be the last that was drawn.
    assert re.search(r"root\.train +(succeeded|stopped) +1 ", text)
    assert re.search(r"work +stage +calls +elapsed +loss", text)
    assert "stopped: all done" in text
