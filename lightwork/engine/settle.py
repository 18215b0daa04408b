"""What an image comes to where nobody is there to go on with its workers: every call that was under way has ended."""

from __future__ import annotations

from lightwork.engine.records import Happened, Image
from lightwork.engine.replay import Replay
from lightwork.engine.rules import events as ev
from lightwork.engine.rules.model import Phase
from lightwork.status import Reason

__all__ = ["settled"]

_TEXT = "its worker was left behind when a checkpoint was restored"


def settled(replay: Replay) -> Image:
    """An image of a replay as of an app that has ended in order: states and results, no worker. Uses the replay up."""
    for work in replay.machine.works():
        replay.take(Happened(replay.now, ev.StopRequested(work.id)))
        if work.phase is not Phase.ABSENT:
            replay.take(Happened(replay.now, ev.WorkerExited(work.id, work.attempt, Reason.LOST, _TEXT)))
    for known in replay.components.values():
        for name in ("_url", "_internal_ip", "_public_ip") if known.work else ():
            known.state.restore(name, "")
    replay.workers.clear()
    replay.due.clear()
    replay.timers.clear()
    replay.profiles.clear()
    replay.is_over = True
    return replay.image()
