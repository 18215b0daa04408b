from __future__ import annotations

from pathlib import Path

import pytest

from lightwork.cli.config import hidden
from lightwork.config import Config, Origin
from tests.cli.invoke import invoke


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_each_key_has_its_value_and_where_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key from a file, a variable, a profile, or the defaults is shown with its source."""
    (tmp_path / "lightwork.toml").write_text('port = 7000\n[runtimes.gpu]\nkind = "ssh"\nhosts = ["a"]\n')
    monkeypatch.setenv("LIGHTWORK_GRACE", "2.5")
    done = invoke("config", "view", "-o", "json")
    where = {row["key"]: (row["value"], row["where"]) for row in done.json["items"]}
    file = tmp_path / "lightwork.toml"
    assert done.json["file"] == str(file)
    assert where["port"] == (7000, f"in {file}")
    assert where["grace"] == (2.5, "from the variable LIGHTWORK_GRACE")
    assert where["runtimes.gpu.hosts"] == (["a"], f"in {file}")
    assert where["host"] == ("127.0.0.1", "default")
    assert {key.partition(".")[0] for key in where} == set(Config.__struct_fields__)


def test_only_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """--changed leaves out the defaults. A missing file is reported on standard error."""
    monkeypatch.setenv("LIGHTWORK_GRACE", "2.5")
    done = invoke("config", "view", "--changed")
    assert [line.split() for line in done.out.splitlines()] == [
        ["KEY", "VALUE", "WHERE"],
        ["grace", "2.5", "from", "the", "variable", "LIGHTWORK_GRACE"],
    ]
    assert "no lightwork.toml" in done.err


def test_a_configuration_that_is_wrong_gives_2(tmp_path: Path) -> None:
    """An error in the file is explained, and the exit code is that of a usage error."""
    (tmp_path / "lightwork.toml").write_text("prot = 1")
    done = invoke("config", "view")
    assert done.code == 2
    assert "did you mean 'port'?" in done.err


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("http_token", "abc", "********"),
        ("http_token", None, None),
        ("runtimes.cloud.secret", "abc", "********"),
        ("runtimes.cloud.credentials", {"key": "env:ID", "secret": "abc"}, {"key": "env:ID", "secret": "********"}),
        ("runtimes.cloud.api_key", "abc", "********"),
        ("runtimes.x.env", {"AWS_SECRET_KEY": "abc", "A": "x"}, {"AWS_SECRET_KEY": "********", "A": "x"}),
        ("runtimes.x.index", "https://me:abc@host/simple", "https://********@host/simple"),
        ("runtimes.x.passwords", ["abc"], "********"),
        ("runtimes.x.urls", ["https://me:abc@host"], ["https://********@host"]),
        ("runtimes.ssh.client_keys", ["~/.ssh/id"], ["~/.ssh/id"]),
        ("runtimes.ssh.keepalive", 5.0, 5.0),
        ("runtimes.ssh.hosts", ["me@10.0.0.4"], ["me@10.0.0.4"]),
    ],
)
def test_secrets_are_hidden(key: str, value: object, shown: object) -> None:
    """Values with a secret key, and logins in URLs, are masked. A missing value is not masked."""
    assert hidden(Origin(key, value, "default")).value == shown


def test_variables_that_name_an_app_are_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that select an app do not make the configuration invalid."""
    for name in ("APP", "URL", "TOKEN"):
        monkeypatch.setenv(f"LIGHTWORK_{name}", "x")
    assert invoke("config", "view").code == 0
