"""An executor that profiles each call of a work: set it as the work's ``_run_executor_cls``."""

from __future__ import annotations

import asyncio
import cProfile
import itertools
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, ClassVar

from lightwork._common.public import export
from lightwork.components.executor import WorkRunExecutor

__all__ = ["ProfileExecutor"]


class ProfileExecutor(WorkRunExecutor):
    """Writes a cProfile file for each call: ``profiles/root.train-1.prof``. `pstats` and most viewers read it.

    Existing files stay: a new file takes the next free number. The file of an ``async def run`` also contains whatever
    else ran in the worker's loop meanwhile, so use it with ``concurrency=1``. The file is written however the call
    ends, also if it was cancelled.

    Attributes:
        folder: Folder of the files, relative to the worker's working directory. A subclass may set another one.
    """

    folder: ClassVar[str] = "profiles"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call ``run`` under the profiler."""
        profile = cProfile.Profile()
        try:
            outcome = profile.runcall(self.work_run, *args, **kwargs)
        except BaseException:
            self._write(profile)
            raise
        if asyncio.iscoroutine(outcome):
            return self._await(profile, outcome)
        self._write(profile)
        return outcome

    async def _await(self, profile: cProfile.Profile, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            with profile:
                return await coroutine
        finally:
            self._write(profile)

    def _write(self, profile: cProfile.Profile) -> None:
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        name = self.work.name or type(self.work).__name__
        for number in itertools.count(1):
            path = folder / f"{name}-{number}.prof"
            try:
                path.touch(exist_ok=False)
            except FileExistsError:
                continue
            profile.dump_stats(path)
            return


export("lightwork", ProfileExecutor)
