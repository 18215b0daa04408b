"""Finds the app that a command line names, and imports its file in a way that workers can repeat.

A file in a package is imported under its full dotted name, with the package's root on ``sys.path``. Therefore its
relative imports work. Any other file is imported under its stem, with its folder on ``sys.path``. In both cases the
module has the same name here and in every worker, and is not imported twice under two names.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from lightwork.errors import UsageError

if TYPE_CHECKING:
    from lightwork.app import App

__all__ = ["AppImportError", "AppNotFound", "find_app", "find_instance", "load_module"]

T = TypeVar("T")

_ATTRIBUTE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class AppNotFound(UsageError):
    """The target names no file and no module, or its module has no such app. The message says what was found."""


class AppImportError(UsageError):
    """The import of the app's module raised an exception. The exception is the ``__cause__``."""


def find_app(target: str) -> App[Any]:
    """Return the app that `target` names.

    Args:
        target: ``path/to/app.py``, a folder that contains an ``app.py``, or ``module``. If the module has more than one
            app, ``:name`` follows.

    Raises:
        AppNotFound: The file or module does not exist, or it does not have exactly one app.
        AppImportError: The import raised an exception.
    """
    from lightwork.app import App

    return find_instance(target, App)


def find_instance(target: str, kind: type[T]) -> T:
    """Return the instance of `kind` that `target` names. See `find_app`."""
    location, attribute = _split_target(target)
    module = load_module(location)
    where = _describe(module, location)
    if attribute:
        return _named(module, attribute, kind, where)
    found = _instances(module, kind)
    if len({id(value) for value in found.values()}) == 1:
        return next(iter(found.values()))
    if found:
        choices = " or ".join(f"{location}:{name}" for name in found)
        raise AppNotFound(f"{where} has {len(found)} {kind.__name__}s: {', '.join(found)}; select one: {choices}")
    raise AppNotFound(_nothing_found(module, kind, location, where))


def _split_target(target: str) -> tuple[str, str]:
    """Split a target into its path or module and its attribute. The attribute is empty if the target has none."""
    if os.path.exists(target):
        return target, ""
    location, colon, attribute = target.rpartition(":")
    if not colon or not location or not (attribute == "" or _ATTRIBUTE.fullmatch(attribute)):
        return target, ""
    return location, attribute


def load_module(location: str) -> ModuleType:
    """Import a file, the ``app.py`` of a folder, or a module by its dotted name.

    Raises:
        AppNotFound: The file or module does not exist, or workers could not import it under the same name.
        AppImportError: The import raised an exception.
    """
    if _is_path(location):
        return _load_file(_resolve_file(location))
    if not _ATTRIBUTE.fullmatch(location):
        raise AppNotFound(f"{location!r} is neither an existing file nor the name of a module")
    _put_first(Path.cwd())
    return _import(location, f"module {location!r} not found, and no file or folder of that name in {Path.cwd()}")


def _is_path(location: str) -> bool:
    return location.endswith(".py") or "/" in location or os.sep in location or os.path.exists(location)


def _resolve_file(location: str) -> Path:
    path = Path(location)
    if path.is_dir():
        inside = path / "app.py"
        if not inside.is_file():
            others = sorted(child.name for child in path.glob("*.py"))
            hint = f"; name one of its files: {', '.join(others[:8])}" if others else ""
            raise AppNotFound(f"the folder {location} does not contain an app.py{hint}")
        path = inside
    if not path.is_file():
        raise AppNotFound(f"file {location} not found in {Path.cwd()}")
    if path.suffix != ".py":
        raise AppNotFound(f"{location} is not a Python file: the name must end in .py")
    return path.resolve()


def _load_file(path: Path) -> ModuleType:
    root, parts = path.parent, [path.stem]
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    if parts[-1] == "__init__":
        parts.pop()
    if not all(part.isidentifier() for part in parts):
        raise AppNotFound(
            f"{path.name} cannot be imported as {'.'.join(parts)!r}, neither here nor by a worker: "
            "rename it to letters, digits and underscores"
        )
    _put_first(root)
    name = ".".join(parts)
    module = _import(name, f"{path} cannot be imported as {name!r}")
    _check_same_file(module, path)
    return module


def _put_first(folder: Path) -> None:
    if not sys.path or sys.path[0] != str(folder):
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


def _import(name: str, missing: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise AppNotFound(missing) from None
        raise AppImportError(f"the import of {name} failed") from error
    except Exception as error:
        raise AppImportError(f"the import of {name} failed") from error


def _check_same_file(module: ModuleType, path: Path) -> None:
    """Raise `AppNotFound` if another module of the same name hides the file. It would hide the file in workers too."""
    file = getattr(module, "__file__", None)
    if file is None or Path(file).resolve() != path:
        raise AppNotFound(
            f"{path.name} is hidden by another module named {module.__name__!r} ({file or 'built in'}): rename the file"
        )


def _named(module: ModuleType, attribute: str, kind: type[T], where: str) -> T:
    value: Any = module
    for part in attribute.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            found = _instances(module, kind)
            hint = f"; its {kind.__name__}s are: {', '.join(found)}" if found else ""
            raise AppNotFound(f"{where} has no {attribute!r}{hint}") from None
    if not isinstance(value, kind):
        got = f"the class {value.__name__}" if isinstance(value, type) else f"an instance of {type(value).__name__}"
        raise AppNotFound(f"{attribute!r} in {where} must be an instance of {kind.__name__}, got {got}")
    return value


def _instances(module: ModuleType, kind: type[T]) -> dict[str, T]:
    """Return name to instance. An instance with several names is listed under the first name."""
    seen: dict[int, str] = {}
    for name, value in vars(module).items():
        if isinstance(value, kind):
            seen.setdefault(id(value), name)
    return {name: getattr(module, name) for name in seen.values()}


def _nothing_found(module: ModuleType, kind: type[Any], location: str, where: str) -> str:
    lines = [f"no {kind.__name__} found in {where}"]
    own = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and _is_flow(value)
    ]
    if own:
        lines.append(f"It defines {', '.join(own)}: add a line `app = {kind.__name__}({own[0]}())`.")
    else:
        lines.append(
            f"Create one at the top level of the file, `app = {kind.__name__}(MyFlow())`, or name another file."
        )
    if _has_main_guard(module):
        lines.append(
            'This command does not run the code under `if __name__ == "__main__":`: '
            f"create the {kind.__name__} above it."
        )
    return "\n".join(lines)


def _is_flow(cls: type[Any]) -> bool:
    return any(base.__name__ == "Flow" and base.__module__.partition(".")[0] == "lightwork" for base in cls.__mro__[1:])


def _has_main_guard(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    if not file or not file.endswith(".py"):
        return False
    source = Path(file).read_text(encoding="utf-8", errors="replace")
    return re.search(r"^if\s+__name__\s*==\s*[\"']__main__[\"']", source, re.MULTILINE) is not None


def _describe(module: ModuleType, location: str) -> str:
    file: str | None = getattr(module, "__file__", None)
    if file is None or not _is_path(location):
        return f"module {module.__name__}"
    return os.path.relpath(file) if Path(file).is_relative_to(Path.cwd()) else file
