"""Pooled read buffers."""

from __future__ import annotations

import functools

__all__ = ["keep_buffers"]

_LARGER_THAN_BUFFERS = 1 << 20
"""Bytes. Once a block of this size is freed, glibc keeps smaller freed blocks (it raises its `M_MMAP_THRESHOLD`)."""


@functools.cache
def keep_buffers() -> None:
    """Make the C library keep the memory of a freed read buffer for the next read.

    asyncio reads into a buffer of 256 kB. glibc gets that memory from the system and returns it on each read, until
    the process has freed a larger block. Many processes happen to have freed one. In a small app that had not, a warm
    call took 120 µs instead of 82.

    Only the first call has an effect. A process that forks calls it before the fork: in a forked child the block would
    be cleared page by page.
    """
    bytes(_LARGER_THAN_BUFFERS)
