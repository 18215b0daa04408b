"""The parts of the docker runtime that need no engine."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lightwork.compute import CloudCompute, Mount
from lightwork.config import load_config
from lightwork.errors import ConfigError, PlatformError, UsageError
from lightwork.runtime import Cause, Rejected, Spec, Standing
from lightwork_runtimes.docker import DockerOptions, Machine
from lightwork_runtimes.docker._address import find_engine
from lightwork_runtimes.docker._code import code_roots
from lightwork_runtimes.docker._container import check_spec, describe
from lightwork_runtimes.docker._report import report_of


def make_spec(**changes: Any) -> Spec:
    return Spec(**{"name": "a", "owner": "o", "entry": "m:f", "ticket": b"secret", **changes})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("imag", "x", "did you mean 'image'"),
        ("memory", 1, "runtimes.box.memory"),
        ("cpus", 0, "runtimes.box.cpus"),
        ("gpus", "some", "runtimes.box.gpus"),
        ("pull", "often", "runtimes.box.pull"),
        ("host", "ssh://there", "unix:///path or tcp://host:port"),
        ("machines", {"big": {"memroy": 100}}, "memroy"),
    ],
)
def test_bad_option_is_named(key: str, value: object, said: str, tmp_path: Path) -> None:
    """An unknown key and a bad value are errors that name the key."""
    profile = {"kind": "docker", key: value}
    config = load_config(environ={}, overrides={"runtimes": {"box": profile}}, cwd=tmp_path)
    with pytest.raises(ConfigError, match=said):
        config.options("box", DockerOptions)


def test_engine_is_found_as_docker_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The profile comes before DOCKER_HOST, DOCKER_HOST before DOCKER_CONTEXT, and that before the chosen context."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert find_engine(DockerOptions()).url.startswith("unix://")
    for context in ("chosen", "named"):
        folder = tmp_path / "contexts" / "meta" / hashlib.sha256(context.encode()).hexdigest()
        folder.mkdir(parents=True)
        meta = {"Name": context, "Endpoints": {"docker": {"Host": f"tcp://{context}:2376", "SkipTLSVerify": True}}}
        (folder / "meta.json").write_text(json.dumps(meta))
    tls = tmp_path / "contexts" / "tls" / hashlib.sha256(b"named").hexdigest() / "docker"
    tls.mkdir(parents=True)
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": "chosen"}))
    assert find_engine(DockerOptions()).url == "tcp://chosen:2376"
    monkeypatch.setenv("DOCKER_CONTEXT", "named")
    named = find_engine(DockerOptions())
    assert (named.url, named.tls, named.verify, named.is_here) == ("tcp://named:2376", str(tls), False, False)
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:2375")
    assert find_engine(DockerOptions()).is_here
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    assert find_engine(DockerOptions()).tls == str(tmp_path)
    assert find_engine(DockerOptions(context="chosen")).url == "tcp://chosen:2376"
    assert find_engine(DockerOptions(host="unix:///x.sock", tls="/certs")).socket == "/x.sock"
    with pytest.raises(PlatformError, match=r"Docker context 'other' not found \(from `context` of the profile\)"):
        find_engine(DockerOptions(context="other"))
    monkeypatch.setenv("DOCKER_HOST", "ssh://me@there")
    with pytest.raises(PlatformError, match="use the runtime `ssh`"):
        find_engine(DockerOptions())


def test_certificates_that_are_not_there(tmp_path: Path) -> None:
    """Missing certificates are an error that names their folder."""
    address = find_engine(DockerOptions(host="tcp://there:2376", tls=str(tmp_path)))
    with pytest.raises(PlatformError, match=str(tmp_path)):
        address.ssl_context()


def test_machine_by_name() -> None:
    """A machine of the profile's table sets the limits. An unknown one is rejected with the names of the known ones."""
    options = DockerOptions(memory=100, machines={"big": Machine(cpus=1.5, gpus="all")})
    plain = describe(make_spec(), options, "image", None)["HostConfig"]
    assert (plain["Memory"], plain["MemorySwap"]) == (100 * 2**20, 100 * 2**20)
    big = describe(make_spec(compute=CloudCompute("big", disk_size=20)), options, "image", None)["HostConfig"]
    assert "Memory" not in big
    assert big["NanoCpus"] == 1_500_000_000
    assert big["DeviceRequests"] == [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]
    assert big["StorageOpt"] == {"size": "20G"}
    with pytest.raises(Rejected, match=r"'huge'.*only: big"):
        describe(make_spec(compute=CloudCompute("huge")), options, "image", None)


def test_mounts_are_paths_and_volumes() -> None:
    """An absolute path is a bind mount, a name is a volume, anything else is rejected."""
    mounts = [Mount("/data", "/a"), Mount("cache", "/b")]
    host = describe(make_spec(compute=CloudCompute(mounts=mounts)), DockerOptions(), "image", None)["HostConfig"]
    assert [(mount["Type"], mount["Source"]) for mount in host["Mounts"]] == [("bind", "/data"), ("volume", "cache")]
    compute = CloudCompute(mounts=Mount("s3://bucket", "/a"))
    with pytest.raises(Rejected, match="s3://bucket"):
        describe(make_spec(compute=compute), DockerOptions(), "image", None)


def test_ticket_is_not_described() -> None:
    """A container's description does not have the ticket. Its labels name the owner from the start."""
    config = describe(make_spec(), DockerOptions(), "image", "127.0.0.1")
    assert "secret" not in json.dumps(config)
    assert config["Labels"]["lightwork.owner"] == "o"


def test_port_of_the_work_is_published() -> None:
    """The port of the work is published if it names one, otherwise 8000."""
    for port, inside in ((None, 8000), (9000, 9000)):
        config = describe(make_spec(port=port), DockerOptions(), "image", "127.0.0.1")
        assert list(config["HostConfig"]["PortBindings"]) == list(config["ExposedPorts"]) == [f"{inside}/tcp"]
        (service,) = [line for line in config["Env"] if line.startswith("_LIGHTWORK_SERVICE=")]
        assert service.startswith(f"_LIGHTWORK_SERVICE=0.0.0.0,{inside},http://127.0.0.1:")


@pytest.mark.parametrize(
    "changes", [{"name": "a b"}, {"owner": ""}, {"entry": "main"}, {"env": {"A=B": "x"}}, {"name": "../x"}]
)
def test_bad_spec_is_rejected(changes: dict[str, Any]) -> None:
    """A name, entry or variable that no container can have is refused before anything is created."""
    with pytest.raises(Rejected):
        check_spec(make_spec(**changes))


def container(status: str, code: int = 0, **state: Any) -> dict[str, Any]:
    times = {"StartedAt": "2026-01-01T00:00:00.123456789Z", "FinishedAt": "2026-01-01T00:00:05.5Z"}
    return {
        "Id": "0123456789abcdef",
        "Config": {"Labels": {"lightwork.owner": "o", "lightwork.lifetime": state.pop("lifetime", "")}},
        "HostConfig": {"Memory": 0},
        "State": {"Status": status, "ExitCode": code, "Error": "", "OOMKilled": False, **times, **state},
    }


@pytest.mark.parametrize(
    ("given", "stopped", "expected"),
    [
        (None, False, (Standing.ABSENT, None, None)),
        (container("created"), False, (Standing.PENDING, None, None)),
        (container("created", 127, Error="no python"), False, (Standing.EXITED, None, Cause.START_FAILED)),
        (container("running"), True, (Standing.RUNNING, None, None)),
        (container("paused"), False, (Standing.RUNNING, None, None)),
        (container("exited", 3), False, (Standing.EXITED, 3, Cause.EXIT)),
        (container("exited", 143), True, (Standing.EXITED, -15, Cause.STOPPED)),
        (container("exited", 137), False, (Standing.EXITED, -9, Cause.EXIT)),
        (container("exited", 137, OOMKilled=True), False, (Standing.EXITED, -9, Cause.OOM)),
        (container("exited", 0, OOMKilled=True), False, (Standing.EXITED, 0, Cause.EXIT)),
        (container("exited", 137, lifetime="5"), False, (Standing.EXITED, -9, Cause.LIFETIME)),
        (container("exited", 137, lifetime="6"), False, (Standing.EXITED, -9, Cause.EXIT)),
        (container("removing", 0, StartedAt="0001-01-01T00:00:00Z"), False, (Standing.ABSENT, None, None)),
        (container("exited", 255), False, (Standing.EXITED, 255, Cause.EXIT)),
    ],
)
def test_report(given: dict[str, Any] | None, stopped: bool, expected: tuple[object, ...]) -> None:
    """Each state that the engine describes becomes the right report."""
    report = report_of(given, stopped)
    assert (report.standing, report.exit_code, report.cause) == expected


def test_code_is_looked_for_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of the path outside of the app's are sent too, except those of packages, Python and lightwork."""
    for name in ("app/sub", "libs", "env/lib/site-packages"):
        (tmp_path / name).mkdir(parents=True)
    paths = [str(tmp_path / name) for name in ("app", "app/sub", "libs", "env/lib/site-packages", "gone")]
    monkeypatch.setattr(sys, "path", [*sys.path, *paths])
    roots = code_roots(str(tmp_path / "app"))
    assert [root for root in roots if root.startswith(str(tmp_path))] == [paths[0], paths[2]]
    import lightwork

    assert str(Path(lightwork.__file__).parents[1]) not in roots
    with pytest.raises(UsageError, match="start the app from a separate folder"):
        code_roots(str(Path.home()))


def test_missing_client_names_the_extra() -> None:
    """Without aiodocker the runtime can be imported and configured; entering it names the extra to install."""
    program = """if True:
        import asyncio, sys
        sys.modules["aiodocker"] = None
        from lightwork_runtimes.docker import DockerRuntime
        try:
            asyncio.run(DockerRuntime().__aenter__())
        except Exception as error:
            print(type(error).__name__, error)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("PlatformError ")
    assert "install lightwork[docker]" in done.stdout


def test_options_are_data() -> None:
    """The options can be encoded, like every Struct of the configuration."""
    options = DockerOptions(machines={"big": Machine(memory=100)})
    assert msgspec.json.decode(msgspec.json.encode(options), type=DockerOptions) == options
