"""Where the browser is, how it is started, and what it may say."""

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
"""What a browser itself reports of a server that is gone, or refuses; and of a network that changes under it, which
containers of other tests do to it."""


def chromium() -> str | None:
    """Where the browser is."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


Open = Callable[..., Coroutine[Any, Any, Any]]
"""Opens a page: address, place in it, and `width`, `height`, `theme`."""
