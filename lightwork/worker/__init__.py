"""The worker: the end of the link that runs in a work's process.

A runtime starts `main` in a new process (`lightwork.runtime.Spec.entry`). `serve` is the same worker as a task of a
running event loop.
"""

from lightwork.worker.process import main, serve

__all__ = ["main", "serve"]
