"""An app whose network, processes and disks fail all the time works as without faults, or reports the reason."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.chaos.campaign import campaign, faketime
from tests.disks import small_disk

FAULTS = int(os.environ.get("CHAOS_FAULTS", "500"))
WORKS = int(os.environ.get("CHAOS_WORKS", "20"))
SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
"""Printed when a run fails: ``CHAOS_SEED=N pytest tests/chaos/test_chaos.py`` repeats its faults."""


@pytest.mark.timeout(120 + FAULTS)
async def test_chaos(tmp_path: Path) -> None:
    """Each call has one end, edits arrive once and in order, both sides are finally equal, and nothing is left."""
    async with campaign(tmp_path, SEED, WORKS) as one:
        await one.suffer(FAULTS)
        outcome = await one.finish()
    print(f"seed {SEED}: {sum(outcome.faults.values())} faults in {outcome.seconds:.0f} s: {outcome.faults}")
    print(f"{outcome.verdict.edits} edits seen; calls: {outcome.verdict.outcomes}")
    print(f"{len(outcome.verdict.adopted)} works went on with the latest scheduler")
    if outcome.violations:
        story = "\n".join(["what must not be:", *outcome.violations[:20], "the latest faults:", *outcome.story])
        pytest.fail(f"CHAOS_SEED={SEED} CHAOS_FAULTS={FAULTS} CHAOS_WORKS={WORKS} has it again\n{story}", pytrace=False)


def test_everything_can_go_wrong_here(tmp_path: Path) -> None:
    """The faults have what they need: a disk that can be filled, and a clock that can be set for one process."""
    with small_disk(tmp_path / "disk") as has_disk:
        if not has_disk:
            pytest.skip("this user may not mount a small disk: no full disks in the chaos")
    if faketime() is None:
        pytest.skip("libfaketime is not installed: no clock is set in the chaos")
