"""The journal's file: appended batches are on disk, in order, and outlive the process. It does not depend on apps.

`store` is the file, `writer` is the thread that writes to it, and `lock` keeps a second process away. These modules
import SQLite, so import them only where a journal is used.
"""

from __future__ import annotations

__all__: list[str] = []
