"""For those who test: the checks that every runtime must pass."""

from __future__ import annotations

from lightwork.testing.conformance import Traits, check_runtime

__all__ = ["Traits", "check_runtime"]
