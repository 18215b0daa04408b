"""Tools for tests: the checks that every runtime must pass, and a fake runtime that fails on demand."""

from __future__ import annotations

from lightwork._common.public import export as _export
from lightwork.testing.conformance import Traits, check_runtime
from lightwork.testing.fake import FakeRuntime, Launches

__all__ = ["FakeRuntime", "Launches", "Traits", "check_runtime"]

_export(__name__, FakeRuntime, Launches, Traits)
