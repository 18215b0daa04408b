"""The commands against an app that ``lightwork run`` runs, with works in separate processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.invoke import Done, invoke

APP = '''
import asyncio
import os
import time

from lightwork import App, Flow, Work


class Train(Work):
    def __init__(self, lr: float) -> None:
        super().__init__(parallel=True, cache_calls=False)
        self.lr = lr
        self.losses: list[float] = []
        self.table = {"a": {"b": 1}}

    async def run(self, epochs: int = 3, layers: list[int] | None = None, note: str = "") -> float:
        for epoch in range(epochs):
            self.losses.append(self.lr)
            print(f"epoch {epoch} {note}", flush=True)
        if note == "bad":
            raise ValueError("a bad note")
        if note == "wait":
            await asyncio.Event().wait()
        if note == "crash":
            print("the last words", flush=True)
            os._exit(3)
        return self.lr * epochs


class Block(Work):
    def run(self) -> None:
        block_here()


def block_here() -> None:
    time.sleep(1000)


class Sweep(Flow):
    def __init__(self) -> None:
        super().__init__()
        self.trials = [Train(lr) for lr in (0.5, 0.25)]
        self.block = Block(parallel=True)
        self.limit = 3

    async def run(self) -> None:
        self.schedule("0 0 * * *")
        await asyncio.Event().wait()

    def configure_commands(self):
        return [{"raise-limit": self.raise_limit}]

    def raise_limit(self, by: int, note: str = "") -> int:
        """Allow more trials."""
        self.limit += by
        return self.limit


app = App(Sweep())
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sweep.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def running(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """``lightwork run sweep.py``, with a running dashboard."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "lightwork", "run", "sweep.py", "--http-port", "0"]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("dashboard: http://127.0.0.1:"):
                break
        else:
            raise AssertionError("".join(lines))
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


def until(ask: Callable[[], Done], is_there: Callable[[Done], bool]) -> Done:
    """Repeat a command until its output is as expected. The timeout of the test is the limit."""
    while not is_there(done := ask()):
        pass
    return done


def test_works_and_calls(running: subprocess.Popen[str]) -> None:
    """A session with an app: list, call, inspect, fail, retry, cancel, wait, change the state, stop."""
    assert invoke("ps", "-q").out.split() == ["root.trials.0", "root.trials.1", "root.block"]
    assert [app["name"] for app in invoke("apps", "-o", "json").json["items"]] == ["sweep"]

    done = invoke("call", "trials.0", "4", "layers=[1,2]", "note=5")
    assert (done.code, done.out) == (0, "2.0\n"), done.err
    assert invoke("state", "get", "trials.0.losses.3").out == "0.5\n"
    call = invoke("inspect", "trials.0", "-o", "json").json["latest_calls"][0]
    assert call["args"] == {"epochs": 4, "layers": [1, 2], "note": "5"}
    assert "2.0" in invoke("inspect", str(call["id"])).out

    done = invoke("call", "trials.0", "1", "note=bad")
    assert done.code == 1
    assert done.out == ""
    assert 'raise ValueError("a bad note")' in done.err
    done = invoke("retry", "trials.0")
    assert done.code == 1
    assert "a bad note" in done.err
    assert invoke("wait", "trials.0").code == 1
    assert invoke("call", "trials.0", "epochs=x").code == 2
    assert invoke("call", "trials.0", "epoch=1").code == 2
    assert invoke("call", "trials.7").code == 4

    number = invoke("call", "trials.1", "1", "note=wait", "--detach").out.strip()
    assert invoke("wait", "trials.1", "--for", "running", "--timeout", "20").code == 0
    assert invoke("wait", number, "--timeout", "0.2").code == 124
    assert invoke("cancel", "trials.1").out == f"call {number} cancelling\n"
    assert invoke("wait", number, "--timeout", "20").code == 1

    assert invoke("state", "set", "limit=7", "trials.1.table.a.b=2").code == 0
    assert invoke("state", "get", "limit").out == "7\n"
    assert json.loads(invoke("state", "get", "trials.1.table").out) == {"a": {"b": 2}}
    assert invoke("state", "set", "limit=x").code == 2
    assert invoke("schedule", "ls", "-o", "json").json["items"][0]["pattern"] == "0 0 * * *"
    assert len(invoke("timeline", "-o", "json").json["items"]) == 4

    assert invoke("stop", "trials.0", "--wait").code == 0
    assert "root.trials.0" in invoke("ps", "--stage", "stopped", "-q").out
    assert invoke("stop", "--all", "--wait", "-m", "enough").out == "app ended\n"
    assert process_output(running).endswith("stopped: enough\n")
    assert running.returncode == 0
    assert invoke("ps").code == 3


def process_output(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=30)
    return str(out)


def test_logs_during_and_after(running: subprocess.Popen[str]) -> None:
    """The last lines of a crashed work are printed with the reason, live until the app ends, and afterwards."""
    done = invoke("call", "trials.0", "2", "note=crash")
    assert done.code == 1
    assert "crashed" in done.err
    done = until(lambda: invoke("logs", "trials.0"), lambda done: "the last words" in done.out)
    assert done.out.splitlines()[-3:] == [
        "root.trials.0 | epoch 0 crash",
        "root.trials.0 | epoch 1 crash",
        "root.trials.0 | the last words",
    ]
    assert re.search(r"root\.trials\.0 failed .*3", done.err)

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "lightwork", "logs", "-f", "--all", "--no-names"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "epoch 0 crash\n"
        assert invoke("call", "trials.1", "1000", "note=many").code == 0
        assert invoke("stop", "--all", "--wait").code == 0
        rest = follower.stdout.read().splitlines()
        assert follower.wait(30) == 0
    expected = ["epoch 1 crash", "the last words", *(f"epoch {number} many" for number in range(1000))]
    assert rest == expected
    assert invoke("logs", "--all", "--no-names").out.splitlines() == ["epoch 0 crash", *expected]


def test_stacks_and_the_apps_own_commands(running: subprocess.Popen[str]) -> None:
    """The stacks of a blocked work and of a waiting work are shown, and the commands of the app run."""
    assert invoke("call", "block", "--detach").code == 0
    assert invoke("call", "trials.0", "1", "note=wait", "--detach").code == 0
    assert invoke("wait", "block", "trials.0", "--for", "running", "--timeout", "30").code == 0
    done = until(lambda: invoke("stack", "block"), lambda done: done.code != 0 or "in block_here" in done.out)
    assert "time.sleep(1000)" in done.out, done.err
    assert "await asyncio.Event().wait()" in invoke("stack", "trials.0").out
    assert invoke("stack", "trials.7").code == 4

    assert "Allow more trials." in invoke("app").out
    assert invoke("app", "raise-limit", "--by", "2").out == "5\n"
    assert invoke("state", "get", "limit").out == "5\n"
    assert invoke("app", "raise-limit", "--by", "x").code == 2
    assert invoke("app", "lower-limit").code == 4
