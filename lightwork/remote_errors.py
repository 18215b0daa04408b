"""Exceptions as data: described in the process that raises them, rebuilt in the process that awaits the call.

The scheduler does not trust the data of a worker, so rebuilding imports, unpickles and calls nothing of the user's. The
class is looked up in the modules that are already loaded. The object is made by the built-in class that it derives
from. Its arguments and attributes are set unchanged. If any of this fails, the caller gets a `WorkError` with the same
text.
"""

from __future__ import annotations

import builtins
import os
import sys
import traceback
import types
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from lightwork.errors import LightworkError, RemoteTraceback, WorkError

__all__ = ["ErrorInfo", "describe_error", "rebuild_error"]

_MAX_TEXT = 100_000
"""Limit in bytes, each for the traceback, the message, the arguments and the attributes."""

_HIDDEN = (
    "lightwork.worker",
    "lightwork.components.work",
    "lightwork.components.component",
    "lightwork.components.executor",
    "lightwork.components.profiling",
)
"""Modules whose frames only lead to the user's code."""

_UNENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)

_TUPLE = 1

# A StopIteration cannot be set on a future, and cannot leave a coroutine.
_NEVER_REBUILT = (StopIteration, StopAsyncIteration, BaseExceptionGroup)

# Attributes of built-in exceptions that are neither arguments nor in `__dict__`.
_MEMBERS: dict[type[Exception], tuple[str, ...]] = {
    ImportError: ("name", "path"),
    NameError: ("name",),
    AttributeError: ("name",),
}


class ErrorInfo(msgspec.Struct, frozen=True, gc=False):
    """An exception as data.

    Attributes:
        module, qualname: Module and qualified name of the exception's class.
        message: ``str()`` of the exception.
        args: The exception's arguments in msgpack, None if they cannot be encoded.
        attributes: The exception's other attributes in msgpack, None if they cannot be encoded.
        traceback: Formatted traceback with causes and notes, without the framework's own frames.
    """

    module: str
    qualname: str
    message: str
    args: bytes | None = None
    attributes: bytes | None = None
    traceback: str = ""


def describe_error(exc: BaseException, *, hide: Sequence[str] = _HIDDEN) -> ErrorInfo:
    """Return an exception as data. An error in the exception's own methods is not raised.

    The traceback includes causes, contexts, notes and groups. Arguments and attributes that cannot be encoded, or are
    longer than the limit, are omitted. Long texts lose their middle.

    Args:
        exc: The exception.
        hide: Modules and packages whose frames are omitted from the traceback, if other frames remain. For an error
            that lightwork itself raised, all frames of lightwork are omitted, so the traceback ends at the user's line.
    """
    kind = type(exc)
    return ErrorInfo(
        module=_clean(str(kind.__module__)),
        qualname=_clean(kind.__qualname__),
        message=_clean(_text_of(exc)),
        args=_encode_args(exc),
        attributes=_encode_attributes(exc),
        traceback=_clean(_format(exc, hide)),
    )


def rebuild_error(info: ErrorInfo, *, work: str) -> BaseException:
    """Return the described exception, ready to be raised here. Its ``__cause__`` carries the remote traceback.

    The result has the original class if this is an `Exception` of a module that is loaded here, and the object can be
    made without the class's own ``__init__``. Otherwise it is a `WorkError` with the message ``TypeName: text``.
    Imports nothing and never raises.

    Args:
        info: The description of the exception.
        work: Name of the work, for the `WorkError`.
    """
    error: BaseException
    try:
        error = _rebuild(info)
        str(error)  # a __str__ may need attributes that only the class's __init__ sets
    except Exception:  # a faulty class, or faulty data of a worker: the WorkError carries all known facts
        error = _as_work_error(info, work)
    error.__cause__ = RemoteTraceback(info.traceback) if info.traceback else None
    return error


# --- describing --------------------------------------------------------------------------------------


def _text_of(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception as failure:  # a user's __str__ may raise anything
        return f"<str() of this {type(exc).__name__} raised {type(failure).__name__}>"


def _clean(text: str) -> str:
    """Return the text with bounded size and without lone surrogates, which msgpack refuses."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= _MAX_TEXT:
        return data.decode()
    half = _MAX_TEXT // 2 - 50
    head, tail = data[:half].decode("utf-8", "ignore"), data[-half:].decode("utf-8", "ignore")
    return f"{head}\n... {len(data) - 2 * half} bytes left out ...\n{tail}"


def _encode_bounded(value: Any) -> bytes | None:
    try:
        data = msgspec.msgpack.encode(value)
    except _UNENCODABLE:
        return None
    return data if len(data) <= _MAX_TEXT else None


def _encode_args(exc: BaseException) -> bytes | None:
    # An OSError does not keep its file names in `args`; its __reduce__ adds them.
    args = OSError.__reduce__(exc)[1] if isinstance(exc, OSError) else exc.args
    try:
        return _encode_bounded([_packed(arg) for arg in args])
    except _UNENCODABLE:
        return None


def _packed(arg: Any) -> Any:
    """Return the argument with its tuples marked: the text of ``KeyError((1, 2))`` shows that the key is a tuple."""
    if type(arg) is tuple:
        return msgspec.msgpack.Ext(_TUPLE, msgspec.msgpack.encode([_packed(item) for item in arg]))
    return os.fspath(arg) if isinstance(arg, os.PathLike) else arg


def _encode_attributes(exc: BaseException) -> bytes | None:
    found: dict[str, msgspec.Raw] = {}
    left = _MAX_TEXT
    for name, value in _attributes(exc):
        data = _encode_bounded(value)
        if data is not None and len(data) <= left:
            found[name] = msgspec.Raw(data)
            left -= len(data)
    return _encode_bounded(found) if found else None


def _attributes(exc: BaseException) -> Iterator[tuple[str, Any]]:
    yield from getattr(exc, "__dict__", {}).items()
    for kind, names in _MEMBERS.items():
        if isinstance(exc, kind):
            yield from ((name, getattr(exc, name)) for name in names)


def _format(exc: BaseException, hide: Sequence[str]) -> str:
    try:
        shown = traceback.TracebackException.from_exception(exc)
        _strip(shown, _files((*hide, "lightwork") if isinstance(exc, LightworkError) else hide))
        return "".join(shown.format()).rstrip("\n")
    except Exception as failure:  # formatting calls methods of the user's objects and reads sources, which may be gone
        return f"{type(exc).__qualname__}: {_text_of(exc)}\n(the traceback could not be formatted: {failure!r})"


def _files(modules: Sequence[str]) -> tuple[str, ...]:
    """Return the files of modules and the folders of packages, folders with a final separator. Skip unloaded names."""
    found: list[str] = []
    for name in modules:
        module = sys.modules.get(name)
        for folder in getattr(module, "__path__", ()):
            found.append(os.path.join(folder, ""))
        file = getattr(module, "__file__", None)
        if file:
            found.append(file)
    return tuple(found)


def _strip(top: traceback.TracebackException, files: tuple[str, ...]) -> None:
    """Remove the frames of these files from every part of a traceback that has other frames."""
    seen: set[int] = set()
    todo = [top]
    while todo:
        part = todo.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        kept = [frame for frame in part.stack if not frame.filename.startswith(files)]
        if kept:
            part.stack = traceback.StackSummary.from_list(kept)
        todo += [inner for inner in (part.__cause__, part.__context__, *(part.exceptions or ())) if inner]


# --- rebuilding --------------------------------------------------------------------------------------


def _rebuild(info: ErrorInfo) -> Exception:
    cls = _find_class(info.module, info.qualname)
    base = _builtin_base(cls)
    args = (info.message,) if info.args is None else tuple(_decode_args(info.args))
    # The built-in base makes and initializes the object: OSError and UnicodeError keep the parts of their text in
    # fields that only their own __init__ sets. A user's __new__ and __init__ are not called.
    error: Exception = base.__new__(cls, *args)
    base.__init__(error, *args)
    if info.attributes is not None:
        _set_attributes(error, msgspec.msgpack.decode(info.attributes, type=dict[str, Any]))
    return error


def _builtin_base(cls: type[Exception]) -> Any:
    """Return the built-in class that defines the object layout of `cls`. Only this base can make the object."""
    base: type | None = cls
    while base is not None and getattr(builtins, base.__name__, None) is not base:
        base = base.__base__
    return base


def _find_class(module: str, qualname: str) -> type[Exception]:
    """Return the class from a loaded module. Read only dicts, because `getattr` on a module may import."""
    loaded = sys.modules.get(module)
    if not isinstance(loaded, types.ModuleType):
        raise LookupError(f"{module} is not loaded")
    table = object.__getattribute__(loaded, "__dict__")
    found: Any = None
    for name in qualname.split("."):
        found = table[name]
        table = type.__getattribute__(found, "__dict__") if isinstance(found, type) else {}
    if not isinstance(found, type) or not issubclass(found, Exception) or issubclass(found, _NEVER_REBUILT):
        raise LookupError(f"{module}.{qualname} is not an exception class that can be rebuilt")
    return found


def _unpacked(code: int, data: memoryview) -> Any:
    return tuple(_decode_args(data)) if code == _TUPLE else msgspec.msgpack.Ext(code, bytes(data))


_decode_args = msgspec.msgpack.Decoder(list[Any], ext_hook=_unpacked).decode


def _set_attributes(error: Exception, attributes: dict[str, Any]) -> None:
    own: dict[str, Any] = object.__getattribute__(error, "__dict__")
    members = {name: kind for kind, names in _MEMBERS.items() if isinstance(error, kind) for name in names}
    for name, value in attributes.items():
        if name in members:
            members[name].__dict__[name].__set__(error, value)
        elif name == "__notes__":
            own[name] = [str(note) for note in value]
        elif not hasattr(Exception, name) and not name.startswith("__"):
            own[name] = value


def _as_work_error(info: ErrorInfo, work: str) -> WorkError:
    short = info.qualname.rpartition(".")[2]
    name = info.qualname if info.module == "builtins" else f"{info.module}.{info.qualname}"
    return WorkError(f"{short}: {info.message}" if info.message else short, work=work, type_name=name)
