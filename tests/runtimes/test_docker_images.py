from __future__ import annotations

import logging
import os
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

from lightwork.build import BuildConfig
from lightwork.runtime import Rejected, RuntimeFailure
from tests.runtimes.docker_base import base_image, docker, require_engine
from tests.runtimes.docker_support import Folder, counted_engine, docker_runtime, output

require_engine()

pytestmark = pytest.mark.timeout(120)


class Commands(BuildConfig):
    commands = ("echo built > /marker",)

    def build_commands(self) -> list[str]:
        return list(self.commands)


class FailingCommands(Commands):
    commands = ("echo some last words; exit 3",)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "app")


def make_wheel(folder: Path, version: str) -> str:
    """Write a wheel with one module by hand and return its path."""
    path = folder / f"tinything-{version}-py3-none-any.whl"
    info = f"tinything-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tinything.py", f"__version__ = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tinything\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "tinything.py,,\n")
    return str(path)


def builds(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the repository of each image that was built."""
    names = [record.getMessage() for record in caplog.records if record.getMessage().startswith("building ")]
    return [name.rpartition(" as ")[2].partition(":")[0] for name in names if " as " in name]


async def test_second_start_builds_nothing(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    """Another run finds the image of unchanged code. Changed code makes a new image, and the former one is removed."""
    caplog.set_level(logging.INFO, "lightwork")
    async with docker_runtime(folder.owner, keep_images=True) as runtime:
        await runtime.wait(await runtime.launch(folder.spec("say x")))
        first = await runtime._images.ready(None, str(folder.path))
    assert builds(caplog)[-1:] == ["lightwork-app"]
    caplog.clear()
    async with docker_runtime(folder.owner, keep_images=True) as runtime:
        await runtime.wait(await runtime.launch(folder.spec("say x")))
        assert await runtime._images.ready(None, str(folder.path)) == first
    assert builds(caplog) == []
    (folder.path / "other.py").write_text("x = 1\n")
    async with docker_runtime(folder.owner) as runtime:
        await runtime.wait(await runtime.launch(folder.spec("say x")))
    assert builds(caplog) == ["lightwork-app"]
    assert not docker("images", "--quiet", first)


async def test_second_start_sends_next_to_nothing(folder: Folder, tmp_path: Path) -> None:
    """With unchanged code and requirements the engine receives no archive, and fewer bytes than a page of text."""
    (folder.path / "data.bin").write_bytes(os.urandom(300_000))
    build = BuildConfig(requirements=[make_wheel(tmp_path, "1.0")])
    sizes = []
    async with counted_engine(tmp_path) as (host, sent):
        for keep in (True, False):
            sent.clear()
            async with docker_runtime(folder.owner, keep_images=keep, host=host) as runtime:
                await runtime.wait(await runtime.launch(folder.spec("say x", build=build)))
            sizes.append((len(sent), b"/build?" in sent, b"/images/create" in sent))
    (first, first_built, _), (second, *rest) = sizes
    assert first_built
    assert first > 300_000
    assert second < 10_000
    assert rest == [False, False]


async def test_image_that_was_removed_is_made_again(folder: Folder) -> None:
    """An image that is removed between two launches of one run is built again."""
    async with docker_runtime(folder.owner) as runtime:
        await runtime.release(await runtime.launch(folder.spec("say x")))
        docker("rmi", "--force", await runtime._images.ready(None, str(folder.path)))
        ref = await runtime.launch(folder.spec("say again"))
        assert await output(runtime, ref) == b"again\n"


async def test_image_that_is_nowhere(folder: Folder) -> None:
    """An image that is not on the engine and cannot be pulled is an error with its name; no container is left."""
    async with docker_runtime(folder.owner, image="lightwork.invalid/nowhere:1", pull="missing") as runtime:
        with pytest.raises(
            RuntimeFailure, match=r"'lightwork.invalid/nowhere:1' is not on the engine and cannot be pulled"
        ):
            await runtime.launch(folder.spec("say x"))
        assert not await runtime.find(folder.owner)
    async with docker_runtime(folder.owner) as runtime:
        with pytest.raises(Rejected, match="'nowhere' is not on the engine"):
            await runtime.launch(folder.spec("say x", build=BuildConfig(image="nowhere")))


async def test_requirement_is_there(folder: Folder, tmp_path: Path) -> None:
    """A requirement is importable in the container. Another file of the same name makes another environment."""
    for version in ("1.0", "1.1"):
        build = BuildConfig(requirements=[make_wheel(tmp_path, version)])
        async with docker_runtime(folder.owner) as runtime:
            ref = await runtime.launch(folder.spec("version tinything", build=build))
            assert await output(runtime, ref) == f"{version}\n".encode()


async def test_requirement_that_does_not_exist(folder: Folder) -> None:
    """The error has the requirement and the installer's output."""
    build = BuildConfig(requirements=["/no/such/file-1.0-py3-none-any.whl"])
    async with docker_runtime(folder.owner) as runtime:
        with pytest.raises(Rejected, match=r"(?s)requirements .* cannot be installed:.*no/such/file"):
            await runtime.launch(folder.spec("say x", build=build))
        assert not await runtime.find(folder.owner)


async def test_requirements_in_the_image_need_uv_or_pip(folder: Folder) -> None:
    """With neither uv nor pip in the image the error names both; with uv alone, uv installs the requirements."""
    build = BuildConfig(requirements=["tinything"])
    async with docker_runtime(folder.owner, requirements="image") as runtime:
        with pytest.raises(Rejected, match="the image has neither uv nor pip: use an image"):
            await runtime.launch(folder.spec("version tinything", build=build))
    uv = f"#!{sys.base_prefix}/bin/python3\n" + textwrap.dedent("""\
        import os, sys
        target, requirement = sys.argv[sys.argv.index("--target") + 1 :]
        os.makedirs(target)
        with open(f"{target}/{requirement}.py", "w") as file:
            file.write("__version__ = 'by uv'")
    """)
    (folder.path / "uv").write_text(uv)
    place = f"{sys.base_prefix}/bin/uv"
    build = BuildConfig(
        requirements=["tinything"],
        dockerfile=f"FROM {base_image()}\nCOPY uv {place}\nRUN chmod 755 {place}\n",
    )
    async with docker_runtime(folder.owner, requirements="image") as runtime:
        ref = await runtime.launch(folder.spec("version tinything", build=build))
        assert await output(runtime, ref) == b"by uv\n"


async def test_build_commands_run(folder: Folder) -> None:
    """The container has the files that a build command made. A failing command is an error with its last lines."""
    async with docker_runtime(folder.owner) as runtime:
        ref = await runtime.launch(folder.spec("facts", build=Commands()))
        assert b'"marker": "built"' in await output(runtime, ref)
        with pytest.raises(Rejected, match=r"(?s)cannot be built:.*some last words.*code: 3"):
            await runtime.launch(folder.spec("say x", build=FailingCommands()))


async def test_dockerfile_is_built(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    """A Dockerfile given as text is built with the app's folder as its context, once for each state of both."""
    caplog.set_level(logging.INFO, "lightwork")
    (folder.path / "file.txt").write_text("copied")
    (folder.path / "new.txt").write_text(folder.owner)  # never built before, on any engine
    build = BuildConfig(dockerfile=f"FROM {base_image()}\nCOPY file.txt /marker\n")
    for _ in range(2):
        async with docker_runtime(folder.owner) as runtime:
            ref = await runtime.launch(folder.spec("facts", build=build))
            assert b'"marker": "copied"' in await output(runtime, ref)
    assert builds(caplog).count("lightwork-base") == 1
    async with docker_runtime(folder.owner) as runtime:
        broken = BuildConfig(dockerfile=f"FROM {base_image()}\nCOPY no-such-file /marker\n")
        with pytest.raises(Rejected, match=r"(?s)Dockerfile.*cannot be built:.*no-such-file"):
            await runtime.launch(folder.spec("say x", build=broken))


async def test_image_without_the_interpreter(folder: Folder) -> None:
    """An image without Python is refused; the error names the key to set."""
    async with docker_runtime(folder.owner, python="/no/python3.11") as runtime:
        with pytest.raises(Rejected, match=r"has no '/no/python3\.11': set `python`"):
            await runtime.launch(folder.spec("say x"))
        assert not await runtime.find(folder.owner)


async def test_image_with_another_python(folder: Folder) -> None:
    """Another minor version is refused with both versions. For a program other than Python the error has its output."""
    facts = '{"version": [3, 9, 2], "soabi": "x", "purelib": "/x"}'
    script = f"#!/bin/sh\necho {facts!r}\n"
    (folder.path / "old").write_text(script)
    lines = [f"FROM {base_image()}", "COPY old /old", "RUN chmod 755 /old", ""]
    async with docker_runtime(folder.owner, python="/old") as runtime:
        with pytest.raises(Rejected, match=r"has Python 3\.9, the scheduler 3\.\d+"):
            await runtime.launch(folder.spec("say x", build=BuildConfig(dockerfile="\n".join(lines))))
    async with docker_runtime(folder.owner, python="/bin/true") as runtime:
        with pytest.raises(Rejected, match=r"'/bin/true' of the image .* is not a working Python"):
            await runtime.launch(folder.spec("say x"))


async def test_folder_that_must_not_be_sent(folder: Folder) -> None:
    """A home folder, and a folder with links that lead out of it, are refused before any image is built."""
    async with docker_runtime(folder.owner) as runtime:
        with pytest.raises(Rejected, match="start the app from a separate folder"):
            await runtime.launch(folder.spec("say x", cwd=str(Path.home())))
        (folder.path / "out").symlink_to("/etc/passwd")
        with pytest.raises(Rejected, match="out -> /etc/passwd"):
            await runtime.launch(folder.spec("say x"))


async def test_work_s_own_patterns_are_left_out(folder: Folder) -> None:
    """Files in a work's `lightningignore` are left out of its image, and kept in the image of a work without one."""
    (folder.path / "marker").write_text("big")
    async with docker_runtime(folder.owner) as runtime:
        names = [await runtime._images.ready(None, str(folder.path), patterns) for patterns in [("marker",), ()]]
        listed = [
            docker("run", "--rm", "--entrypoint", "/bin/sh", name, "-c", f"echo {folder.path}/*") for name in names
        ]
    assert ["marker" in files for files in listed] == [False, True]


async def test_container_s_user_can_read_all(folder: Folder) -> None:
    """Code that only its owner can read here, and lightwork, are readable by another user in the container."""
    (folder.path / "jobs.py").chmod(0o600)
    async with docker_runtime(folder.owner, user="1234:1234") as runtime:
        ref = await runtime.launch(folder.spec("facts"))
        assert b'"uid": 1234' in await output(runtime, ref)
