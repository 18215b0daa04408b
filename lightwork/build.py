"""`BuildConfig`: the packages or the image that a work needs, as plain data.

Requirements files and Dockerfiles are looked up once, when the `BuildConfig` is made. So a missing file is an error at
the line that names it, and not on a machine that was just paid for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lightwork.errors import ConfigError

__all__ = ["BuildConfig"]

_DOCKERFILE_STARTS = ("FROM ", "ARG ", "#")
_REFERENCE = re.compile(r"(-r|--requirement|-c|--constraint)(?:\s+|\s*=\s*)(.+)")


# A dataclass, as in Lightning: programs decorate their subclasses with `@dataclass`, which would break a Struct.
# msgspec encodes and decodes dataclasses too.
@dataclass
class BuildConfig:
    """Packages to install, or the image to use, before a work starts. Subclass it to add build commands.

    The runtime decides which fields it uses. ``local`` uses the requirements and the build commands: it makes one
    virtual environment for each set of them. It warns if an image or a Dockerfile is given. ``inprocess`` ignores all
    fields and runs in the environment of the app.

    Attributes:
        requirements: Packages for pip, one requirement or one option (``--pre``) per item. A path of a requirements
            file, or an item that ends in ``.txt``, is replaced by the lines of that file; so is each ``-r FILE`` in
            it. Paths are relative to the working directory. A path after ``-r`` or ``-c`` in a file is relative to
            that file. After construction this is a list of requirements.
        dockerfile: Path of a Dockerfile, or the text of one. A value with several lines, or one that starts with an
            instruction, is text. A path is made absolute. Excludes `image`.
        image: Name of a container image. Excludes `dockerfile`.

    Raises:
        ConfigError: A field has the wrong type or is empty, a file is missing or includes itself, or both `image` and
            `dockerfile` are given.
    """

    requirements: Sequence[str] = field(default_factory=list)
    dockerfile: str | None = None
    image: str | None = None

    def __post_init__(self) -> None:
        self.requirements = _requirements(self.requirements)
        self.dockerfile = _text_or_none("dockerfile", self.dockerfile)
        self.image = _text_or_none("image", self.image)
        if self.image is not None and self.dockerfile is not None:
            raise ConfigError("BuildConfig: image and dockerfile exclude each other; remove one of them")
        if self.dockerfile is not None and not _is_dockerfile_text(self.dockerfile):
            path = Path(self.dockerfile).absolute()
            if not path.is_file():
                raise ConfigError(f"BuildConfig: dockerfile not found: {str(path)!r}")
            self.dockerfile = str(path)

    def build_commands(self) -> list[str]:
        """Return shell commands to run, in this order, before the requirements are installed. Override to add some."""
        return []

    def dockerfile_text(self) -> str | None:
        """Return the text of the Dockerfile, read from the file if `dockerfile` is a path; None without a Dockerfile.

        Raises:
            OSError: The file can no longer be read.
        """
        if self.dockerfile is None or _is_dockerfile_text(self.dockerfile):
            return self.dockerfile
        return Path(self.dockerfile).read_text(encoding="utf-8")


def _is_dockerfile_text(dockerfile: str) -> bool:
    return "\n" in dockerfile or dockerfile.startswith(_DOCKERFILE_STARTS)


def _text_or_none(name: str, value: object) -> str | None:
    if value is None:
        return None
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise ConfigError(f"BuildConfig: {name} must be a string or None, got {value!r}")
    if not text.strip():
        raise ConfigError(f"BuildConfig: {name} must not be empty; omit it instead")
    return text


def _requirements(given: object) -> list[str]:
    if isinstance(given, os.PathLike) or (isinstance(given, str) and given.endswith(".txt")):
        return _read_requirements(os.fspath(given))
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ConfigError(
            f"BuildConfig: requirements must be a list of strings or the path of a .txt file, got {given!r}"
        )
    found: list[str] = []
    for item in given:
        if not isinstance(item, str):
            raise ConfigError(f"BuildConfig: a requirement must be a string, got {item!r}")
        if not item.strip():
            raise ConfigError("BuildConfig: a requirement must not be empty; remove the item")
        if len(item.splitlines()) > 1:
            raise ConfigError(f"BuildConfig: a requirement must be one line, got {item!r}; make each line an item")
        found += _lines_for(item.strip(), Path(), ())
    return found


def _lines_for(item: str, folder: Path, within: tuple[Path, ...]) -> list[str]:
    """Return the item, or the lines of the file that it names. `within`: the files that are being read."""
    reference = _REFERENCE.fullmatch(item)
    if reference is None:
        return _read_requirements(item, within) if not within and item.endswith(".txt") else [item]
    option, path = reference.groups()
    if option in ("-r", "--requirement"):
        return _read_requirements(folder / path, within)
    return [f"-c {path}" if "://" in path else f"-c {(folder / path).absolute()}"]


def _read_requirements(given: str | Path, within: tuple[Path, ...] = ()) -> list[str]:
    """Return the requirements of a file, one line each, without comments and blank lines."""
    path = Path(given).absolute()
    if path in within:
        raise ConfigError(f"BuildConfig: the requirements file {str(path)!r} includes itself; remove that -r line")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"BuildConfig: cannot read the requirements file {str(path)!r}: {error}") from error
    found: list[str] = []
    for line in text.replace("\\\n", " ").splitlines():
        # A comment starts at the line's start or after a space. "pkg @ https://host/a.zip#sha256=..." has no comment.
        item = line.split(" #")[0].strip()
        if item and not item.startswith("#"):
            found += _lines_for(item, path.parent, (*within, path))
    return found
