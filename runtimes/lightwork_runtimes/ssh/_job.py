"""The job that the helper on the remote machine starts for a spec."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec

from lightwork.runtime import Rejected, Spec
from lightwork_runtimes.ssh._options import SshOptions

if TYPE_CHECKING:
    from lightwork_runtimes.ssh._host import Prepared

__all__ = ["check_spec", "job_for"]

_MOVED = "LW_PATHS"
"""Variable of the worker: JSON that maps each sent local folder to its remote path."""

_BOOT = """\
import sys
sys.argv = [{entry!r}]
sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")
from lightwork.runtime import resolve_entry
code = resolve_entry({entry!r})()
sys.exit(code & 0xFF if isinstance(code, int) else 0)
"""


def check_spec(profile: str, spec: Spec) -> None:
    """Check that a spec can be started by this runtime.

    Raises:
        Rejected: A field cannot be used; the message names it.
    """
    module, _, function = spec.entry.partition(":")
    if not module or not function:
        raise Rejected(f"entry {spec.entry!r}: must be `package.module:function`")
    if spec.compute is not None and spec.compute.mount_points:
        raise Rejected(f"runtimes.{profile}: the runtime 'ssh' does not support mounts; use a path of the machine")


def job_for(spec: Spec, options: SshOptions, ready: Prepared, service: tuple[int, int]) -> dict[str, Any]:
    """Return the job that starts the worker; see `lightwork_runtimes.remote.supervise`.

    Args:
        spec: The launch.
        options: The profile's options.
        ready: What was prepared for it on the remote machine.
        service: Local and remote port of its service.
    """
    local_port, remote_port = service
    return {
        "argv": [ready.python, "-P", "-c", _BOOT.format(entry=spec.entry)],
        "env": {
            "_LIGHTWORK_SERVICE": f",{remote_port},http://127.0.0.1:{local_port}",
            **_environment(spec, options, ready),
        },
        "cwd": ready.plan.cwd,
        "orphan_after": spec.orphan_after,
        "max_lifetime": spec.max_lifetime,
        # With `direct` a worker may be connected to the scheduler while there is no SSH connection.
        "leased": not options.direct,
    }


def _environment(spec: Spec, options: SshOptions, ready: Prepared) -> dict[str, str]:
    """Return the worker's variables, which override those of the login."""
    env = {"PYTHONPATH": os.pathsep.join(ready.plan.path), _MOVED: msgspec.json.encode(ready.plan.moved).decode()}
    if options.prepare:
        folder = os.path.dirname(ready.python)
        env["VIRTUAL_ENV"] = os.path.dirname(folder)
        env["PATH"] = f"{folder}{os.pathsep}{ready.facts['path']}"
    return {**env, **spec.env}
