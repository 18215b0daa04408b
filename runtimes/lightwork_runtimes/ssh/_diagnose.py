"""Checks of what the runtime `ssh` needs, here and on its machines. They leave nothing on the machines."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import anyio.to_thread

from lightwork.runtime import Finding, Health, RuntimeFailure
from lightwork_runtimes.ssh._options import SshOptions, Target

__all__ = ["look"]


async def look(name: str, options: SshOptions | None) -> Sequence[Finding]:
    """Check the client library and the keys. If the profile has machines, log in to each."""
    if importlib.util.find_spec("asyncssh") is None:
        return [Finding("client library", Health.PROBLEM, "asyncssh is not installed", 'pip install "lightwork[ssh]"')]
    here = [Finding("client library", Health.OK, "asyncssh"), *_keys(options)]
    if options is None:
        return here
    await anyio.to_thread.run_sync(importlib.import_module, "asyncssh")  # takes a quarter of a second
    return [*here, *await asyncio.gather(*(_login(name, target, options) for target in options.targets()))]


def _keys(options: SshOptions | None) -> Iterator[Finding]:
    given = [os.path.expanduser(path) for path in options.client_keys] if options is not None else []
    missing = [path for path in given if not os.access(path, os.R_OK)]
    if missing:
        detail = f"files in client_keys cannot be read: {', '.join(missing)}"
        yield Finding("keys", Health.PROBLEM, detail, "correct client_keys of the profile")
    elif given:
        yield Finding("keys", Health.OK, f"{len(given)} of client_keys")
    usual = sorted(path.name for path in Path("~/.ssh").expanduser().glob("id_*") if path.suffix != ".pub")
    agent = os.environ.get("SSH_AUTH_SOCK")
    has_agent = bool(agent) and os.path.exists(agent or "")
    if has_agent or usual:
        parts = ["an agent"] * has_agent + usual
        yield Finding("agent and keys", Health.OK, ", ".join(parts))
    elif not given:
        yield Finding(
            "agent and keys",
            Health.WARNING,
            "no agent and no key in ~/.ssh found; logins fail unless the configuration of ssh names a key",
            "start an agent and ssh-add a key, create one with ssh-keygen, or set client_keys of the profile",
        )


async def _login(name: str, target: Target, options: SshOptions) -> Finding:
    import asyncssh

    from lightwork_runtimes.ssh._login import explain, log_in

    what, where = f"host {target.label}", f"runtimes.{name}: host {target.label}"
    fix = "make sure that `ssh` logs in to this host without a prompt"
    try:
        async with asyncio.timeout(options.connect_timeout):
            async with await log_in(where, target, options) as connection:
                done = await connection.run(shlex.join([target.python, "--version"]), check=False)
    except TimeoutError:
        return Finding(what, Health.PROBLEM, f"no answer within {options.connect_timeout:g} s", fix)
    except RuntimeFailure as error:
        return Finding(what, Health.PROBLEM, str(error), fix)
    except (OSError, asyncssh.Error) as error:
        return Finding(what, Health.PROBLEM, str(explain(where, target, error)), fix)
    said = " ".join(str(text).strip() for text in (done.stdout, done.stderr) if text)
    if done.exit_status != 0:
        return Finding(
            what, Health.PROBLEM, f"{target.python!r} does not run on this host: {said}", "set `python` of the profile"
        )
    return Finding(what, Health.OK, said)
