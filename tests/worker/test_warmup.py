"""The warm-up: a worker that runs in the launcher before the first worker is forked."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import SimpleNamespace

import pytest

from lightwork.errors import LightworkError
from lightwork.worker import warmup
from lightwork.worker.agent import Agent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nothing is forked elsewhere")


class _Fails(warmup._WarmupWork):
    async def run(self, n: int = 1) -> int:
        raise ZeroDivisionError("no count")


def _traces() -> tuple[set[str], list[threading.Thread], list[object]]:
    handlers: list[object] = [signal.getsignal(number) for number in sorted(signal.valid_signals())]
    return set(os.listdir("/proc/self/fd")), threading.enumerate(), handlers


def test_leaves_nothing() -> None:
    """A warm-up ends by itself, and leaves no file descriptor, no thread and no signal handler."""
    before = _traces()
    assert warmup.warm_up()
    assert _traces() == before


def test_whole_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warm-up dials, unpacks, runs a call, streams its change, and ends like a stopped worker."""
    agents: list[Agent] = []

    class Watched(Agent):
        async def aclose(self) -> None:
            agents.append(self)
            await super().aclose()

    monkeypatch.setattr(warmup, "Agent", Watched)
    assert warmup.warm_up()
    (agent,) = agents
    assert agent.work is not None
    assert agent.work.state["vars"]["count"] == 1
    assert agent.exit_code == 0


def test_forbidden_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a sandbox forbids the socket, nothing runs and nothing is raised."""

    def forbid(*_: object) -> None:
        raise PermissionError("sandbox")

    monkeypatch.setattr(warmup, "socket", SimpleNamespace(AF_UNIX=1, socket=forbid))
    assert not warmup.warm_up()


def test_failure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warm-up that fails raises its error: the launcher reports it and does not fork."""
    monkeypatch.setattr(warmup, "_WarmupWork", _Fails)
    with pytest.raises(LightworkError, match="ZeroDivisionError: no count"):
        warmup.warm_up()
