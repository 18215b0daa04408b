"""The default runtime: works as processes of this machine."""

from __future__ import annotations

from lightwork_runtimes.local._runtime import LocalOptions, LocalRuntime

__all__ = ["LocalOptions", "LocalRuntime"]
