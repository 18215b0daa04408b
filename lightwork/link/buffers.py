"""Where what is read goes."""

from __future__ import annotations

import functools

__all__ = ["keep_buffers"]

_LARGER_THAN_BUFFERS = 1 << 20
"""Bytes. A block of that size which was freed makes glibc keep smaller ones (its `M_MMAP_THRESHOLD` moves)."""


@functools.cache
def keep_buffers() -> None:
    """Have the C library keep the memory of a read buffer for the next one.

    asyncio reads into 256 kB, which glibc asks the system for and gives back each time until it has seen a larger block
    freed. Many processes happen to have freed one; in a small app that had not, a warm call took 120 µs instead of 82.

    Done once; before a fork for those that are forked: in them the block would be cleared, page by page.
    """
    bytes(_LARGER_THAN_BUFFERS)
