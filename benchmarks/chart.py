"""A report as an SVG picture: a block of bars for each subject, and the list of budgets at the top."""

from __future__ import annotations

from html import escape
from itertools import groupby

from benchmarks.harness import Budget, Report, Series

WIDTH, LABEL, ROW, PAD = 900, 330, 22, 16
BAR = WIDTH - LABEL - 190
MINE, OTHERS, MET, NOT_MET = "#2a6fdb", "#a9b4c2", "#1a7f37", "#c62828"


def show(value: float) -> str:
    """Return the number with three significant digits and without an exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 4
    return f"{value:,.{digits}f}"


def _text(x: float, y: float, text: str, *, anchor: str = "start", fill: str = "#1f2933", bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}"{weight}>{escape(text)}</text>'


def _budget(budget: Budget, y: float) -> list[str]:
    word, colour = ("met", MET) if budget.is_met else ("NOT met", NOT_MET)
    sign = "≥" if budget.at_least else "≤"
    numbers = f"{show(budget.measured)} {budget.unit}  ({sign} {show(budget.limit)})"
    return [
        _text(PAD, y, budget.what),
        _text(WIDTH - 120, y, numbers, anchor="end"),
        _text(WIDTH - PAD, y, word, anchor="end", fill=colour, bold=True),
    ]


def _bars(rows: list[Series], y: float) -> list[str]:
    scale = BAR / max(row.quartiles[1] for row in rows) if any(row.quartiles[1] for row in rows) else 0
    parts = []
    for row in rows:
        low, high = (edge * scale for edge in row.quartiles)
        fill = MINE if "lightwork" in row.who or len({r.who for r in rows}) == 1 else OTHERS
        middle = y - 5
        parts += [
            _text(LABEL - 8, y, row.who, anchor="end"),
            f'<rect x="{LABEL}" y="{y - 13:.1f}" width="{row.median * scale:.1f}" height="16" rx="2" fill="{fill}"/>',
            f'<path d="M{LABEL + low:.1f} {middle:.1f}H{LABEL + high:.1f}" stroke="#1f2933" stroke-width="1.5"/>',
            _text(WIDTH - PAD, y, f"{show(row.median)} {row.unit}", anchor="end"),
        ]
        y += ROW
    return parts


def draw(report: Report) -> str:
    """Return the picture. A bar is a median; the thin line across its end spans the middle half of the samples."""
    y = 36.0
    parts = [_text(PAD, y, "lightwork: budgets", bold=True)]
    for budget in report.budgets:
        y += ROW
        parts += _budget(budget, y)
    for subject, group in groupby(report.series, key=lambda row: row.subject):
        rows = list(group)
        y += 2 * ROW
        parts.append(_text(PAD, y, f"{subject} ({rows[0].unit})", bold=True))
        parts += _bars(rows, y + ROW)
        y += ROW * len(rows)
    y += 2 * ROW
    parts.append(_text(PAD, y, " · ".join(f"{key} {value}" for key, value in report.machine.items()), fill="#616e7c"))
    height = y + PAD
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" font-family="system-ui, sans-serif" font-size="13">'
    )
    return "\n".join([head, '<rect width="100%" height="100%" fill="#ffffff"/>', *parts, "</svg>", ""])
