"""The configuration: one `Config`, made of layers, each value checked where it comes from.

A layer (file, environment, keyword arguments) is cut into `_Setting`s: a path of keys, a value, and the words
that say where it stands. They are merged one by one, so a bad value is reported with its own origin, and a
variable can change one key of a table that a file began.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, TypeVar, Unpack

import msgspec
from msgspec import Meta

from lightwork._public import export
from lightwork.errors import ConfigError

__all__ = ["LOG_DIR", "AppSettings", "Config", "Origin", "Settings", "WorkProfile", "find_config", "load_config"]

LOG_DIR = ".lightwork/logs"
"""Where the output of works is kept if nothing else is said, in the working directory."""

_PREFIX = "LIGHTWORK_"
_TABLES = ("runtimes", "works")
# Variables that are no keys: the mark on processes that lightwork starts, what the test suite sets.
# The last three say to the commands which app they mean.
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
# Nobody guesses sixteen characters; it stands in headers and addresses.
_Token = Annotated[str, Meta(min_length=16, max_length=512, pattern=r"^[\x21-\x7e]+$")]
_Port = Annotated[int, Meta(ge=0, le=65535)]
_Count = Annotated[int, Meta(ge=1)]
_Positive = Annotated[float, Meta(gt=0)]
_NotNegative = Annotated[float, Meta(ge=0)]
# 1 KiB holds the handshake; the header's length field ends at 4 GiB.
_FrameSize = Annotated[int, Meta(ge=1024, le=2**32 - 1)]

_OptionsT = TypeVar("_OptionsT", bound=msgspec.Struct)


class WorkProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the configuration says about the works whose name matches a pattern.

    Attributes:
        runtime: Name of the runtime profile they use.
    """

    runtime: _Text


class Origin(NamedTuple):
    """One key of a configuration in force, its value, and the words that say where that stands."""

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
    """Everything that can be configured. Checked when made, immutable afterwards.

    Attributes:
        host: Address on which the scheduler listens for works.
        port: Port of that listener, 0 for a free one.
        advertise: Address that works dial, where it differs from `host`; None for what the runtime finds.
        runtime: Profile or runtime of the works for which nothing else is said.
        runtimes: Named profiles: ``kind`` (the runtime, by default the profile's own name) and its options.
        works: Which profile works use, by pattern of their name as in `fnmatch`; the last match wins.
        log_level: ``debug``, ``info``, ``warning``, ``error`` or ``critical``.
        json_logs: Whether log lines are JSON objects.
        heartbeat: Seconds of silence on a link after which a heartbeat is due. None leaves it to the kernel, whose
            keepalive notices a host that has vanished within half a minute and wakes nobody. With one, a link that
            brings nothing for four times as long counts as broken: set it where something on the way, a tunnel or a
            balancer, may keep a connection open that leads nowhere. A run that blocks its event loop is silent, too.
        launch_timeout: Seconds that a worker has from its launch until it is ready to be welcomed.
        reconnect_window: Seconds that a broken link may take to heal; then its worker counts as lost.
        grace: Seconds between asking something to end and forcing it.
        max_frame: Longest frame accepted on a link, in bytes.
        max_unauthenticated: Connections that may be open at once without having proved a secret.
        statuses_kept: Statuses that a work remembers.
        journal: File that the app writes down what happens in; None for none.
        resume: Whether to go on with what the journal holds, where it holds anything.
        http: Whether the app has an HTTP side. None: where it is run by the command, and not where it is embedded.
        http_host: Address of the HTTP side.
        http_port: Port of the HTTP side, 0 for a free one. The default one is only where the search begins: where it
            is taken the next ones are tried.
        http_token: What clients of the HTTP side must show. None: nothing on loopback, else a token made for the run.
        log_dir: Folder for the output of works: each run has a folder in it. Empty for none. None:
            ``.lightwork/logs`` where there is an HTTP side, else none.
        log_max_bytes: Bytes of output that are kept of each work; older lines go.
        http_origins: Origins, ``https://example.org``, whose pages may ask beside the app's own.

    Raises:
        ConfigError: A value has the wrong type or is out of range; names the key and the value.
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
    log_max_bytes: Annotated[int, Meta(ge=1024 * 1024)] = 64 * 1024 * 1024

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
        """A copy with other values; those that are None stay as they are.

        Raises:
            ConfigError: A key is unknown, or a value bad.
        """
        merged: dict[str, Any] = {}
        origins: dict[str, str] = dict(self.__dict__.get("origins", {}))
        for setting in _from_overrides(settings):
            _merge(merged, origins, setting)
        config = Config(**{name: getattr(self, name) for name in self.__struct_fields__} | merged)
        config.__dict__["origins"] = origins
        return config

    def runtime_for(self, work_name: str, own: str | None = None) -> str:
        """Name of the profile that a work uses.

        Args:
            work_name: Its name in the tree, ``root.trials.0``.
            own: What the work's own ``runtime=`` says; it wins over the configuration.
        """
        if own is not None:
            return own
        from fnmatch import fnmatchcase

        for pattern, profile in reversed(self.works.items()):
            if fnmatchcase(work_name, pattern):
                return profile.runtime
        return self.runtime

    def profile(self, name: str) -> tuple[str, dict[str, Any]]:
        """The runtime behind a profile's name, and a copy of the profile's options without ``kind``.

        A name without a profile is a runtime's own name, without options.
        """
        options = dict(self.runtimes.get(name, {}))
        kind: str = options.pop("kind", name)
        return kind, options

    def options(self, name: str, kind: type[_OptionsT]) -> _OptionsT:
        """The options of a profile as a Struct of the type that the runtime declares.

        Strings are converted where another type is wanted, as variables of the environment only give strings.

        Raises:
            ConfigError: A key is unknown to the runtime, missing, or has a bad value.
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
            raise ConfigError(f"runtimes.{name}: {_lower(str(error))}") from None

    def explained(self) -> list[Origin]:
        """Every key in the order of the attributes, tables down to the keys of a profile, each with its origin.

        Where a value is nobody's but lightwork's own, that is ``default``.
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
"""Former names of keys, which are still taken."""


class _Setting(NamedTuple):
    """One value of one layer. `text` says that it is a string from the environment, to be parsed."""

    path: tuple[str, ...]
    value: Any
    where: str
    text: bool = False

    @property
    def key(self) -> str:
        return ".".join(self.path)

    def bad(self, why: str) -> ConfigError:
        shown = repr(self.value)
        if len(shown) > 200:
            shown = f"{shown[:200]}..."
        return ConfigError(f"{self.key} = {shown} ({self.where}): {why}")


def load_config(
    *,
    file: Path | str | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    cwd: Path | str | None = None,
) -> Config:
    """Read the configuration: defaults, then the file, then the environment, then `overrides`.

    Args:
        file: A TOML file; of one named ``pyproject.toml`` the table ``[tool.lightwork]`` is read. None looks
            in `cwd` and its parents for the first folder with a ``lightwork.toml`` or a ``pyproject.toml``
            (where both are, ``lightwork.toml`` is read) and does without a file if there is none.
        environ: Variables, by default those of the process. ``LIGHTWORK_PORT`` is the key ``port``,
            ``LIGHTWORK_RUNTIMES__GPU__KIND`` the key ``runtimes.gpu.kind``. Values are parsed to the key's
            type; whole tables, lists and objects are JSON. An empty variable counts as not set.
        overrides: Keyword arguments or what the command line gave; None values are ignored.
        cwd: Where the search for a file starts, by default the working directory.

    Raises:
        ConfigError: The file cannot be read or is no TOML, a key is unknown, or a value is bad. The message
            names the key, the value and where it stands, and the nearest valid key where there is one.
    """
    if file is None:
        file = find_config(cwd)
    elif not Path(file).is_file():
        raise ConfigError(f"there is no configuration file {str(file)!r}")
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
            raise ConfigError(f"works.{pattern} ({where}): the key 'runtime' is missing")
        merged["works"][pattern] = WorkProfile(**fields)
    config = Config(**merged)
    config.__dict__["origins"] = origins  # for the messages of `Config.options`; no part of the value
    return config


# --- layers --------------------------------------------------------------------------------------


def find_config(cwd: Path | str | None = None) -> Path | None:
    """The file that `load_config` reads, None if there is none."""
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
        raise ConfigError(f"the configuration file {str(file)!r} cannot be read: {error}") from error
    where = f"in {file}"
    if file.name == "pyproject.toml":
        for depth, key in enumerate(("tool", "lightwork"), 1):
            table = table.get(key, {})
            if not isinstance(table, dict):
                raise _Setting(("tool", "lightwork")[:depth], table, where).bad("expected a table")
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
    """The settings of a table, down to single keys of a profile; anything else as it is."""
    path, value = setting.path, setting.value
    if path[0] not in _TABLES or len(path) >= 3:
        yield setting
        return
    if isinstance(value, WorkProfile):
        value = {"runtime": value.runtime}
    if not isinstance(value, Mapping):
        raise setting.bad("expected a table")
    if len(path) == 2 and not value:
        yield setting  # an empty profile is there all the same
    for key, inner in value.items():
        yield from _flatten(setting._replace(path=(*path, str(key)), value=inner))


def _as_spelled(path: tuple[str, ...], merged: Mapping[str, Any]) -> tuple[str, ...]:
    """The path with the capitals that a file gave its keys; variables have none of their own."""
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
        raise setting.bad(f"expected JSON: {_lower(str(error))}") from None


# --- merging and checking --------------------------------------------------------------------------


def _merge(merged: dict[str, Any], origins: dict[str, str], setting: _Setting) -> None:
    """Check a setting and put it in its place."""
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
    """An option of a profile. Only ``kind`` is known here, the rest is the runtime's to check."""
    return _converted(setting, _Text) if setting.path[2:] == ("kind",) else setting.value


def _convert(setting: _Setting) -> Any:
    """The value of a top-level key in the type of its field."""
    if setting.path[0] == "log_level" and isinstance(setting.value, str):
        setting = setting._replace(value=setting.value.lower())
    value = _converted(setting, _types()[setting.path[0]], strict=not setting.text)
    if isinstance(value, float) and not math.isfinite(value):
        raise setting.bad("expected a finite number")
    return value


def _converted(setting: _Setting, kind: Any, *, strict: bool = True) -> Any:
    try:
        return msgspec.convert(setting.value, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise setting.bad(_lower(str(error))) from None


def _unknown(setting: _Setting, key: str, valid: tuple[str, ...] | list[str]) -> ConfigError:
    from difflib import get_close_matches

    near = get_close_matches(key, valid, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(sorted(valid))}"
    return setting.bad(f"there is no key {key!r}; {hint}")


@functools.cache
def _types() -> dict[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(Config)}


def _lower(text: str) -> str:
    return text if text[:2].isupper() else text[:1].lower() + text[1:]
