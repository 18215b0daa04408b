"""Duration of a fresh interpreter that imports lightwork, from its start to its end."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.harness import Budget, Report, Scale

PROGRAMS = {"nothing": "pass", "asyncio and msgspec": "import asyncio, msgspec", "lightwork": "import lightwork"}


def measure(report: Report, scale: Scale) -> None:
    """Measure each program in turns, after one round that fills the disk caches."""
    samples: dict[str, list[float]] = {who: [] for who in PROGRAMS}
    for repeat in range(scale.repeats + 1):
        for who, program in PROGRAMS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            if repeat:
                samples[who].append((time.perf_counter() - start) * 1e3)
    rows = {who: report.add("import, whole process", who, "ms", taken) for who, taken in samples.items()}
    report.budgets.append(Budget("python -c 'import lightwork'", "ms", 100.0, rows["lightwork"].median))
