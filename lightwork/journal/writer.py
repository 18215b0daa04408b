"""The one thread that writes to a journal: takes what has gathered, commits it, says so, and takes the next.

While a commit runs the next batch grows, so the number of commits does not grow with what there is to write. A pause
before each lets it grow further, for each costs the disk a write, and the loop the time in which this thread holds
the interpreter's lock, which may be long where the machine is busy. Whoever waits for a commit cuts the pause short.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from lightwork._logging import get_logger
from lightwork.errors import JournalError
from lightwork.journal.store import Store, StoreBusy
from lightwork.runtime import Backoff

__all__ = ["Job", "Writer"]

_PAUSE = 0.05
"""Seconds that a batch grows for at least. What a killed process loses of itself is about that; what workers sent is
not lost, since they keep it until it is committed."""

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 10.0
"""Seconds before a full disk is tried again; doubled from the first to the longest."""

_log = get_logger("lightwork.journal")


class Job:
    """One thing to write.

    Args:
        write: Writes it to the store, in the writer's thread.
        done: Called in that thread when it is on disk.
        is_last: Whether the writer ends after it.
        is_asked: Whether it answers the writer's asking for a batch.
    """

    def __init__(
        self,
        write: Callable[[Store], None],
        done: Callable[[], None],
        *,
        is_last: bool = False,
        is_asked: bool = False,
    ) -> None:
        self.write = write
        self.done = done
        self.is_last = is_last
        self.is_asked = is_asked


class Writer:
    """Writes jobs in order. A disk that is full is tried again until it is not; nothing is skipped.

    Args:
        store: Belongs to the writer's thread from `start` until `join` returns.
        ask: Called in the writer's thread when it is ready for a batch: have a `Job` put that is the answer.
        failed: Called in that thread with an error that trying again does not mend; nothing more is written.
    """

    def __init__(self, store: Store, ask: Callable[[], None], failed: Callable[[JournalError], None]) -> None:
        self._store = store
        self._ask = ask
        self._failed = failed
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._woken = threading.Event()
        self._urged = threading.Event()
        self._gives_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lightwork-journal", daemon=True)
        self.error: JournalError | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """There is something to write, in a while."""
        self._woken.set()

    def urge(self) -> None:
        """Somebody waits for it."""
        self._urged.set()
        self._woken.set()

    def put(self, job: Job) -> None:
        """Write this next."""
        self._jobs.put(job)
        if not job.is_asked:
            self.urge()

    def join(self, timeout: float) -> None:
        """Return when the last job is done; after `timeout` seconds a disk that is full is not tried again.

        Raises:
            JournalError: Not everything could be written.
        """
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._gives_up.set()
            self._thread.join()
        if self.error is not None:
            raise self.error

    # --- in the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._woken.wait()
            self._woken.clear()
            self._urged.wait(_PAUSE)
            self._urged.clear()
            self._ask()
            while True:
                job = self._jobs.get()
                if self.error is None:
                    self._write(job)
                if job.is_last:
                    return
                if job.is_asked:
                    break

    def _write(self, job: Job) -> None:
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                job.write(self._store)
                break
            except StoreBusy as error:
                if self._gives_up.is_set():
                    self.error = error
                    return
                _log.error("the journal cannot be written; works go on and keep what they send", error=str(error))
            except JournalError as error:
                self.error = error
                self._failed(error)
                return
            self._gives_up.wait(backoff.advance())
        job.done()
