"""Tools for tests: the checks that every runtime must pass, and a fake runtime that fails on demand."""

from __future__ import annotations

from lightwork.testing.conformance import Traits, check_runtime
from lightwork.testing.fake import FakeRuntime, Launches

__all__ = ["FakeRuntime", "Launches", "Traits", "check_runtime"]
