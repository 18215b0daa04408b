from __future__ import annotations

import resource
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import msgspec
import pytest

import lightwork.cli.doctor
import lightwork.engine.workers.runtimes
from lightwork.cli.doctor import DoctorReport, examine
from lightwork.runtime import Diagnosable, Finding, Health
from tests.cli.invoke import invoke


class _Options(msgspec.Struct):
    hosts: list[str]


class Healthy:
    Options = _Options

    @classmethod
    async def diagnose(cls, name: str, options: Any) -> Sequence[Finding]:
        return [Finding("engine", Health.OK, f"{name} {options}")]


class Broken(Healthy):
    @classmethod
    async def diagnose(cls, name: str, options: Any) -> Sequence[Finding]:
        raise OSError("no such device")


class Ill(Healthy):
    @classmethod
    async def diagnose(cls, name: str, options: Any) -> Sequence[Finding]:
        return [Finding("engine", Health.PROBLEM, "it is off", "switch it on")]


class Silent:
    Options = _Options


@pytest.fixture(autouse=True)
def _others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runtimes of other packages, and `inprocess`. One of them cannot be imported."""
    places = {name: f"{__name__}:{cls}" for name, cls in (("fine", "Healthy"), ("broken", "Broken"), ("ill", "Ill"))}
    places |= {"silent": f"{__name__}:Silent", "gone": "no_such_module:Runtime"}
    points = {name: EntryPoint(name, value, "lightwork.runtimes") for name, value in places.items()}
    points["inprocess"] = lightwork.engine.workers.runtimes.installed()["inprocess"]
    monkeypatch.setattr(lightwork.engine.workers.runtimes, "installed", lambda: points)
    monkeypatch.setattr(lightwork.cli.doctor, "installed", lambda: points)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTWORK_RUNTIME", "inprocess")


async def reports(*profiles: str) -> dict[str, DoctorReport]:
    return {report.about: report async for report in examine(profiles)}


async def test_every_runtime_is_asked_and_none_hides_another() -> None:
    """A runtime without an import, with a failing diagnosis, or without a diagnosis is a separate finding."""
    found = await reports()
    assert found["runtime fine"].findings == [Finding("engine", Health.OK, "fine None")]
    assert "install lightwork[gone]" in found["runtime gone"].findings[0].detail
    assert "OSError('no such device')" in found["runtime broken"].findings[0].detail
    assert found["runtime silent"].findings[0].health is Health.OK
    assert not any(report.is_ill for report in found.values())


async def test_a_profile_is_looked_at_with_its_options(tmp_path: Path) -> None:
    """A profile of the configuration is checked with its options. Invalid options are a finding."""
    (tmp_path / "lightwork.toml").write_text(
        '[runtimes.a]\nkind = "fine"\nhosts = ["x"]\n[runtimes.b]\nkind = "fine"\nhots = ["x"]\n'
    )
    found = await reports()
    assert "hosts=['x']" in found["runtime a"].findings[0].detail
    assert "did you mean 'hosts'?" in found["runtime b"].findings[0].detail


async def test_only_what_is_used_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime with a problem is reported as ill only if the configuration uses it or the user names it."""
    assert not (await reports())["runtime ill"].is_ill
    assert (await reports("ill"))["runtime ill"].is_ill
    monkeypatch.setenv("LIGHTWORK_RUNTIMES__ILL__HOSTS", '["x"]')
    monkeypatch.setenv("LIGHTWORK_RUNTIME", "ill")
    assert (await reports())["runtime ill"].is_ill


def test_the_exit_code_says_whether_something_needed_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code is 0 without a problem of a needed runtime and 1 with one, in both output formats."""
    assert invoke("doctor").code == 0
    done = invoke("doctor", "ill")
    assert done.code == 1
    assert "problem  engine" in done.out
    assert "-> switch it on" in done.out
    done = invoke("doctor", "ill", "-o", "json")
    assert done.code == 1
    assert done.json["ok"] is False
    assert {
        "about": "runtime ill",
        "needed": True,
        "what": "engine",
        "health": "problem",
        "detail": "it is off",
    }.items() <= (done.json["items"][-1].items())


async def test_a_wrong_configuration_is_a_finding(tmp_path: Path) -> None:
    """With an invalid configuration file the doctor still checks everything else."""
    (tmp_path / "lightwork.toml").write_text("prot = 1")
    found = await reports()
    assert found["lightwork"].is_ill
    assert any("did you mean 'port'?" in finding.detail for finding in found["lightwork"].findings)
    assert "runtime fine" in found


async def test_few_open_files_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """A low limit is reported with the command that raises it."""
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 4096))
    (finding,) = [one for one in (await reports())["lightwork"].findings if one.what == "open files"]
    assert finding.health is Health.WARNING
    assert finding.fix == "ulimit -n 4096"


async def test_tls_without_cryptography_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address off loopback needs the package that makes the certificate of the link."""
    monkeypatch.setenv("LIGHTWORK_HOST", "0.0.0.0")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (finding,) = [one for one in (await reports())["lightwork"].findings if one.what == "tls"]
    assert "lightwork[tls]" in finding.fix


@pytest.mark.parametrize("kind", ["local", "docker", "ssh", "cloud", "inprocess"])
def test_our_runtimes_offer_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each runtime of lightwork has a diagnosis."""
    monkeypatch.undo()
    assert isinstance(lightwork.engine.workers.runtimes.installed()[kind].load(), Diagnosable)
