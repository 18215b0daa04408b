"""Works as containers of a Docker engine, on this machine or another."""

from __future__ import annotations

from lightwork_runtimes.docker._options import DockerOptions, Machine
from lightwork_runtimes.docker._runtime import DockerRuntime

__all__ = ["DockerOptions", "DockerRuntime", "Machine"]
