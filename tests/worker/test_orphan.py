"""The guard of a worker that has lost its scheduler: it ends the process if nothing else does."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lightwork.link.messages import LOST_CODE

pytestmark = pytest.mark.bare

PROGRAM = """
import os, socket, sys, threading, time
from lightwork.worker.orphan import OrphanGuard

ours, theirs = socket.socketpair()
guard = OrphanGuard()
guard.connected(ours.fileno(), {patience})
{then}
"""


def outcome(then: str, patience: float = 0.05) -> tuple[int, str]:
    """Run a process with a guard that executes `then`; return its exit code and standard error."""
    program = PROGRAM.format(patience=patience, then=then)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stderr


def test_process_that_does_not_notice_is_ended() -> None:
    """If the other end closes and the process does not react in time, the guard ends the process and prints why."""
    code, text = outcome("theirs.close(); time.sleep(1000)")
    assert code == LOST_CODE
    assert "no scheduler for 0.05 s" in text


def test_unread_data_does_not_hide_the_end() -> None:
    """The guard detects the end of a connection with unread data."""
    assert outcome("theirs.send(b'x' * 1000); theirs.close(); time.sleep(1000)")[0] == LOST_CODE


def test_process_that_was_told_of_the_loss_is_ended() -> None:
    """A loss that the agent reports has the same effect as one that the guard detects."""
    assert outcome("guard.lost(); time.sleep(1000)")[0] == LOST_CODE


def test_new_connection_is_as_good_as_the_old_one() -> None:
    """With another connection in time the process continues; the loss of that connection counts again."""
    reconnect = "theirs.close(); a, b = socket.socketpair(); guard.lost(); guard.connected(a.fileno(), 0.05)"
    assert outcome(f"{reconnect}; time.sleep(0.3); os._exit(5)")[0] == 5
    assert outcome(f"{reconnect}; b.close(); time.sleep(1000)")[0] == LOST_CODE


def test_connection_that_lives_is_left_alone() -> None:
    """Nothing happens while the connection lives, and the guard does not keep the process from exiting."""
    assert outcome("time.sleep(0.2); sys.exit(6)")[0] == 6


def test_what_comes_does_not_wake_the_guard() -> None:
    """Data for the loop does not wake the guard's thread."""
    count = """
def switches():
    with open(f"/proc/self/task/{guard._thread.native_id}/status") as status:
        return int(next(line for line in status if line.startswith("voluntary")).split()[1])

before = None
while switches() != before:  # until the thread waits in its poll
    before = switches()
    time.sleep(0.05)
for _ in range(200):
    theirs.send(b"x")
    ours.recv(1)
os._exit(5 if switches() < before + 100 else 6)
"""
    if sys.platform == "linux":
        assert outcome(count)[0] == 5


@pytest.mark.parametrize("sends_signals", [True, False])
@pytest.mark.parametrize("family", ["AF_UNIX", "AF_INET"])
def test_urgent_byte_is_told_to_the_guard(family: str, sends_signals: bool) -> None:
    """The guard detects an urgent byte behind unread data, even if the kernel sends no signal for it."""
    told = f"""
if not {sends_signals}:
    from lightwork.worker import urgent_data as urgent
    urgent._F_SETOWN_EX = 10_000
    ours, theirs = socket.socketpair()
    guard.connected(ours.fileno(), 0.05)
if socket.{family} == socket.AF_INET:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    guard.connected(ours.fileno(), 0.05)
called = threading.Semaphore(0)
guard.on_urgent = called.release
for _ in range(2):
    theirs.send(b"data")
    theirs.send(b"!", socket.MSG_OOB)
    assert called.acquire(timeout=20)
    assert ours.recv(10) == b"data"
os._exit(5)
"""
    assert outcome(told)[0] == 5
