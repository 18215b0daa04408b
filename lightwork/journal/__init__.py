"""A file that outlives its process: what is appended to it is on disk, in order. It knows nothing of apps.

`store` is the file, `writer` the thread that writes to it, `lock` keeps a second process away. SQLite is imported with
them, so import them where a journal is used.
"""

from __future__ import annotations

__all__: list[str] = []
