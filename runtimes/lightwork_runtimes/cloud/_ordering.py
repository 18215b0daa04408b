"""What machine is ordered for a launch, or why none is."""

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
from lightwork_runtimes.cloud._userdata import MOST_BYTES, Switch, user_data

__all__ = ["order_for"]

_ORPHAN_MARGIN = 30.0
"""Seconds beyond `Spec.orphan_after` before a machine takes itself for abandoned: its worker ends first."""

_LIFETIME_MARGIN = 60.0
"""Seconds beyond all that a launch may take before `Spec.max_lifetime` ends the machine, and not the worker alone."""

_NO_NAME = re.compile(r"[^a-z0-9]+")
_MOST_WORK = 24
"""Characters of the work's name in the machine's: clouds take 63 in all."""


def order_for(profile: str, options: CloudOptions, public_keys: Sequence[str], spec: Spec, digest: str) -> Order:
    """The machine for a spec.

    Args:
        profile: Name of the profile.
        options: Its keys.
        public_keys: What the machine lets in.
        spec: What is to run there.
        digest: Of the spec.

    Raises:
        Rejected: It asks for what there is not.
    """
    where = f"runtimes.{profile}"
    module, _, function = spec.entry.partition(":")
    if not module or not function:
        raise Rejected(f"entry {spec.entry!r}: must be `package.module:function`")
    compute = spec.compute or CloudCompute()
    size = _size(where, options, compute)
    switch = _switch(options, spec)
    script = user_data(
        switch, username=options.username, folder=options.folder, public_keys=public_keys, setup=options.setup
    )
    if len(script.encode()) > MOST_BYTES:
        raise Rejected(f"{where}: setup is too long: the machine's script has more than {MOST_BYTES} bytes")
    work = spec.env.get("LIGHTWORK_WORK", "")
    label = _NO_NAME.sub("-", work.lower())[:_MOST_WORK].strip("-") or "work"
    return Order(
        name=f"lightwork-{label}-{hashlib.sha256(spec.name.encode()).hexdigest()[:20]}",
        size=size,
        tags={
            "owner": spec.owner,
            "name": spec.name,
            # The ticket is in the spec, and has a secret of 32 random bytes: nobody gets back from this to it.
            "spec": digest,
            "work": work,
            "profile": profile,
            "scheduler": this_machine(),
            "user": getpass.getuser(),
            "interruptible": "yes" if compute.interruptible else "no",
            "lifetime": "" if switch.lifetime is None else f"{switch.lifetime:g}",
        },
        user_data=script,
        is_interruptible=compute.interruptible,
        disk_size=compute.disk_size,
    )


def _size(where: str, options: CloudOptions, compute: CloudCompute) -> str:
    size = options.sizes.get(compute.name)
    if size is None:
        known = ", ".join(sorted(options.sizes))
        raise Rejected(f"{where}: there is no size {compute.name!r}; those of the table `sizes` are {known}")
    if compute.mount_points:
        raise Rejected(f"{where}: the runtime 'cloud' mounts nothing; fetch what you need in the work")
    if compute.shm_size is not None:
        raise Rejected(f"{where}: shm_size cannot be set here: take a size with twice as much memory")
    if compute.colocation_group_id is not None:
        raise Rejected(f"{where}: every work has a machine of its own here (colocation_group_id)")
    return size


def _switch(options: CloudOptions, spec: Spec) -> Switch:
    coming = options.create_timeout + options.boot_timeout
    limits = [] if options.max_lifetime is None else [options.max_lifetime]
    if spec.max_lifetime is not None:
        limits.append(coming + options.prepare_timeout + spec.max_lifetime + _LIFETIME_MARGIN)
    return Switch(
        first=coming + options.abandoned_after,
        window=max(options.abandoned_after, spec.orphan_after + _ORPHAN_MARGIN),
        lifetime=min(limits, default=None),
    )
