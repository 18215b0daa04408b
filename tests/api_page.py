"""The public names, and the page docs/api.md that lists them: ``python -m tests.api_page`` draws it."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "api.md"

PUBLIC = [
    "lightwork",
    "lightwork.structures",
    "lightwork.frontend",
    "lightwork.api",
    "lightwork.errors",
    "lightwork.client",
    "lightwork.server",
    "lightwork.runtime",
    "lightwork.runtime.bundle",
    "lightwork.runtime.ignore",
    "lightwork.testing",
    "lightwork_runtimes.inprocess",
    "lightwork_runtimes.local",
    "lightwork_runtimes.docker",
    "lightwork_runtimes.ssh",
    "lightwork_runtimes.cloud",
]
"""Modules whose `__all__` is the public API."""

FRAMEWORK = [name for name in PUBLIC if name.partition(".")[0] == "lightwork"]
"""Those of them that belong to the framework."""

_HEAD = """# The public API

This page is drawn from `__all__` of the modules below by `python -m tests.api_page`. Every other module, and every name
that begins with an underscore, is internal: it can change in any release.
"""


def public_names(module: str) -> list[str]:
    """The public names of a module."""
    return list(importlib.import_module(module).__all__)


def _summary(value: Any) -> str:
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return f"`{type(value).__name__}`"
    text = (inspect.getdoc(value) or "").strip().partition("\n\n")[0].replace("\n", " ")
    return text.partition(". ")[0].rstrip(".").replace("|", "\\|")


def _kind(value: Any) -> str:
    if inspect.isclass(value):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if inspect.isroutine(value) else "value"


def page() -> str:
    """The page as the code says it."""
    parts = [_HEAD]
    for name in PUBLIC:
        module = importlib.import_module(name)
        doc = (inspect.getdoc(module) or "").partition("\n\n")[0].replace("\n", " ")
        rows = [
            f"| `{one}` | {_kind(value := getattr(module, one))} | {_summary(value)} |"
            for one in sorted(public_names(name))
        ]
        parts.append(
            "\n".join([f"## `{name}`", "", doc, "", "| name | kind | what it is |", "|---|---|---|", *rows, ""])
        )
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
