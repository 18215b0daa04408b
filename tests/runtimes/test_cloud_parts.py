"""The parts of the cloud runtime that need no machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lightwork.config import Config
from lightwork.errors import ConfigError
from lightwork.runtime import NoCapacity, Rejected, Spec, Unreachable

pytest.importorskip("libcloud")
pytest.importorskip("asyncssh")

from libcloud.common import exceptions
from libcloud.common.types import InvalidCredsError, MalformedResponseError

from lightwork_runtimes.cloud import CloudOptions, CloudRuntime, _errors, _hostkeys, _ordering, _userdata
from lightwork_runtimes.cloud._credentials import Credentials
from lightwork_runtimes.cloud._lease import Leases

refused: Any = exceptions.BaseHTTPError

PROFILE: dict[str, Any] = {
    "kind": "cloud",
    "provider": "ec2",
    "image": "ami-1",
    "username": "admin",
    "sizes": {"default": "t3.small"},
}


def options(**changes: Any) -> CloudOptions:
    fields = {key: value for key, value in PROFILE.items() if key != "kind"}
    return CloudOptions(**{**fields, **changes})


# --- options --------------------------------------------------------------------------------------


def test_defaults_of_ec2() -> None:
    """For ec2 the usual variables hold the credentials, and an interruptible machine is a spot machine."""
    found = Config(runtimes={"gpu": PROFILE}).options("gpu", CloudOptions)
    assert found.credentials == {"key": "env:AWS_ACCESS_KEY_ID", "secret": "env:AWS_SECRET_ACCESS_KEY"}
    assert found.interruptible == {"ex_spot": True}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"provider": ""}, "runtimes.gpu: provider must not be empty"),
        ({"username": "Robert'); --"}, "runtimes.gpu: username"),
        ({"folder": "a b"}, "runtimes.gpu: folder"),
        ({"sizes": {}}, "runtimes.gpu: sizes"),
        ({"max_lifetime": -1}, "runtimes.gpu: max_lifetime"),
        ({"boot_timeout": 0}, "runtimes.gpu: boot_timeout"),
        ({"port": 70000}, "runtimes.gpu: port"),
        ({"host_keys": "known"}, "runtimes.gpu: known_hosts"),
        ({"known_hosts": "x"}, "runtimes.gpu: known_hosts"),
        ({"host_keys": "off"}, r"runtimes.gpu.host_keys = 'off'"),
        ({"regoin": "x"}, r"runtimes.gpu.regoin.*did you mean 'region'"),
        ({"driver": {"secret": "hush-hush"}}, r"runtimes.gpu: driver.secret: name its source in credentials.secret"),
        ({"credentials": {"secret": "hush-hush"}}, "runtimes.gpu: credentials.secret must name the value's source"),
    ],
)
def test_bad_values_name_profile_and_key(changes: dict[str, Any], says: str) -> None:
    """A bad key or value is an error when the configuration is read; a secret in the wrong place is not repeated."""
    with pytest.raises(ConfigError, match=says) as caught:
        Config(runtimes={"gpu": {**PROFILE, **changes}}).options("gpu", CloudOptions)
    assert "hush-hush" not in str(caught.value)


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the client library the error names the extra to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"install lightwork\[cloud\]"):
        CloudRuntime("gpu", options())


# --- credentials ----------------------------------------------------------------------------------


def test_credentials_show_in_no_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A credential is in no repr and in no scrubbed text, neither in plain nor in URL-quoted form."""
    (tmp_path / "secret").write_text("s3cr+t/ value=\n")
    (tmp_path / "secret").chmod(0o600)
    monkeypatch.setenv("CLOUD_KEY", "AKIAEXAMPLE")
    found = Credentials("runtimes.gpu", {"key": "env:CLOUD_KEY", "secret": f"file:{tmp_path}/secret"})
    assert found.arguments() == {"key": "AKIAEXAMPLE", "secret": "s3cr+t/ value="}
    assert repr(found) == "Credentials(key, secret)"
    said = "AKIAEXAMPLE s3cr+t/ value= s3cr%2Bt%2F%20value%3D s3cr%2Bt%2F+value%3D"
    assert found.scrub(said) == "*** *** *** ***"


def test_credentials_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that is not set, missing, empty or readable by others is refused, with the key and what to do."""
    monkeypatch.delenv("CLOUD_KEY", raising=False)
    (tmp_path / "open").write_text("secret")
    (tmp_path / "open").chmod(0o644)
    (tmp_path / "empty").touch(0o600)
    for source, says in [
        ("env:CLOUD_KEY", r"runtimes.gpu: credentials.key: the variable CLOUD_KEY is not set"),
        (f"file:{tmp_path}/none", "No such file"),
        (f"file:{tmp_path}/empty", "is empty"),
        (f"file:{tmp_path}/open", "chmod 600"),
    ]:
        with pytest.raises(Rejected, match=says):
            Credentials("runtimes.gpu", {"key": source})


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (refused(400, "InsufficientInstanceCapacity: no t3 now"), NoCapacity),
        (refused(400, "InstanceLimitExceeded: you have 20"), NoCapacity),
        (refused(400, "VcpuLimitExceeded: more than 0"), NoCapacity),
        (refused(400, "SpotMaxPriceTooLow: x"), NoCapacity),
        (refused(503, "RequestLimitExceeded: slow down"), NoCapacity),
        (refused(403, "Quota exceeded for cores"), NoCapacity),
        (refused(429, "Rate limit exceeded"), NoCapacity),
        (refused(400, "InvalidAMIID.NotFound: no such image"), Rejected),
        (refused(403, "UnauthorizedOperation: you may not"), Rejected),
        (InvalidCredsError("AuthFailure: wrong"), Rejected),
        (TypeError("unexpected keyword"), Rejected),
        (refused(500, "InternalError: sorry"), Unreachable),
        (MalformedResponseError("no XML"), Unreachable),
        (ConnectionResetError("reset"), Unreachable),
        (TimeoutError("slow"), Unreachable),
    ],
)
def test_what_an_error_means(error: Exception, kind: type[Exception]) -> None:
    """A lack of capacity may pass, a refusal will not, and a missing answer leaves the outcome open."""
    found = _errors.explain("runtimes.gpu", "to create a machine", error, str(error))
    assert type(found) is kind
    assert str(error) in str(found)
    assert str(found).startswith("runtimes.gpu: ")


# --- host keys ------------------------------------------------------------------------------------


def test_printed_keys_are_the_last_whole_ones() -> None:
    """The host keys are the last ones that were printed completely; other lines between the markers are ignored."""
    begin, end = _userdata.BEGIN_KEYS, _userdata.END_KEYS
    text = f"boot\r\n{begin}\r\nssh-ed25519 AAAA1 root@a\r\n{end}\r\n"
    assert _hostkeys.printed_keys(text) == ["ssh-ed25519 AAAA1"]
    text += f"{begin}\nnoise\nssh-rsa AAAA2== root@a\necdsa-sha2-nistp256 AAAA3= x\n{end}\nlogin:"
    assert _hostkeys.printed_keys(text) == ["ssh-rsa AAAA2==", "ecdsa-sha2-nistp256 AAAA3="]
    assert _hostkeys.printed_keys(text + begin + "\nssh-rsa AAAA4") == []
    assert _hostkeys.printed_keys("") == []


def test_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    """Without client_keys a key is created that only its owner can read; the next runtime uses the same key."""
    chosen = options(state=str(tmp_path / "state"))
    (file,), (public,) = _hostkeys.login_keys("runtimes.gpu", chosen)
    assert Path(file).stat().st_mode & 0o077 == 0
    assert public.startswith("ssh-ed25519 ")
    assert _hostkeys.login_keys("runtimes.gpu", chosen) == ([file], [public])
    with pytest.raises(Rejected, match=r"client_keys: .*none"):
        _hostkeys.login_keys("runtimes.gpu", options(client_keys=[str(tmp_path / "none")]))


# --- leases ---------------------------------------------------------------------------------------


def test_lease_lives_as_long_as_its_process(tmp_path: Path) -> None:
    """An owner lives while its process holds the lease, whatever ends the process; a dead one's file is removed."""
    chosen = options(state=str(tmp_path))
    code = (
        "import sys, msgspec\nfrom lightwork_runtimes.cloud import CloudOptions\n"
        "from lightwork_runtimes.cloud._lease import Leases\n"
        "leases = Leases(msgspec.json.decode(sys.argv[1], type=CloudOptions)); leases.hold('one')\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, msgspec.json.encode(chosen).decode()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    watcher = Leases(chosen)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert watcher.lives("one")
        assert not watcher.lives("two")
        process.kill()
        process.wait()
    assert not watcher.lives("one")
    assert list((tmp_path / "owners").iterdir()) == []


def test_lease_of_several_runtimes(tmp_path: Path) -> None:
    """Two runtimes of one scheduler hold its lease; it lives until both have released it."""
    first, second, watcher = (Leases(options(state=str(tmp_path))) for _ in range(3))
    for leases in (first, first, second):
        leases.hold("one")
    first.drop()
    assert watcher.lives("one")
    second.drop()
    assert not watcher.lives("one")


# --- orders ---------------------------------------------------------------------------------------


def test_order_has_no_secret_and_a_name_that_clouds_take() -> None:
    """Neither the user data nor a tag reveals the ticket; the name is short, plain and unique."""
    ticket = b"the secret of the launch"
    base = Spec(
        name="lw1-root.Trials.0-3-1",
        owner="lw1",
        entry="a:b",
        ticket=ticket,
        env={"LIGHTWORK_WORK": "root.Trials.0", "TOKEN": "hush"},
    )
    order = _ordering.order_for("gpu", options(), ["ssh-ed25519 AAAA x"], base, "digest")
    text = repr(order)
    assert "hush" not in text
    assert ticket.decode() not in text
    assert order.name.startswith("lightwork-root-trials-0-")
    assert len(order.name) <= 63
    assert (order.tags["owner"], order.tags["name"], order.tags["work"]) == ("lw1", base.name, "root.Trials.0")
    other = msgspec.structs.replace(base, name="lw1-root.Trials.0-3-2")
    assert _ordering.order_for("gpu", options(), [], other, "digest").name != order.name
    assert len(order.user_data.encode()) < 6000


def test_machine_outlives_no_limit_that_it_was_given() -> None:
    """The profile's max_lifetime is for the machine, a spec's is extended by the launch; the shorter one counts."""
    spec = Spec(name="a", owner="o", entry="a:b", ticket=b"", max_lifetime=10.0)
    assert "lifetime=600\n" in _ordering.order_for("gpu", options(max_lifetime=600), [], spec, "d").user_data
    coming = 180 + 300 + 900
    assert f"lifetime={coming + 10 + 60}\n" in _ordering.order_for("gpu", options(), [], spec, "d").user_data
    free = msgspec.structs.replace(spec, max_lifetime=None)
    assert "lifetime=0\n" in _ordering.order_for("gpu", options(), [], free, "d").user_data
