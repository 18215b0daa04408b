"""Works on machines that a cloud creates for them and deletes afterwards."""

from __future__ import annotations

from lightwork_runtimes.cloud._options import CloudOptions
from lightwork_runtimes.cloud._runtime import CloudRuntime

__all__ = ["CloudOptions", "CloudRuntime"]
