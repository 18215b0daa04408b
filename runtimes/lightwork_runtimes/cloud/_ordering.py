"""The machine that is ordered for a launch, or the reason why no machine can be ordered."""

from __future__ import annotations

import getpass
import hashlib
import re
from collections.abc import Sequence

from lightwork.compute import CloudCompute
from lightwork.runtime import Rejected, Spec
from lightwork_runtimes.cloud._lease import this_machine
from lightwork_runtimes.cloud._options import CloudOptions
from lightwork_runtimes.cloud._providers import Order
from lightwork_runtimes.cloud._userdata import MOST_BYTES, Watchdog, user_data

__all__ = ["order_for"]

_ORPHAN_MARGIN = 30.0
"""Seconds on top of `Spec.orphan_after` before a machine counts as abandoned, so that its worker ends first."""

_LIFETIME_MARGIN = 60.0
"""Seconds on top of the longest possible launch and `Spec.max_lifetime`, so that the worker ends before the machine."""

_NO_NAME = re.compile(r"[^a-z0-9]+")
_MOST_WORK = 24
"""Characters of the work's name in the machine's name. Clouds allow 63 characters in all."""


def order_for(profile: str, options: CloudOptions, public_keys: Sequence[str], spec: Spec, digest: str) -> Order:
    """Return the order of a machine for a spec.

    Args:
        profile: Name of the profile.
        options: Keys of the profile.
        public_keys: Keys that may log in.
        spec: The launch.
        digest: Digest of the spec.

    Raises:
        Rejected: The spec requests something that the runtime or the profile does not support.
    """
    where = f"runtimes.{profile}"
    module, _, function = spec.entry.partition(":")
    if not module or not function:
        raise Rejected(f"entry {spec.entry!r}: must be `package.module:function`")
    compute = spec.compute or CloudCompute()
    size = _size(where, options, compute)
    watchdog = _watchdog(options, spec)
    script = user_data(
        watchdog, username=options.username, folder=options.folder, public_keys=public_keys, setup=options.setup
    )
    if len(script.encode()) > MOST_BYTES:
        raise Rejected(f"{where}: setup is too long: the machine's script must have at most {MOST_BYTES} bytes")
    work = spec.env.get("LIGHTWORK_WORK", "")
    label = _NO_NAME.sub("-", work.lower())[:_MOST_WORK].strip("-") or "work"
    return Order(
        name=f"lightwork-{label}-{hashlib.sha256(spec.name.encode()).hexdigest()[:20]}",
        size=size,
        tags={
            "owner": spec.owner,
            "name": spec.name,
            # The ticket in the spec has a secret of 32 random bytes. So the digest reveals nothing about it.
            "spec": digest,
            "work": work,
            "profile": profile,
            "scheduler": this_machine(),
            "user": getpass.getuser(),
            "interruptible": "yes" if compute.interruptible else "no",
            "lifetime": "" if watchdog.lifetime is None else f"{watchdog.lifetime:g}",
        },
        user_data=script,
        is_interruptible=compute.interruptible,
        disk_size=compute.disk_size,
    )


def _size(where: str, options: CloudOptions, compute: CloudCompute) -> str:
    size = options.sizes.get(compute.name)
    if size is None:
        known = ", ".join(sorted(options.sizes))
        raise Rejected(f"{where}: unknown size {compute.name!r}; the table `sizes` has {known}")
    if compute.mount_points:
        raise Rejected(f"{where}: the runtime 'cloud' does not support mounts; download the data in the work")
    if compute.shm_size is not None:
        raise Rejected(f"{where}: shm_size is not supported here; use a size with twice as much memory")
    if compute.colocation_group_id is not None:
        raise Rejected(f"{where}: colocation_group_id is not supported here: every work has a separate machine")
    return size


def _watchdog(options: CloudOptions, spec: Spec) -> Watchdog:
    coming = options.create_timeout + options.boot_timeout
    limits = [] if options.max_lifetime is None else [options.max_lifetime]
    if spec.max_lifetime is not None:
        limits.append(coming + options.prepare_timeout + spec.max_lifetime + _LIFETIME_MARGIN)
    return Watchdog(
        first=coming + options.abandoned_after,
        window=max(options.abandoned_after, spec.orphan_after + _ORPHAN_MARGIN),
        lifetime=min(limits, default=None),
    )
