"""Run all subjects, or the named ones; print a table, write ``build/benchmarks/results.json`` and ``chart.svg``."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import traceback
from itertools import groupby
from pathlib import Path

import msgspec

from benchmarks.chart import draw, show
from benchmarks.harness import FULL, QUICK, Report, Scale

SUBJECTS = [
    "calls",
    "deltas",
    "tree",
    "starts",
    "rest",
    "imports",
    "strangers",
    "ssh",
    "docker",
    "losses",
    "page",
    "journal",
    "server",
]


def run(subjects: list[str], scale: Scale) -> Report:
    """Measure the subjects. If one fails it is reported, and the others are still measured."""
    report = Report({"python": platform.python_version(), "cores": str(os.cpu_count()), "cpu": platform.machine()})
    for subject in subjects:
        print(f"measuring {subject} ...", file=sys.stderr, flush=True)
        try:
            importlib.import_module(f"benchmarks.{subject}").measure(report, scale)
        except Exception:
            report.failures.append(f"{subject}:\n{traceback.format_exc()}")
    return report


def table(report: Report) -> str:
    """Return the report as a table for people."""
    lines = []
    for subject, rows in groupby(report.series, key=lambda row: row.subject):
        lines.append(f"\n{subject}")
        for row in rows:
            low, high = (show(edge) for edge in row.quartiles)
            lines.append(f"  {row.who:<52}{show(row.median):>12} {row.unit:<12} half of them {low} to {high}")
    lines.append("\nbudgets")
    for budget in report.budgets:
        sign = "at least" if budget.at_least else "at most"
        state = "met" if budget.is_met else "NOT met"
        lines.append(
            f"  {budget.what:<58}{show(budget.measured):>10} {budget.unit:<12} "
            f"{sign} {show(budget.limit):>9}   {state}, ratio {budget.ratio:.2f}"
        )
    lines += [f"\nFAILED {failure}" for failure in report.failures]
    return "\n".join(lines)


def encode(report: Report) -> bytes:
    """Return the report for programs: all measurements, and the verdicts on the budgets."""
    data = msgspec.to_builtins(report)
    for row, plain in zip(report.series, data["series"], strict=True):
        plain["median"], plain["quartiles"] = row.median, list(row.quartiles)
    for budget, plain in zip(report.budgets, data["budgets"], strict=True):
        plain["met"], plain["ratio"] = budget.is_met, budget.ratio
    return msgspec.json.format(msgspec.json.encode(data), indent=2)


def main() -> int:
    """Return 1 if a subject could not be measured. A missed budget is a result like any other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("subjects", nargs="*", choices=[[], *SUBJECTS], help="which to measure; all by default")
    parser.add_argument("--quick", action="store_true", help="less of everything: shows that it runs")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"), help="folder for the results")
    chosen = parser.parse_args()
    # With this variable each child compiles its imports again, and the benchmark would measure the compiler.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    report = run(chosen.subjects or SUBJECTS, QUICK if chosen.quick else FULL)
    print(table(report))
    chosen.output.mkdir(parents=True, exist_ok=True)
    (chosen.output / "results.json").write_bytes(encode(report))
    (chosen.output / "chart.svg").write_text(draw(report))
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
