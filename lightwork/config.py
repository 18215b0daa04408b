"""The configuration: one `Config`, merged from layers. Each value is checked in the layer that it comes from.

A layer (file, environment, keyword arguments) is split into `_Setting`s. A `_Setting` is a path of keys, a value and
a text that names the origin. Settings are merged one by one. So an error names the origin of the bad value, and a
variable can change one key of a table in the file.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, TypeVar, Unpack

import msgspec
from msgspec import Meta

from lightwork._common.public import export
from lightwork.errors import ConfigError

__all__ = ["LOG_DIR", "AppSettings", "Config", "Origin", "Settings", "WorkProfile", "find_config", "load_config"]

LOG_DIR = ".lightwork/logs"
"""Default folder for the output of works, relative to the working directory."""

_PREFIX = "LIGHTWORK_"
_TABLES = ("runtimes", "works")
# Variables with the prefix that are not configuration keys: the marks on processes that lightwork starts, and the
# variables of the test suite. The last three tell the commands which app to use.
_NO_KEYS = frozenset(
    {
        "LIGHTWORK_LAUNCH",
        "LIGHTWORK_WORK",
        "LIGHTWORK_TEST_SESSION",
        "LIGHTWORK_REQUIRE_ALL",
        "LIGHTWORK_APP",
        "LIGHTWORK_URL",
        "LIGHTWORK_TOKEN",
    }
)

_Text = Annotated[str, Meta(min_length=1)]
# Sixteen characters cannot be guessed. The token is sent in headers and addresses, hence printable ASCII.
_Token = Annotated[str, Meta(min_length=16, max_length=512, pattern=r"^[\x21-\x7e]+$")]
_Port = Annotated[int, Meta(ge=0, le=65535)]
_Count = Annotated[int, Meta(ge=1)]
_Positive = Annotated[float, Meta(gt=0, extra={"unit": "seconds"})]
_NotNegative = Annotated[float, Meta(ge=0, extra={"unit": "seconds"})]
# The handshake fits in 1 KiB. The header's length field has 32 bits.
_FrameSize = Annotated[int, Meta(ge=1024, le=2**32 - 1, extra={"unit": "bytes"})]
_LogSize = Annotated[int, Meta(ge=1024 * 1024, extra={"unit": "bytes"})]

_OptionsT = TypeVar("_OptionsT", bound=msgspec.Struct)


class WorkProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of the works whose name matches a pattern.

    Attributes:
        runtime: Name of the profile or runtime of these works.
    """

    runtime: _Text


class Origin(NamedTuple):
    """One key of a configuration, its value, and a text that names the origin of the value."""

    key: str
    value: Any
    where: str


class AppSettings(TypedDict, total=False):
    """The keys of `Config` that `App` takes as keyword arguments. None leaves a key as it is."""

    host: str | None
    port: int | None
    advertise: str | None
    runtime: str | None
    works: dict[str, WorkProfile] | None
    log_level: Literal["debug", "info", "warning", "error", "critical"] | None
    json_logs: bool | None
    heartbeat: float | None
    launch_timeout: float | None
    reconnect_window: float | None
    grace: float | None
    max_frame: int | None
    max_unauthenticated: int | None
    statuses_kept: int | None
    http: bool | None
    http_host: str | None
    http_port: int | None
    http_token: str | None
    http_origins: list[str] | None
    log_dir: str | None
    log_max_bytes: int | None


class Settings(AppSettings, total=False):
    """The keys of `Config` that `App.configure` takes as keyword arguments: all of them. None leaves a key as it is."""

    # `App` has parameters of these names, with types of their own.
    runtimes: dict[str, dict[str, Any]] | None
    journal: str | None
    resume: bool | None


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """All settings of an app. Values are checked when the object is made; the object is immutable.

    Attributes:
        host: Address on which the scheduler listens for workers (default: ``127.0.0.1``).
        port: Port of that listener; 0 takes a free port (default: 0).
        advertise: Address that workers dial, if it differs from `host` (default: None, the runtime finds it).
        runtime: Profile or runtime of every work that has no other setting (default: ``local``).
        runtimes: Named profiles: ``kind`` (the runtime; default: the profile's own name) and the runtime's options.
        works: Profile by pattern of the work's name, as in `fnmatch`; the last match wins (default: none).
        log_level: ``debug``, ``info``, ``warning``, ``error`` or ``critical`` (default: ``info``).
        json_logs: Write each log record as one JSON object (default: no).
        heartbeat: Seconds of silence on a link before a heartbeat is sent (default: None, no heartbeats). Without
            heartbeats the kernel's keepalive notices a host that has vanished within half a minute, and wakes no
            process. With a heartbeat, a link that is silent for four times as long counts as broken. Set it if a
            tunnel or a load balancer may keep dead connections open. A run that blocks its event loop is silent too.
        launch_timeout: Seconds from the launch of a worker until it must be ready (default: 60).
        reconnect_window: Seconds that a broken link may take to heal; then the worker counts as lost (default: 30).
        grace: Seconds between asking a run, a worker or a frontend to end and forcing it (default: 5).
        max_frame: Longest frame accepted on a link, in bytes, from 1024 to 4294967295 (default: 64 MiB).
        max_unauthenticated: Number of open connections that have not proved a secret yet (default: 256).
        statuses_kept: Number of statuses that each work keeps (default: 100).
        journal: File in which the app records its events (default: None, no journal).
        resume: Continue from the journal if it holds an unfinished run (default: no).
        http: Serve the dashboard and the HTTP API (default: None, yes under ``lightwork run``, no if embedded).
        http_host: Address of the HTTP server (default: ``127.0.0.1``).
        http_port: Port of the HTTP server; 0 takes a free port (default: 7501, and the next ports if it is taken).
        http_token: Token that HTTP clients must send, 16 to 512 printable ASCII characters (default: None, no token
            on loopback, a random token for each run elsewhere).
        http_origins: Origins, ``https://example.org``, whose pages may send requests, beside the app's own origin
            (default: none).
        log_dir: Folder for the output of works; each run makes a folder in it. Empty: keep no output (default: None,
            ``.lightwork/logs`` if there is an HTTP server, otherwise keep no output).
        log_max_bytes: Bytes of output kept for each work, at least 1 MiB; older lines are deleted (default: 64 MiB).

    Raises:
        ConfigError: A value has the wrong type or is out of range. The message names the key and the value.
    """

    host: _Text = "127.0.0.1"
    port: _Port = 0
    advertise: _Text | None = None
    runtime: _Text = "local"
    runtimes: dict[str, dict[str, Any]] = {}
    works: dict[str, WorkProfile] = {}
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    json_logs: bool = False
    heartbeat: _Positive | None = None
    launch_timeout: _Positive = 60.0
    reconnect_window: _NotNegative = 30.0
    grace: _NotNegative = 5.0
    max_frame: _FrameSize = 64 * 1024 * 1024
    max_unauthenticated: _Count = 256
    statuses_kept: _Count = 100
    journal: _Text | None = None
    resume: bool = False
    http: bool | None = None
    http_host: _Text = "127.0.0.1"
    http_port: _Port = 7501
    http_token: _Token | None = None
    http_origins: list[_Text] = []
    log_dir: str | None = None
    log_max_bytes: _LogSize = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            converted = _convert(_Setting((name,), value, "given to Config"))
            if converted is not value:
                msgspec.structs.force_setattr(self, name, converted)
        for profile, options in self.runtimes.items():
            if "kind" in options:
                _check_option(_Setting(("runtimes", profile, "kind"), options["kind"], "given to Config"))

    def replaced(self, **settings: Unpack[Settings]) -> Config:
        """Return a copy with these values. A value of None leaves the key unchanged.

        Raises:
            ConfigError: A key is unknown or a value is invalid.
        """
        merged: dict[str, Any] = {}
        origins: dict[str, str] = dict(self.__dict__.get("origins", {}))
        for setting in _from_overrides(settings):
            _merge(merged, origins, setting)
        config = Config(**{name: getattr(self, name) for name in self.__struct_fields__} | merged)
        config.__dict__["origins"] = origins
        return config

    def runtime_for(self, work_name: str, own: str | None = None) -> str:
        """Return the name of the profile that a work uses.

        Args:
            work_name: The work's name in the tree, ``root.trials.0``.
            own: The ``runtime=`` argument of the work, if it has one. It wins over the configuration.
        """
        if own is not None:
            return own
        from fnmatch import fnmatchcase

        for pattern, profile in reversed(self.works.items()):
            if fnmatchcase(work_name, pattern):
                return profile.runtime
        return self.runtime

    def profile(self, name: str) -> tuple[str, dict[str, Any]]:
        """Return the runtime of a profile and a copy of the profile's options without ``kind``.

        A name that has no profile is the name of a runtime; its options are empty.
        """
        options = dict(self.runtimes.get(name, {}))
        kind: str = options.pop("kind", name)
        return kind, options

    def options(self, name: str, kind: type[_OptionsT]) -> _OptionsT:
        """Return the options of a profile as a Struct of the type that the runtime declares.

        Strings are converted to the declared type, because environment variables are strings.

        Raises:
            ConfigError: A key is unknown to the runtime or missing, or a value is invalid.
        """
        given = self.profile(name)[1]
        known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        for key, value in given.items():
            setting = _Setting(("runtimes", name, key), value, self._origin(f"runtimes.{name}.{key}"))
            if key not in known:
                raise _unknown(setting, key, [*known, "kind"])
            _converted(setting, known[key].type, strict=False)
        try:
            return msgspec.convert(given, kind, strict=False)
        except msgspec.ValidationError as error:
            if missing := re.match(r"Object missing required field `([^`]*)`$", str(error)):
                raise ConfigError(f"runtimes.{name} must have the key {missing[1]!r}") from None
            raise ConfigError(f"runtimes.{name}: {_lower(str(error))}") from None

    def explained(self) -> list[Origin]:
        """Return every key with its value and origin, in the order of the attributes.

        A table is expanded down to the keys of each profile. The origin of a default value is ``default``.
        """
        found: list[Origin] = []
        origins: dict[str, str] = self.__dict__.get("origins", {})
        for name in self.__struct_fields__:
            value = msgspec.to_builtins(getattr(self, name))
            if name not in _TABLES or not value:
                found.append(Origin(name, value, origins.get(name, "default")))
                continue
            for profile, keys in value.items():
                for key, inner in keys.items() or [("", {})]:
                    path = f"{name}.{profile}.{key}".rstrip(".")
                    found.append(Origin(path, inner, self._origin(path)))
        return found

    def _origin(self, key: str) -> str:
        origins: dict[str, str] = self.__dict__.get("origins", {})
        return origins.get(key, "given to Config")


export("lightwork", Config)

_RENAMED = {"max_strangers": "max_unauthenticated"}
"""Former names of keys. They are still accepted."""


class _Setting(NamedTuple):
    """One value of one layer. `text`: the value is a string from the environment and must be parsed."""

    path: tuple[str, ...]
    value: Any
    where: str
    text: bool = False

    @property
    def key(self) -> str:
        return ".".join(self.path)

    @property
    def shown(self) -> str:
        """The value for an error message: bounded, and never the token."""
        if self.key == "http_token":
            return f"{len(self.value)} characters" if isinstance(self.value, str) else type(self.value).__name__
        shown = repr(self.value)
        return f"{shown[:200]}..." if len(shown) > 200 else shown

    def must_be(self, expected: str) -> ConfigError:
        return ConfigError(f"{self.key} must be {expected}, got {self.shown} ({self.where})")

    def bad(self, why: str) -> ConfigError:
        return ConfigError(f"{self.key} = {self.shown} ({self.where}): {why}")


def load_config(
    *,
    file: Path | str | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    cwd: Path | str | None = None,
) -> Config:
    """Read the configuration: defaults, then the file, then the environment, then `overrides`.

    Args:
        file: A TOML file. In a file named ``pyproject.toml`` the table ``[tool.lightwork]`` is read. None searches
            `cwd` and its parents for the first folder with a ``lightwork.toml`` or a ``pyproject.toml``. If a folder
            has both, ``lightwork.toml`` is read. If no folder has one, no file is read.
        environ: Environment variables (default: those of the process). ``LIGHTWORK_PORT`` sets the key ``port``,
            ``LIGHTWORK_RUNTIMES__GPU__KIND`` the key ``runtimes.gpu.kind``. Values are parsed to the type of the
            key. Tables and lists are written as JSON. An empty variable counts as not set.
        overrides: Keyword arguments, or options of the command line. None values are ignored.
        cwd: Folder where the search for a file starts (default: the working directory).

    Raises:
        ConfigError: The file cannot be read or is not valid TOML, a key is unknown, or a value is invalid. The message
            names the key, the value and its origin. For an unknown key it names the nearest valid key, if any.
    """
    if file is None:
        file = find_config(cwd)
    elif not Path(file).is_file():
        raise ConfigError(f"configuration file not found: {str(file)!r}")
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if file is not None:
        for setting in _from_file(Path(file)):
            _merge(merged, origins, setting)
    for setting in _from_environ(os.environ if environ is None else environ, merged):
        _merge(merged, origins, setting)
    for setting in _from_overrides(overrides or {}):
        _merge(merged, origins, setting)
    for pattern, fields in merged.get("works", {}).items():
        if "runtime" not in fields:
            where = origins.get(f"works.{pattern}", "")
            raise ConfigError(f"works.{pattern} must have the key 'runtime' ({where})")
        merged["works"][pattern] = WorkProfile(**fields)
    config = Config(**merged)
    config.__dict__["origins"] = origins  # for error messages; not part of the value
    return config


# --- layers --------------------------------------------------------------------------------------


def find_config(cwd: Path | str | None = None) -> Path | None:
    """Return the file that `load_config` reads, or None if no file is found."""
    folder = Path.cwd() if cwd is None else Path(cwd)
    for place in (folder.absolute(), *folder.absolute().parents):
        for name in ("lightwork.toml", "pyproject.toml"):
            if (place / name).is_file():
                return place / name
    return None


def _from_file(file: Path) -> Iterator[_Setting]:
    import tomllib

    try:
        table: Any = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read the configuration file {str(file)!r}: {error}") from error
    where = f"in {file}"
    if file.name == "pyproject.toml":
        for depth, key in enumerate(("tool", "lightwork"), 1):
            table = table.get(key, {})
            if not isinstance(table, dict):
                raise _Setting(("tool", "lightwork")[:depth], table, where).must_be("a table")
    for key, value in table.items():
        yield from _flatten(_Setting((key,), value, where))


def _from_environ(environ: Mapping[str, str], merged: Mapping[str, Any]) -> Iterator[_Setting]:
    for variable in sorted(environ):
        value = environ[variable]
        if not variable.startswith(_PREFIX) or variable in _NO_KEYS or not value:
            continue
        path = _as_spelled(tuple(variable[len(_PREFIX) :].lower().split("__")), merged)
        setting = _Setting(path, value, f"from the variable {variable}", text=True)
        if path[0] in _TABLES and len(path) < 3:
            yield from _flatten(setting._replace(value=_parse_json(setting), text=False))
        elif path[0] == "runtimes" and value[0] in "[{":
            yield setting._replace(value=_parse_json(setting), text=False)
        else:
            yield setting


def _from_overrides(overrides: Mapping[str, Any]) -> Iterator[_Setting]:
    for key, value in overrides.items():
        if value is not None:
            yield from _flatten(_Setting((key,), value, f"from the keyword argument {key}"))


def _flatten(setting: _Setting) -> Iterator[_Setting]:
    """Yield the settings of a table, one for each key of a profile. Yield any other setting unchanged."""
    path, value = setting.path, setting.value
    if path[0] not in _TABLES or len(path) >= 3:
        yield setting
        return
    if isinstance(value, WorkProfile):
        value = {"runtime": value.runtime}
    if not isinstance(value, Mapping):
        raise setting.must_be("a table")
    if len(path) == 2 and not value:
        yield setting  # an empty profile still exists
    for key, inner in value.items():
        yield from _flatten(setting._replace(path=(*path, str(key)), value=inner))


def _as_spelled(path: tuple[str, ...], merged: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the path in the case that the file uses for its keys. The case of a variable's name carries no meaning."""
    spelled: list[str] = []
    table: Any = merged
    for key in path:
        known = table if isinstance(table, Mapping) else {}
        found = next((name for name in known if name.lower() == key), key)
        spelled.append(found)
        table = known.get(found)
    return tuple(spelled)


def _parse_json(setting: _Setting) -> Any:
    try:
        return msgspec.json.decode(setting.value)
    except msgspec.DecodeError as error:
        raise setting.must_be(f"valid JSON ({_lower(str(error))})") from None


# --- merging and checking --------------------------------------------------------------------------


def _merge(merged: dict[str, Any], origins: dict[str, str], setting: _Setting) -> None:
    """Check a setting and store it under its path."""
    setting = setting._replace(path=(_RENAMED.get(setting.path[0], setting.path[0]), *setting.path[1:]))
    value = _checked(setting)
    table = merged
    for depth, key in enumerate(setting.path[:-1]):
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise setting.bad(f"{'.'.join(setting.path[: depth + 1])} is not a table")
    if len(setting.path) == 2:
        table.setdefault(setting.path[-1], {})
    else:
        table[setting.path[-1]] = value
    origins[setting.key] = setting.where


def _checked(setting: _Setting) -> Any:
    path = setting.path
    if path[0] not in Config.__struct_fields__:
        raise _unknown(setting, path[0], Config.__struct_fields__)
    if path[0] == "runtimes":
        return setting.value if len(path) == 2 else _check_option(setting)
    if path[0] == "works":
        if len(path) == 3 and path[2] not in WorkProfile.__struct_fields__:
            raise _unknown(setting, path[2], WorkProfile.__struct_fields__)
        if len(path) > 3:
            raise setting.bad(f"{path[2]} is not a table")
        return setting.value if len(path) == 2 else _converted(setting, _Text)
    if len(path) > 1:
        raise setting.bad(f"{path[0]} is not a table")
    return _convert(setting)


def _check_option(setting: _Setting) -> Any:
    """Check the option ``kind`` of a profile. The runtime checks its own options."""
    return _converted(setting, _Text) if setting.path[2:] == ("kind",) else setting.value


def _convert(setting: _Setting) -> Any:
    """Return the value of a top-level key, converted to the type of its field."""
    if setting.path[0] == "log_level" and isinstance(setting.value, str):
        setting = setting._replace(value=setting.value.lower())
    value = _converted(setting, _types()[setting.path[0]], strict=not setting.text)
    if isinstance(value, float) and not math.isfinite(value):
        raise setting.must_be("a finite number of seconds")
    return value


def _converted(setting: _Setting, kind: Any, *, strict: bool = True) -> Any:
    try:
        return msgspec.convert(setting.value, kind, strict=strict)
    except msgspec.ValidationError as error:
        said = str(error)
        expected = _expected(kind) if said.startswith(("Expected `", "Invalid enum value")) else ""
        if not expected:
            raise setting.bad(_lower(said)) from None
        # An option of a runtime is reported as it is written in the file: `runtimes.gpu.pull = 'often' (in ...)`.
        raise (
            setting.bad(f"must be {expected}") if setting.path[0] == "runtimes" else setting.must_be(expected)
        ) from None


def _expected(kind: Any) -> str:
    """Return the values that a type accepts, as text for an error message; empty if the type has no short text."""
    from msgspec import inspect

    return _described(inspect.type_info(kind))


def _described(info: Any, unit: str = "") -> str:
    from msgspec import inspect

    match info:
        case inspect.Metadata(type=inner, extra=extra):
            return _described(inner, (extra or {}).get("unit", unit))
        case inspect.UnionType(types=types):
            # None stands for a key that is left out; a file and a variable cannot contain it.
            parts = [_described(part) for part in types if not isinstance(part, inspect.NoneType)]
            return " or ".join(parts) if all(parts) else ""
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return (f"a whole number of {unit}" if unit else "an integer") + _bounds(info)
        case inspect.FloatType():
            return (f"a number of {unit}" if unit else "a number") + _bounds(info)
        case inspect.StrType(min_length=shortest, max_length=longest, pattern=pattern):
            if pattern is not None:
                return f"{shortest} to {longest} printable ASCII characters without spaces" if longest else ""
            return "a non-empty string" if shortest else "a string"
        case inspect.LiteralType(values=values):
            return f"one of {', '.join(map(repr, values))}"
        case inspect.ListType(item_type=item):
            return f"a list in which each item is {each}" if (each := _described(item)) else ""
        case _:
            return ""


def _bounds(info: Any) -> str:
    if info.ge is not None and info.le is not None:
        return f" from {info.ge} to {info.le}"
    if info.ge is not None:
        return f", at least {info.ge}"
    return f" greater than {info.gt}" if info.gt is not None else ""


def _unknown(setting: _Setting, key: str, valid: tuple[str, ...] | list[str]) -> ConfigError:
    from difflib import get_close_matches

    near = get_close_matches(key, valid, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"the valid keys are {', '.join(sorted(valid))}"
    return ConfigError(f"unknown key {setting.key} ({setting.where}): {hint}")


@functools.cache
def _types() -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(Config)}


def _lower(text: str) -> str:
    return text if text[:2].isupper() else text[:1].lower() + text[1:]
