"""Draws docs/lifecycle.md from the machine's table: `python -m tests.engine.rules.lifecycle_page` writes it."""

from __future__ import annotations

import inspect
from collections import defaultdict
from pathlib import Path

from lightwork.engine.rules.machine import LATE, TABLE
from lightwork.engine.rules.model import Phase

PAGE = Path(__file__).parents[3] / "docs" / "lifecycle.md"

_INTRODUCTION = """\
# The life of a worker

This page is drawn from `TABLE` in `lightwork/engine/rules/machine.py` by `python -m tests.engine.rules.lifecycle_page`.

Each work has at most one worker, which is in one of these phases. An arrow is an event that can lead from one phase to
another.
"""


def draw() -> str:
    """Return the page."""
    return "\n".join([_INTRODUCTION, *_diagram(), "", *_table(), "", *_late(), ""])


def _diagram() -> list[str]:
    arrows: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for (phase, event), row in TABLE.items():
        for to in row.to:
            if to is not phase:
                arrows[phase.value, "[*]" if to is None else to.value].append(event.__name__)
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> absent: WorkAdded"]
    lines += [f"    {start} --> {end}: {', '.join(events)}" for (start, end), events in arrows.items()]
    return [*lines, "```"]


def _table() -> list[str]:
    lines = ["| phase | event | what happens | phase after it |", "|---|---|---|---|"]
    for phase in Phase:
        for (start, event), row in TABLE.items():
            if start is phase:
                what = inspect.cleandoc(row.answer.__doc__ or "").splitlines()[0].replace("`", "")
                after = ", ".join("forgotten" if to is None else to.value for to in row.to)
                lines.append(f"| {phase} | {event.__name__} | {what} | {after} |")
    return lines


def _late() -> list[str]:
    names = ", ".join(f"`{name}`" for name in sorted(event.__name__ for event in LATE))
    return [
        f"In a phase for which it is not listed, each of {names} is late and changes nothing. So is every event of an "
        "earlier attempt. Any other event that is not listed is a bug of lightwork and raises `MachineError`."
    ]


if __name__ == "__main__":
    PAGE.write_text(draw())
