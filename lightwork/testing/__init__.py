"""For those who test: the checks that every runtime must pass, and a runtime that misbehaves on order."""

from __future__ import annotations

from lightwork.testing.conformance import Traits, check_runtime
from lightwork.testing.fake import FakeRuntime, Launches

__all__ = ["FakeRuntime", "Launches", "Traits", "check_runtime"]
