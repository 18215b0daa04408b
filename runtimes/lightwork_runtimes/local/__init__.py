"""Works as processes of this machine: the default runtime."""

from __future__ import annotations

from lightwork_runtimes.local._runtime import LocalOptions, LocalRuntime

__all__ = ["LocalOptions", "LocalRuntime"]
