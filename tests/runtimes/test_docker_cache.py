"""The images that the docker runtime keeps, with a real engine."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lightwork.build import BuildConfig
from lightwork.runtime import Cached
from lightwork_runtimes.docker import DockerRuntime
from lightwork_runtimes.docker._images import Images
from tests.runtimes.docker_base import docker, require_engine
from tests.runtimes.docker_support import Folder, docker_runtime, first_output

require_engine()

ENTRY = "lightwork.testing.conformance:main"

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the records of last use in a folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "app")


async def of(runtime: DockerRuntime, repository: str, folder: Folder | None = None) -> list[Cached]:
    """Return the entries of a repository; with `folder`, only those with the code of that folder."""
    found = [entry for entry in await runtime.cached() if entry.name.startswith(f"{repository}:")]
    return [entry for entry in found if folder is None or str(folder.path) in entry.detail.split(", ")]


async def test_image_is_kept_while_a_container_uses_it(folder: Folder) -> None:
    """An app's image and its environment are in use while they have a container, and can be removed afterwards."""
    build = _commands(f"echo {folder.owner}")  # so that no other test uses the environment
    async with docker_runtime(folder.owner) as runtime:
        ref = await runtime.launch(folder.spec("wait", build=build))
        await first_output(runtime, ref)
        (app,) = await of(runtime, "lightwork-app", folder)
        assert (app.kind, app.in_use, app.unused_for) == ("image", True, 0)
        assert app.place.startswith("unix://")
        assert not await runtime.discard(app)
        env = await _environment_of(runtime, app)
        assert env.in_use
        assert not await runtime.discard(env)
        assert 0 < app.size < env.size
        await runtime.release(ref)
        (app,) = await of(runtime, "lightwork-app", folder)
        assert not app.in_use
        env = await _environment_of(runtime, app)
        assert not env.in_use
        assert not await runtime.discard(env)  # the app's image is built on it
        signs = folder.path.parent / "cache" / "lightwork" / "docker"
        (next(signs.iterdir()) / "lightwork-app:removed-otherwise").touch()
        assert await runtime.discard(app)
        assert [sign.name for sign in signs.glob("*/*")] == [env.name]
        assert await runtime.discard(env)
        assert await runtime.discard(env)
        names = {entry.name for entry in await runtime.cached()}
        assert not names & {app.name, env.name}
        assert list(signs.glob("*/*")) == []


async def test_what_is_built_on_others_comes_first(folder: Folder) -> None:
    """All images can be discarded in the listed order: apps, environments, bases."""
    async with docker_runtime(folder.owner) as runtime:
        await runtime.wait(await runtime.launch(folder.spec("exit 0", entry=ENTRY)))
        kinds = [entry.name.partition(":")[0] for entry in await runtime.cached()]
        order = ["lightwork-app", "lightwork-env", "lightwork-base"]
        assert kinds == sorted(kinds, key=order.index)
        assert {"lightwork-app", "lightwork-env"} <= set(kinds)


async def test_last_use_is_remembered(folder: Folder) -> None:
    """An image is unused since its last launch from here; without a known launch, since it was built."""
    async with docker_runtime(folder.owner) as runtime:
        ref = await runtime.launch(folder.spec("exit 0", entry=ENTRY))
        await runtime.release(ref)
        (app,) = await of(runtime, "lightwork-app", folder)
        (sign,) = (folder.path.parent / "cache").glob(f"lightwork/docker/*/{app.name}")
        day_ago = time.time() - 86400
        os.utime(sign, (day_ago, day_ago))
        (app,) = await of(runtime, "lightwork-app", folder)
        assert app.unused_for is not None
        assert app.unused_for < 3600  # it has just been built
        await runtime.release(await runtime.launch(folder.spec("exit 0", entry=ENTRY)))
        assert sign.stat().st_mtime > day_ago + 80000


@pytest.mark.parametrize("what", ["lightwork-app", "lightwork-env"])
async def test_launch_that_finds_its_image_gone_makes_it_again(
    what: str, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that is removed after a launch found it, and before that launch uses it, is built again."""
    build = _commands(f"echo {folder.owner}")
    async with docker_runtime(folder.owner) as runtime:
        await runtime.wait(await runtime.launch(folder.spec("exit 0", entry=ENTRY, build=build)))
        (app,) = await of(runtime, "lightwork-app", folder)
        env = await _environment_of(runtime, app)
        for ref in await runtime.find(folder.owner):
            await runtime.release(ref)
        if what == "lightwork-env":
            assert await runtime.discard(app)
        async with docker_runtime(folder.owner) as other:
            find = other._docker.image
            left = [app if what == "lightwork-app" else env]

            async def removed_after(name: str) -> object:
                found = await find(name)
                if left and name == left[0].name and found is not None:
                    assert await runtime.discard(left.pop())
                return found

            monkeypatch.setattr(other._docker, "image", removed_after)
            ref = await other.launch(folder.spec("exit 4", entry=ENTRY, build=build))
            assert (await other.wait(ref)).exit_code == 4
            assert left == []
    docker("rmi", "--force", env.name)


async def test_strangers_images_are_neither_listed_nor_removed(folder: Folder) -> None:
    """An image that lightwork has not built is not listed and never removed."""
    async with docker_runtime(folder.owner) as runtime:
        base = runtime.options.base_image
        entries = await runtime.cached()
        assert base not in {entry.name for entry in entries}
        place = runtime._docker.address.url
        stranger = Cached(kind="image", name=base, place=place, size=0, unused_for=None, in_use=False)
        assert await runtime.discard(stranger)
        assert docker("images", "--quiet", base)


async def test_folder_that_cannot_be_written_is_no_matter(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no record of use can be written, works run all the same, and an image's last use is its creation."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    async with docker_runtime(folder.owner) as runtime:
        assert (await runtime.wait(await runtime.launch(folder.spec("exit 3", entry=ENTRY)))).exit_code == 3
        (app,) = await of(runtime, "lightwork-app", folder)
        assert app.unused_for is not None
        assert isinstance(runtime._images, Images)


def _commands(command: str) -> BuildConfig:
    class Commands(BuildConfig):
        def build_commands(self) -> list[str]:
            return [command]

    return Commands()


async def _environment_of(runtime: DockerRuntime, app: Cached) -> Cached:
    """Return the environment that an app's image was built on."""
    tag = docker("inspect", "--format", '{{index .Config.Labels "lightwork.env"}}', app.name).strip()
    (found,) = (entry for entry in await runtime.cached() if entry.name == tag)
    return found
