"""The path of the browser, its arguments, and the messages in its console that are ignored."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"

ARGUMENTS = [
    "--no-sandbox",  # tests run as root in a container
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
]

HARMLESS = ("Failed to load resource", "WebSocket connection to")
"""Console messages of the browser about a server that is gone or refuses, or about a change of the network. Containers
of other tests cause such changes."""


def chromium() -> str | None:
    """Return the path of the browser, None if it is not installed."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


Open = Callable[..., Coroutine[Any, Any, Any]]
"""Opens a page. Takes the address, the place in the page, and `width`, `height`, `theme`."""
