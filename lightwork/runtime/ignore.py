"""Which files of an app's folder are sent along with its code: the rules of ``.lightningignore``.

They are those of ``.gitignore``. A later line wins over an earlier one, a file of a sub-folder over those
above it, and nothing below a folder that is left out comes back. pathspec translates single patterns; which
one decides, and that a folder which is left out is not even entered, is done here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from lightwork.errors import ConfigError, UsageError

__all__ = ["IGNORE_FILE", "app_files"]

IGNORE_FILE = ".lightningignore"
"""Name of the files with patterns, one to a line."""

_ALWAYS = (
    ".git", ".hg/", ".svn/",
    "__pycache__/", "*.py[cod]", ".venv/", "venv/",
    ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".hypothesis/", ".tox/", ".nox/",
    ".ipynb_checkpoints/", "node_modules/", ".DS_Store",
)  # fmt: skip
"""Left out unless a pattern says otherwise, as in ``!venv/``. In a worktree ``.git`` is a file."""


def app_files(folder: str | os.PathLike[str], patterns: Sequence[str] = ()) -> list[PurePosixPath]:
    """The files of an app's folder that are sent along, relative to it and sorted.

    Left out is what the files named ``.lightningignore`` say, in the folder and below it, what `patterns`
    say, and what is never part of a program: version control, caches, virtual environments,
    ``node_modules``. A pattern with ``!`` brings such a file back.

    A symbolic link is listed as a link; it is not followed. What is neither a file nor a link, such as a
    socket, is not listed.

    Args:
        folder: The app's folder.
        patterns: More lines, as if they stood at the end of the folder's own ``.lightningignore``.

    Raises:
        ConfigError: A pattern cannot be understood, or an ignore file is no text; names the file and the line.
        UsageError: Links lead out of the folder, or are absolute and would do so elsewhere; names each.
        OSError: The folder, or one in it, cannot be read.
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
            f"links in {root} that lead out of it cannot be sent along: {', '.join(sorted(strays))}. Copy the files, "
            f"make the links relative, or leave them out in {IGNORE_FILE}"
        )
    return sorted(map(PurePosixPath, found))


@dataclass(frozen=True)
class _Rule:
    """One pattern. `matches` is asked with paths relative to `base`, the folder whose file it stands in."""

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
        raise ConfigError(f"{path} is not text in UTF-8: {error}") from error
    return _rules(base, path, text.split("\n"))


def _rules(base: str, source: str, lines: Sequence[str]) -> list[_Rule]:
    if isinstance(lines, str):
        raise ConfigError(f"{source} must be a list of patterns, not the string {lines!r}")
    found: list[_Rule] = []
    for number, line in enumerate(lines, 1):
        try:
            rule = _rule(base, line)
        except ValueError as error:
            raise ConfigError(f"{source}, line {number}: {line!r} is no pattern: {error}") from error
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
    """Whether a path itself, not a folder above it, is matched; None for a pattern that matches nothing."""
    from pathspec import GitIgnoreSpec  # takes longer than the rest of this package's facts together

    # A "!" or "#" here is a character of a name: the special ones in front are gone.
    escaped = f"\\{text}" if text[:1] in ("!", "#") else text
    if not escaped:
        return None
    (pattern,) = GitIgnoreSpec.from_lines([escaped]).patterns
    if pattern.include is None:
        return None

    def matches(path: str) -> bool:
        found = pattern.match_file(path)
        # `ps_d` is the slash behind a folder above `path`. The expressions are greedy: were there a match of the
        # path itself as well, it would have been found first.
        return found is not None and found.match.groupdict().get("ps_d") is None

    return matches


def _leads_out(root: str, link: str) -> bool:
    target = os.readlink(link)
    real_root = os.path.realpath(root)
    real = os.path.realpath(link)
    return os.path.isabs(target) or not (real == real_root or real.startswith(f"{real_root}{os.sep}"))
