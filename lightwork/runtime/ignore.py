"""The files of an app's folder that are sent with its code: the rules of ``.lightningignore``.

The rules are the same as for ``.gitignore``. A later line wins over an earlier one. An ignore file of a sub-folder
wins over those above it. Nothing below an ignored folder can be included again. pathspec translates single patterns;
this module selects the pattern that decides, and does not enter ignored folders.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from lightwork.errors import ConfigError, UsageError

__all__ = ["IGNORE_FILE", "app_files"]

IGNORE_FILE = ".lightningignore"
"""Name of the files with ignore patterns, one per line."""

_ALWAYS = (
    ".git", ".hg/", ".svn/",
    "__pycache__/", "*.py[cod]", ".venv/", "venv/",
    ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".hypothesis/", ".tox/", ".nox/",
    ".ipynb_checkpoints/", "node_modules/", ".DS_Store",
)  # fmt: skip
"""Patterns that always apply, unless a later one such as ``!venv/`` reverts them. In a worktree ``.git`` is a file."""


def app_files(folder: str | os.PathLike[str], patterns: Sequence[str] = ()) -> list[PurePosixPath]:
    """Return the files of an app's folder that are sent with its code, relative to the folder and sorted.

    Three sources exclude files: the files named ``.lightningignore`` in the folder and below it, `patterns`, and
    built-in patterns for what is never part of a program (version control, caches, virtual environments,
    ``node_modules``). A pattern with ``!`` includes such a file again.

    A symbolic link is listed as a link; it is not followed. Anything that is neither a file nor a link, such as a
    socket, is not listed.

    Args:
        folder: The app's folder.
        patterns: More lines, as if they were at the end of the folder's own ``.lightningignore``.

    Raises:
        ConfigError: A pattern is invalid, or an ignore file is not text. The message names the file and the line.
        UsageError: Links lead out of the folder, or are absolute and would lead out of it on another machine. The
            message names each link.
        OSError: The folder, or a folder in it, cannot be read.
    """
    root = os.fspath(folder)
    rules = [*_rules("", "the built-in patterns", _ALWAYS), *_read_rules(root, "")]
    rules += _rules("", "lightningignore", patterns)
    found: list[str] = []
    strays: list[str] = []
    for path, entry in _walk(root, "", rules):
        if entry.is_symlink():
            if _leads_out(root, entry.path):
                strays.append(f"{path} -> {os.readlink(entry.path)}")
            found.append(path)
        elif entry.is_file():
            found.append(path)
    if strays:
        raise UsageError(
            f"links must not lead out of the app's folder {root}, got {', '.join(sorted(strays))}. Copy the files, "
            f"make the links relative, or exclude them in {IGNORE_FILE}"
        )
    return sorted(map(PurePosixPath, found))


@dataclass(frozen=True)
class _Rule:
    """One pattern. `matches` takes paths relative to `base`, the folder of the ignore file with the pattern."""

    base: str
    ignores: bool
    folders_only: bool
    matches: Callable[[str], bool]


def _walk(root: str, folder: str, rules: list[_Rule]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    with os.scandir(os.path.join(root, folder)) as entries:
        listed = list(entries)
    for entry in listed:
        path = f"{folder}{entry.name}"
        is_folder = entry.is_dir(follow_symlinks=False)
        if _is_ignored(path, is_folder, rules):
            continue
        if is_folder:
            inner = f"{path}/"
            yield from _walk(root, inner, [*rules, *_read_rules(root, inner)])
        else:
            yield path, entry


def _is_ignored(path: str, is_folder: bool, rules: list[_Rule]) -> bool:
    for rule in reversed(rules):
        if (is_folder or not rule.folders_only) and rule.matches(path[len(rule.base) :]):
            return rule.ignores
    return False


def _read_rules(root: str, base: str) -> list[_Rule]:
    path = os.path.join(root, base, IGNORE_FILE)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            text = file.read()
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} must be text in UTF-8: {error}") from error
    return _rules(base, path, text.split("\n"))


def _rules(base: str, source: str, lines: Sequence[str]) -> list[_Rule]:
    if isinstance(lines, str):
        raise ConfigError(f"{source} must be a list of patterns, got the string {lines!r}")
    found: list[_Rule] = []
    for number, line in enumerate(lines, 1):
        try:
            rule = _rule(base, line)
        except ValueError as error:
            raise ConfigError(f"{source}, line {number}: invalid pattern {line!r}: {error}") from error
        if rule is not None:
            found.append(rule)
    return found


def _rule(base: str, line: str) -> _Rule | None:
    text = line.rstrip("\r")
    while text.endswith(" ") and not text.endswith("\\ "):
        text = text[:-1]
    if not text or text.startswith("#"):
        return None
    ignores = not text.startswith("!")
    text = text if ignores else text[1:]
    folders_only = text.endswith("/")
    matches = _matcher(text.rstrip("/"))
    return None if matches is None else _Rule(base, ignores, folders_only, matches)


def _matcher(text: str) -> Callable[[str], bool] | None:
    """Return a function that tells whether a path itself, not a folder above it, matches; None if nothing can match."""
    from pathspec import GitIgnoreSpec  # slow to import

    # A "!" or "#" here is part of a name: the special ones in front were removed.
    escaped = f"\\{text}" if text[:1] in ("!", "#") else text
    if not escaped:
        return None
    (pattern,) = GitIgnoreSpec.from_lines([escaped]).patterns
    if pattern.include is None:
        return None

    def matches(path: str) -> bool:
        found = pattern.match_file(path)
        # `ps_d` is the slash after a folder above `path`. The expressions are greedy: a match of the path itself
        # would have been found first.
        return found is not None and found.match.groupdict().get("ps_d") is None

    return matches


def _leads_out(root: str, link: str) -> bool:
    target = os.readlink(link)
    real_root = os.path.realpath(root)
    real = os.path.realpath(link)
    return os.path.isabs(target) or not (real == real_root or real.startswith(f"{real_root}{os.sep}"))
