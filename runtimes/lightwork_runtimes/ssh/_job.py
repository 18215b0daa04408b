"""What the far side is asked to start for a spec."""

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
"""Variable of the worker: JSON of each local folder that was sent, and where it is now."""

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
    """Refuse what no machine can start.

    Raises:
        Rejected: Says what.
    """
    module, _, function = spec.entry.partition(":")
    if not module or not function:
        raise Rejected(f"entry {spec.entry!r}: must be `package.module:function`")
    if spec.compute is not None and spec.compute.mount_points:
        raise Rejected(f"runtimes.{profile}: the runtime 'ssh' mounts nothing; take a path that the machine has")


def job_for(spec: Spec, options: SshOptions, ready: Prepared, service: tuple[int, int]) -> dict[str, Any]:
    """How to start the worker; see `lightwork_runtimes.remote.supervise`.

    Args:
        spec: What to start.
        options: The profile's.
        ready: What was made ready for it there.
        service: Ports of its service, here and there.
    """
    near, far = service
    return {
        "argv": [ready.python, "-P", "-c", _BOOT.format(entry=spec.entry)],
        "env": {"_LIGHTWORK_SERVICE": f",{far},http://127.0.0.1:{near}", **_environment(spec, options, ready)},
        "cwd": ready.plan.cwd,
        "orphan_after": spec.orphan_after,
        "max_lifetime": spec.max_lifetime,
        # Dialling directly, a worker may be well connected while there is no SSH connection.
        "leased": not options.direct,
    }


def _environment(spec: Spec, options: SshOptions, ready: Prepared) -> dict[str, str]:
    """Variables of the worker, above those of the login."""
    env = {"PYTHONPATH": os.pathsep.join(ready.plan.path), _MOVED: msgspec.json.encode(ready.plan.moved).decode()}
    if options.prepare:
        folder = os.path.dirname(ready.python)
        env["VIRTUAL_ENV"] = os.path.dirname(folder)
        env["PATH"] = f"{folder}{os.pathsep}{ready.facts['path']}"
    return {**env, **spec.env}
