"""Works on machines that exist and that SSH reaches."""

from __future__ import annotations

from lightwork_runtimes.ssh._options import FarOptions, HostOptions, SshOptions
from lightwork_runtimes.ssh._runtime import SshRuntime

__all__ = ["FarOptions", "HostOptions", "SshOptions", "SshRuntime"]
