from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lightwork.config import Config, WorkProfile, load_config
from lightwork.errors import ConfigError


class GpuOptions(msgspec.Struct, forbid_unknown_fields=True):
    hosts: list[str]
    slots: int = 1


def write(folder: Path, text: str, name: str = "lightwork.toml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def refused(**how: Any) -> str:
    how.setdefault("environ", {})
    with pytest.raises(ConfigError) as caught:
        load_config(**how)
    return str(caught.value)


# --- the value ---------------------------------------------------------------------------------------


def test_the_defaults_listen_on_loopback_only() -> None:
    """Without any configuration both listeners are on loopback and works run locally."""
    config = Config()
    assert (config.host, config.port, config.http_host, config.http_port) == ("127.0.0.1", 0, "127.0.0.1", 7501)
    assert config.runtime_for("root.a") == "local"
    assert config.profile("local") == ("local", {})


def test_whole_numbers_become_seconds() -> None:
    """An int becomes a float, so 20 and 20.0 are the same configuration."""
    assert Config(grace=5) == Config()
    assert type(Config(grace=5).grace) is float


@pytest.mark.parametrize(
    "fields",
    [
        {"host": ""},
        {"port": -1},
        {"port": 65536},
        {"port": "80"},
        {"port": True},
        {"advertise": ""},
        {"runtime": ""},
        {"runtimes": {"a": 3}},
        {"runtimes": {"a": {"kind": ""}}},
        {"works": {"a": 3}},
        {"works": {"a": {"runtim": "x"}}},
        {"log_level": "loud"},
        {"json_logs": 1},
        {"heartbeat": 0},
        {"heartbeat": math.nan},
        {"launch_timeout": 0},
        {"reconnect_window": -1},
        {"grace": -0.1},
        {"grace": math.inf},
        {"max_frame": 100},
        {"max_frame": 2**32},
        {"max_unauthenticated": 0},
        {"statuses_kept": 0},
        {"http_host": 3},
        {"http_port": 65536},
    ],
)
def test_a_value_out_of_range_names_its_key(fields: dict[str, Any]) -> None:
    """An invalid value is refused when the Config is made; the error names the key."""
    with pytest.raises(ConfigError, match=next(iter(fields))):
        Config(**fields)


def test_the_runtime_of_a_work() -> None:
    """The work's own runtime wins, then the last pattern that matches, then the default."""
    works = {"root.*": WorkProfile("a"), "root.trials.*": WorkProfile("b"), "other": WorkProfile("c")}
    config = Config(works=works, runtime="d")
    assert config.runtime_for("root.trials.0", "own") == "own"
    assert config.runtime_for("root.trials.0") == "b"
    assert config.runtime_for("root.x") == "a"
    assert config.runtime_for("elsewhere") == "d"


def test_a_profile_without_kind_is_options_for_the_runtime_of_its_name() -> None:
    """`kind` defaults to the profile's own name and is not passed as an option."""
    config = Config(runtimes={"docker": {"network": "n"}, "gpu": {"kind": "ssh", "hosts": ["h"]}})
    assert config.profile("docker") == ("docker", {"network": "n"})
    assert config.profile("gpu") == ("ssh", {"hosts": ["h"]})
    assert config.runtimes["gpu"]["kind"] == "ssh"


# --- layers ------------------------------------------------------------------------------------------


def test_each_layer_overrides_the_one_below(tmp_path: Path) -> None:
    """Defaults, file, environment, keywords: each layer overrides the previous one, key by key."""
    write(tmp_path, 'host = "a"\nport = 1\nruntime = "f"\ngrace = 1')
    config = load_config(
        cwd=tmp_path, environ={"LIGHTWORK_PORT": "2", "LIGHTWORK_RUNTIME": "e"}, overrides={"runtime": "k"}
    )
    assert (config.host, config.port, config.runtime, config.grace) == ("a", 2, "k", 1.0)
    assert config.heartbeat == Config().heartbeat


def test_none_among_the_overrides_is_not_given(tmp_path: Path) -> None:
    """An option missing on the command line leaves the file's value."""
    write(tmp_path, "port = 1")
    assert load_config(cwd=tmp_path, environ={}, overrides={"port": None}).port == 1


def test_the_file_is_the_first_one_upwards(tmp_path: Path) -> None:
    """The search goes up to the first folder with a file; there `lightwork.toml` wins over `pyproject.toml`."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    write(tmp_path, "port = 1")
    assert load_config(cwd=inner, environ={}).port == 1
    write(tmp_path / "a", "[tool.lightwork]\nport = 2", "pyproject.toml")
    assert load_config(cwd=inner, environ={}).port == 2
    write(tmp_path / "a", "port = 3")
    assert load_config(cwd=inner, environ={}).port == 3


def test_a_named_file_is_read_wherever_it_is(tmp_path: Path) -> None:
    """`file` replaces the search and must exist."""
    file = write(tmp_path, "port = 4", "other.toml")
    assert load_config(file=file, cwd="/", environ={}).port == 4
    assert "none.toml" in refused(file=tmp_path / "none.toml")


def test_profiles_and_patterns_come_from_the_file(tmp_path: Path) -> None:
    """Profiles and patterns of a file are read as in the design's example."""
    write(tmp_path, '[runtimes.gpu]\nkind = "ssh"\nhosts = ["h"]\n[works."root.trials.*"]\nruntime = "gpu"')
    config = load_config(cwd=tmp_path, environ={})
    assert config.profile(config.runtime_for("root.trials.0")) == ("ssh", {"hosts": ["h"]})


def test_variables_are_parsed_to_the_type_of_their_key(tmp_path: Path) -> None:
    """Numbers, booleans and levels in any case are parsed; an empty variable counts as not set."""
    environ = {
        "LIGHTWORK_PORT": "7",
        "LIGHTWORK_GRACE": "0.5",
        "LIGHTWORK_JSON_LOGS": "true",
        "LIGHTWORK_LOG_LEVEL": "DEBUG",
        "LIGHTWORK_HOST": "",
        "PORT": "8",
    }
    config = load_config(cwd=tmp_path, environ=environ)
    assert (config.port, config.grace, config.json_logs, config.log_level) == (7, 0.5, True, "debug")
    assert config.host == Config().host


def test_nested_variables_change_one_key_of_a_profile(tmp_path: Path) -> None:
    """A variable changes one key of a profile in the file, whatever case the file uses for it; lists are JSON."""
    write(tmp_path, '[runtimes.GPU]\nkind = "ssh"\nuser = "u"')
    environ = {
        "LIGHTWORK_RUNTIMES__GPU__HOSTS": '["h"]',
        "LIGHTWORK_RUNTIMES__GPU__KIND": "cloud",
        "LIGHTWORK_RUNTIMES__BOX__KIND": "docker",
        "LIGHTWORK_WORKS": '{"root.*": {"runtime": "GPU"}}',
    }
    config = load_config(cwd=tmp_path, environ=environ)
    assert config.runtimes == {"GPU": {"kind": "cloud", "user": "u", "hosts": ["h"]}, "box": {"kind": "docker"}}
    assert config.runtime_for("root.a") == "GPU"


def test_the_suite_s_and_the_launcher_s_variables_are_no_keys(tmp_path: Path) -> None:
    """A process that lightwork started can load a configuration although it carries lightwork's variables."""
    environ = {"LIGHTWORK_LAUNCH": "x", "LIGHTWORK_TEST_SESSION": "y"}
    assert load_config(cwd=tmp_path, environ=environ) == Config()


# --- what is refused ---------------------------------------------------------------------------------


def test_an_unknown_key_names_the_file_and_the_nearest_key(tmp_path: Path) -> None:
    """A misspelt key in the file is an error that names the key, the file and the nearest key."""
    file = write(tmp_path, "prot = 7")
    assert refused(cwd=tmp_path) == f"unknown key prot (in {file}): did you mean 'port'?"


def test_an_unknown_variable_is_named_as_it_is_written(tmp_path: Path) -> None:
    """A misspelt variable is an error that names the variable."""
    said = refused(cwd=tmp_path, environ={"LIGHTWORK_HEARTBEET": "7"})
    assert "LIGHTWORK_HEARTBEET" in said
    assert "did you mean 'heartbeat'?" in said


def test_a_key_that_resembles_none_lists_them(tmp_path: Path) -> None:
    """If no key is similar, the error lists the valid keys."""
    assert "the valid keys are advertise, grace" in refused(cwd=tmp_path, overrides={"zzz": 1})


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"port": 70000}, "port must be an integer from 0 to 65535, got 70000 (from the keyword argument port)"),
        ({"runtimes": 3}, "runtimes must be a table, got 3 (from the keyword argument runtimes)"),
        ({"runtimes": {"gpu": "ssh"}}, "runtimes.gpu must be a table, got 'ssh' (from the keyword argument runtimes)"),
        (
            {"runtimes": {"gpu": {"kind": 3}}},
            "runtimes.gpu.kind = 3 (from the keyword argument runtimes): must be",
        ),
        ({"works": {"root.*": {"runtim": "x"}}}, "did you mean 'runtime'?"),
        ({"works": {"root.*": {"runtime": ""}}}, "works.root.*.runtime must be a non-empty string, got ''"),
        ({"works": {"root.*": {}}}, "works.root.* must have the key 'runtime'"),
    ],
)
def test_a_bad_keyword_names_key_value_and_place(tmp_path: Path, overrides: dict[str, Any], said: str) -> None:
    """An invalid value is reported with its key, the value and its origin."""
    assert said in refused(cwd=tmp_path, overrides=overrides)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("LIGHTWORK_PORT", "x", "port must be an integer from 0 to 65535, got 'x' (from the variable LIGHTWORK_PORT)"),
        (
            "LIGHTWORK_MAX_FRAME",
            "12",
            "max_frame must be a whole number of bytes from 1024 to 4294967295, got '12'",
        ),
        ("LIGHTWORK_GRACE", "-1", "grace must be a number of seconds, at least 0, got '-1' (from"),
        ("LIGHTWORK_GRACE", "inf", "grace must be a finite number of seconds, got 'inf' (from"),
        (
            "LIGHTWORK_LOG_LEVEL",
            "loud",
            "log_level must be one of 'critical', 'debug', 'error', 'info', 'warning'",
        ),
        ("LIGHTWORK_RESUME", "perhaps", "resume must be true or false, got 'perhaps' (from"),
        (
            "LIGHTWORK_HTTP_TOKEN",
            "short",
            "must be 16 to 512 printable ASCII characters without spaces, got 5",
        ),
        ("LIGHTWORK_PORT__X", "1", "port is not a table"),
        ("LIGHTWORK_RUNTIMES__GPU", "ssh", "runtimes.gpu must be valid JSON"),
        ("LIGHTWORK_RUNTIMES__GPU__HOSTS", "[1", "runtimes.gpu.hosts must be valid JSON"),
        ("LIGHTWORK_WORKS__A__RUNTIME__X", "1", "runtime is not a table"),
    ],
)
def test_a_bad_variable_names_key_value_and_place(tmp_path: Path, variable: str, value: str, said: str) -> None:
    """A value that cannot be parsed is reported with its variable."""
    message = refused(cwd=tmp_path, environ={variable: value})
    assert said in message
    assert variable in message


@pytest.mark.parametrize("text", ["port = ", b"\xff\xfe".decode("latin-1")])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, text: str) -> None:
    """A parser error is reported with the name of the file."""
    file = tmp_path / "lightwork.toml"
    file.write_text(text, encoding="latin-1")
    assert str(file) in refused(cwd=tmp_path)


@pytest.mark.parametrize("text", ["tool = 3", "[tool]\nlightwork = 3"])
def test_a_tool_table_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    """`[tool.lightwork]` must be a table."""
    write(tmp_path, text, "pyproject.toml")
    assert "must be a table, got 3" in refused(cwd=tmp_path)


def test_a_pyproject_without_our_table_means_defaults(tmp_path: Path) -> None:
    """A pyproject.toml without our table is not an error."""
    write(tmp_path, "[tool.other]\nport = 3", "pyproject.toml")
    assert load_config(cwd=tmp_path, environ={}) == Config()


# --- options of a runtime ----------------------------------------------------------------------------


def test_options_are_checked_against_the_runtime_s_struct(tmp_path: Path) -> None:
    """Options are converted to the runtime's Struct, numbers from variables included."""
    write(tmp_path, '[runtimes.gpu]\nkind = "ssh"\nhosts = ["h"]')
    config = load_config(cwd=tmp_path, environ={"LIGHTWORK_RUNTIMES__GPU__SLOTS": "3"})
    assert config.options("gpu", GpuOptions) == GpuOptions(["h"], 3)


def test_bad_options_name_key_and_place(tmp_path: Path) -> None:
    """An unknown, invalid or missing option is an error that names the profile, the key and the origin."""
    file = write(tmp_path, '[runtimes.a]\nhots = ["h"]\n[runtimes.b]\nhosts = 3\n[runtimes.c]\nslots = 3')
    config = load_config(cwd=tmp_path, environ={})
    for profile, said in (
        ("a", f"unknown key runtimes.a.hots (in {file}): did you mean 'hosts'?"),
        ("b", f"runtimes.b.hosts = 3 (in {file}): must be a list in which each item is a string"),
        ("c", "runtimes.c must have the key 'hosts'"),
    ):
        with pytest.raises(ConfigError) as caught:
            config.options(profile, GpuOptions)
        assert said in str(caught.value)


def test_the_import_is_cheap() -> None:
    """Importing the configuration loads neither the TOML parser nor an HTTP library."""
    code = (
        "import sys, lightwork.config; sys.exit(bool({'tomllib', 'aiohttp', 'rich', 'difflib'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=Path(__file__).parents[1], check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_former_name_of_a_key_is_taken() -> None:
    """`max_strangers` is the former name of `max_unauthenticated` and still sets it."""
    assert load_config(overrides={"max_strangers": 5}).max_unauthenticated == 5
