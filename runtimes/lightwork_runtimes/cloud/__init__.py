"""Works on machines that a cloud makes for them and takes back afterwards."""

from __future__ import annotations

from lightwork_runtimes.cloud._options import CloudOptions
from lightwork_runtimes.cloud._runtime import CloudRuntime

__all__ = ["CloudOptions", "CloudRuntime"]
