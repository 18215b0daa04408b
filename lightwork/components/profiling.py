"""An executor that profiles each call of a work: set it as the work's ``_run_executor_cls``."""

from __future__ import annotations

import asyncio
import cProfile
import itertools
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, ClassVar

from lightwork._public import export
from lightwork.components.executor import WorkRunExecutor

__all__ = ["ProfileExecutor"]


class ProfileExecutor(WorkRunExecutor):
    """Writes a cProfile file for each call, which `pstats` and most viewers read: ``profiles/root.train-1.prof``.

    A file that is there already is left alone: the next free number is taken. Of an ``async def run`` the file also
    has what else ran in the worker's loop meanwhile, so use it with ``concurrency=1``. The file is written
    however the call ends, cancelled ones included.

    Attributes:
        folder: Where the files go, relative to the worker's working directory; set another one in a subclass.
    """

    folder: ClassVar[str] = "profiles"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Enter ``run`` under the profiler."""
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
