"""Checks of what the runtime `cloud` needs here, and of the login to the cloud. They create no machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence

import anyio
import anyio.to_thread

from lightwork.errors import LightworkError
from lightwork.runtime import Finding, Health
from lightwork_runtimes.cloud._options import CloudOptions

__all__ = ["look"]

_INSTALL = 'pip install "lightwork[cloud]"'


async def look(name: str, options: CloudOptions | None) -> Sequence[Finding]:
    """Check the client libraries. If there is a profile, check its credentials and make one request to the cloud."""
    here = list(_libraries())
    if options is None or any(finding.health is Health.PROBLEM for finding in here):
        return here
    return [*here, await _account(f"runtimes.{name}", options)]


def _libraries() -> Iterator[Finding]:
    for module, package in (("libcloud", "apache-libcloud"), ("asyncssh", "asyncssh")):
        if importlib.util.find_spec(module) is None:
            yield Finding("client library", Health.PROBLEM, f"{package} is not installed", _INSTALL)
        else:
            yield Finding("client library", Health.OK, package)


async def _account(where: str, options: CloudOptions) -> Finding:
    # Imported late and in a thread: it loads the client library.
    module = await anyio.to_thread.run_sync(importlib.import_module, "lightwork_runtimes.cloud._account")
    try:
        account = module.Account(where, options)
        try:
            async with anyio.create_task_group() as tasks:
                await account.open(tasks)
                machines = await account.machines(None)
        finally:
            with anyio.CancelScope(shield=True):
                await account.aclose()
    except* LightworkError as errors:
        said = "; ".join(str(error) for error in _members(errors))
        fix = "check credentials, region and provider of the profile"
        finding = Finding("account", Health.PROBLEM, said, fix)
    else:
        finding = Finding("account", Health.OK, f"{options.provider} answers; lightwork has {len(machines)} machines")
    return finding


def _members(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _members(error)
        else:
            yield error
