"""The single thread that writes to a journal: it takes a batch, commits it, reports that, and takes the next batch.

The next batch grows during a commit, so the number of commits does not grow with the amount of data. A pause before
each commit lets the batch grow further. Each commit costs a disk write. It also blocks the loop while this thread holds
the interpreter's lock, which may take long on a busy machine. A caller that waits for a commit ends the pause early.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from lightwork._common.backoff import Backoff
from lightwork._logging import get_logger
from lightwork.errors import JournalError
from lightwork.journal.store import Store, StoreBusy

__all__ = ["Job", "Writer"]

_PAUSE = 0.05
"""Seconds that a batch grows at least. A killed process loses about so much of its own changes. It loses no data of its
workers, because they keep their data until it is committed."""

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 10.0
"""Seconds before another attempt on a full disk; doubled from the first to the longest."""

_log = get_logger("lightwork.journal")


class Job:
    """A job of the writer.

    Args:
        write: Writes the data to the store. Called in the writer's thread.
        done: Called in the same thread when the data is on disk.
        is_last: Whether the writer ends after this job.
        is_asked: Whether this job is the answer to the writer's `ask`.
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
    """Executes jobs in order. It tries again while the disk is full; no job is skipped.

    Args:
        store: The store. It belongs to the writer's thread from `start` until `join` returns.
        ask: Called in the writer's thread when it is ready for a batch. Must cause a `put` of a job with `is_asked`.
        failed: Called in the same thread with a permanent error; nothing more is written.
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
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Write a batch after the pause: there is new data."""
        self._woken.set()

    def urge(self) -> None:
        """Write a batch without a pause: a caller waits for it."""
        self._urged.set()
        self._woken.set()

    def put(self, job: Job) -> None:
        """Queue a job."""
        self._jobs.put(job)
        if not job.is_asked:
            self.urge()

    def join(self, timeout: float) -> None:
        """Wait until the last job is done. After `timeout` seconds there is no further attempt on a full disk.

        Raises:
            JournalError: Some data could not be written.
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
                _log.error("the journal cannot be written; works continue and keep their data", error=str(error))
            except JournalError as error:
                self.error = error
                self._failed(error)
                return
            self._gives_up.wait(backoff.advance())
        job.done()
