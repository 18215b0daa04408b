from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lightwork.runtime import Finding, Health
from lightwork_runtimes.inprocess import InProcessRuntime
from lightwork_runtimes.local import LocalOptions, LocalRuntime


def by_name(findings: object) -> dict[str, Finding]:
    return {finding.what: finding for finding in msgspec.convert(findings, list[Finding])}


async def test_local_is_well_here(tmp_path: Path) -> None:
    """On this machine nothing is missing, and the diagnosis makes no files."""
    home = tmp_path / "home"
    found = by_name(await LocalRuntime.diagnose("local", LocalOptions(home=str(home))))
    assert {finding.health for finding in found.values()} == {Health.OK}
    assert not home.exists()
    assert by_name(await InProcessRuntime.diagnose("inprocess", None))["process"].health is Health.OK


async def test_local_without_an_installer_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without uv and pip the installer is a warning: only works with requirements cannot start."""
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = by_name(await LocalRuntime.diagnose("local", None))
    assert found["installer"].health is Health.WARNING


async def test_local_with_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    """A home below a file is a problem whose fix names the key."""
    (tmp_path / "file").write_text("")
    (tmp_path / "file").chmod(0o400)
    found = by_name(await LocalRuntime.diagnose("local", LocalOptions(home=str(tmp_path / "file" / "home"))))
    assert found["folder"].health is Health.PROBLEM
    assert "`home`" in found["folder"].fix


async def test_docker_without_an_engine(tmp_path: Path) -> None:
    """An engine that does not answer is a problem, and the finding has the engine's address."""
    pytest.importorskip("aiodocker")
    from lightwork_runtimes.docker import DockerOptions, DockerRuntime

    options = DockerOptions(host=f"unix://{tmp_path}/engine.sock")
    found = by_name(await DockerRuntime.diagnose("docker", options))
    assert found["client library"].health is Health.OK
    assert found["engine"].health is Health.PROBLEM
    assert f"{tmp_path}/engine.sock" in found["engine"].detail


async def test_cloud_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing credentials are a problem that names the variable; without a profile they are not checked."""
    pytest.importorskip("libcloud")
    pytest.importorskip("asyncssh")
    from lightwork_runtimes.cloud import CloudOptions, CloudRuntime

    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    options = CloudOptions(provider="ec2", image="ami-1", username="ubuntu", sizes={"default": "t3.medium"})
    found = by_name(await CloudRuntime.diagnose("gpu", options))
    assert found["account"].health is Health.PROBLEM
    assert "the variable AWS_ACCESS_KEY_ID is not set" in found["account"].detail
    assert by_name(await CloudRuntime.diagnose("gpu", None)).keys() == {"client library"}


async def test_a_missing_client_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its client library a runtime's first finding is a problem whose fix installs the extra."""
    from lightwork_runtimes.cloud import CloudRuntime
    from lightwork_runtimes.docker import DockerRuntime
    from lightwork_runtimes.ssh import SshRuntime

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "aiodocker", None)
    kinds = (SshRuntime, DockerRuntime, CloudRuntime)
    for findings in [await kind.diagnose("profile", None) for kind in kinds]:
        finding = findings[0]
        assert finding.health is Health.PROBLEM
        assert finding.fix.startswith('pip install "lightwork[')
