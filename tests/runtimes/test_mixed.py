"""One app whose works run on three runtimes at the same time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lightwork import App, Flow
from lightwork.config import Config, WorkProfile
from lightwork.runtime import Runtime
from lightwork_runtimes.docker import DockerOptions, DockerRuntime
from tests.runtimes.docker_base import base_image, require_engine
from tests.runtimes.docker_support import forget_images
from tests.runtimes.mixed_works import Relay
from tests.runtimes.sshd import needs_sshd, sshd

require_engine()

pytestmark = [needs_sshd, pytest.mark.timeout(180)]


class Mixed(Flow):
    """Passes a text from work to work."""

    def __init__(self) -> None:
        super().__init__()
        self.here = Relay()
        self.box = Relay()
        self.farm = Relay()
        self.text = ""

    async def run(self) -> None:
        text = "start"
        for _ in range(2):
            for work in (self.here, self.box, self.farm):
                text = await work.run(text)
        self.text = text
        self.stop("round twice")


async def test_one_app_on_local_docker_and_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration assigns each work to a runtime; calls and state go through one flow."""
    folder = tmp_path / "app"
    folder.mkdir()
    monkeypatch.chdir(folder)
    works = {"root.box": WorkProfile(runtime="box"), "root.farm": WorkProfile(runtime="farm")}
    config = Config(host="0.0.0.0", launch_timeout=120, works=works, grace=30)
    tests = str(Path(__file__).parents[1])
    async with sshd(tmp_path) as server:
        box = DockerRuntime("box", DockerOptions(image=base_image(), pull="never", folder=tests))
        farm = server.runtime(code=[str(Path(tests).parent)])
        places: dict[str, Runtime] = {"box": box, "farm": farm}
        root = Mixed()
        try:
            async with App(root, config=config, runtimes=places) as app:
                async with asyncio.timeout(150):
                    await app.wait_for(lambda: root.text != "")
                assert root.text == "start > local > docker > ssh > local > docker > ssh"
                assert [work.count for work in (root.here, root.box, root.farm)] == [2, 2, 2]
        finally:
            forget_images(box)
        assert server.launches() == []
