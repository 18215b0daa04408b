"""The folders in which a worker looks for the code of its work."""

from __future__ import annotations

from lightwork.worker.agent import paths_here


def test_paths_hold_on_the_same_machine() -> None:
    """Without a map, the scheduler's folders are used unchanged."""
    assert paths_here(["/app", "/usr/lib/python3"], {}) == ["/app", "/usr/lib/python3"]


def test_paths_are_mapped_elsewhere() -> None:
    """With a map, paths in a sent folder are mapped to its place here, and all other paths are dropped."""
    environ = {"LW_PATHS": '{"/home/me/app": "/far/code/1", "/home/me": "/far/home"}'}
    given = ["/home/me/app", "/home/me/app/src", "/home/me/other", "/home/mean", "/usr/lib/python3/dist-packages"]
    assert paths_here(given, environ) == ["/far/code/1", "/far/code/1/src", "/far/home/other"]
