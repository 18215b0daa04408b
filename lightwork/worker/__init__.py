"""The other end of the link: what runs in a work's process.

`main` is what a runtime brings to life (`lightwork.runtime.Spec.entry`), `serve` the same as a task of a loop
that runs already.
"""

from lightwork.worker.process import main, serve

__all__ = ["main", "serve"]
