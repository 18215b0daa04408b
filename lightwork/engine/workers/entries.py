"""The works of the tree as the engine knows them, and their workers."""

from __future__ import annotations

from collections.abc import Callable

from lightwork.components.call import Operation
from lightwork.components.work import Work
from lightwork.engine.core import Core
from lightwork.engine.workers.worker import Worker
from lightwork.errors import ProposalRefused, UsageError
from lightwork.status import WorkStatus

__all__ = ["Entries", "WorkEntry", "finish_all"]


class WorkEntry:
    """One work of the tree.

    Attributes:
        id: Its number in the machine.
        work, name: The work, and its name when it was added. After a killed scheduler, and until the flow has made the
            work again, the work is a stand-in that is in no tree.
        is_missing: Whether the work is such a stand-in.
        due: Attempt whose launch waits until the flow has made the work again, 0 for none.
        on_returned: Called when the flow has made the work again: workers wait for it.
        worker: The present worker, None without one.
        starts: Operations that wait for a worker to be up.
        stops: Operations that wait for the worker to be gone.
        confirms: Operations that wait for all proposals to be answered.
        refusals: Refused proposals that nobody has been told of yet.
        start_error: The exception for which the latest worker did not come up, where there is one.
    """

    def __init__(self, id: int, work: Work, name: str = "") -> None:
        self.id = id
        self.work = work
        self.name: str = name or work.name
        self.is_missing = False
        self.due = 0
        self.on_returned: list[Callable[[], None]] = []
        self.worker: Worker | None = None
        self.starts: list[Operation] = []
        self.stops: list[Operation] = []
        self.confirms: list[Operation] = []
        self.refusals: list[ProposalRefused] = []
        self.start_error: BaseException | None = None


class Entries:
    """Every work that the machine knows. Belongs to the loop's thread.

    Args:
        core: Publishes the statuses of works.

    Attributes:
        by_number: Every entry, by the work's number in the machine.
        by_work: The entries whose work is in the tree.
        workers: Every launched worker that is not gone, by the public id of its launch.
        latest: The highest number that a work was given.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self.by_number: dict[int, WorkEntry] = {}
        self.by_work: dict[Work, WorkEntry] = {}
        self.workers: dict[bytes, Worker] = {}
        self.latest: int = 0

    def next_number(self) -> int:
        """Return a number that no work of this app has had."""
        self.latest += 1
        return self.latest

    def add(self, entry: WorkEntry) -> None:
        """Know a work that is in the tree."""
        self.by_number[entry.id] = self.by_work[entry.work] = entry

    def of(self, work: Work) -> WorkEntry:
        """Return the entry of a work in the tree.

        Raises:
            UsageError: The work is in no app that runs.
        """
        entry = self.by_work.get(work)
        if entry is None or self._core.is_closed:
            raise UsageError(
                f"{work._label()} is in no running app: the app has ended, or the work was removed from it"
            )
        return entry

    def is_in_tree(self, entry: WorkEntry) -> bool:
        """Whether the entry speaks for its work: False where the work was removed and added again meanwhile."""
        return self.by_work.get(entry.work, entry) is entry

    def publish(self, entry: WorkEntry, status: WorkStatus, hash: str | None) -> None:
        """Give a work a new status, or the call of this hash. Watchers see it when the present event is dealt with."""
        if self.by_work.get(entry.work, entry) is entry:  # `is_in_tree`, on the way of every call
            entry.work._status_history.add(status, hash)
        self._core.publish(entry.name, status)

    def forget(self, number: int) -> None:
        """Drop the entry of a work that was removed."""
        entry = self.by_number.pop(number)
        self.by_work.pop(entry.work, None)


def finish_all(operations: list[Operation], error: BaseException | None = None) -> None:
    """End all of them, and empty the list."""
    for operation in operations:
        operation.finish(error)
    operations.clear()
