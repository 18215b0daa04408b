"""Pulls from a registry on the loopback that has one small image and fails on request."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import logging
import tarfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from lightwork.build import BuildConfig
from lightwork.runtime import NoCapacity, Rejected
from tests.runtimes.docker_base import docker, require_engine
from tests.runtimes.docker_support import Folder, docker_runtime

require_engine()

pytestmark = pytest.mark.timeout(180)

_V2 = "application/vnd.docker.distribution.manifest.v2+json"


class Registry:
    """Serves one image. `fails` maps part of a path to the status that the path fails with."""

    def __init__(self) -> None:
        self.fails: dict[str, int] = {}
        self.port = 0
        self.name = f"lightwork-test-{uuid.uuid4().hex[:8]}"
        layer = _layer(self.name)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [_digest(gzip.decompress(layer))]},
            }
        ).encode()
        self.blobs = {_digest(blob): blob for blob in (layer, config)}
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": _V2,
                "config": {
                    "mediaType": "application/vnd.docker.container.image.v1+json",
                    "size": len(config),
                    "digest": _digest(config),
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                        "size": len(layer),
                        "digest": _digest(layer),
                    }
                ],
            }
        ).encode()

    @property
    def image(self) -> str:
        return f"127.0.0.1:{self.port}/{self.name}:1"

    async def answer(self, request: web.Request) -> web.Response:
        for part, status in self.fails.items():
            if part in request.path:
                code = "MANIFEST_UNKNOWN" if status == 404 else "UNAVAILABLE"
                error = {"errors": [{"code": code, "message": "said by the test"}]}
                return web.json_response(error, status=status)
        if "/manifests/" in request.path:
            headers = {"Docker-Content-Digest": _digest(self.manifest)}
            return web.Response(body=self.manifest, content_type=_V2, headers=headers)
        if "/blobs/" in request.path:
            return web.Response(body=self.blobs[request.path.rpartition("/")[2]])
        return web.json_response({}, headers={"Docker-Distribution-Api-Version": "registry/2.0"})


def _layer(text: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text.encode()))
    return gzip.compress(data.getvalue())


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    found = Registry()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.port = runner.addresses[0][1]
    try:
        yield found
    finally:
        with contextlib.suppress(RuntimeError):  # never pulled
            docker("rmi", "--force", found.image)
        await runner.cleanup()


async def test_pull_tells_how_far_it_is(registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A missing image is pulled and its layers are logged. An image without Python is refused with the key to set."""
    caplog.set_level(logging.INFO, "lightwork")
    folder = Folder(tmp_path / "app")
    async with docker_runtime(folder.owner, pull="missing", image=registry.image) as runtime:
        with pytest.raises(Rejected, match=r"has no 'python3': set `python`"):
            await runtime.launch(folder.spec("say x"))
        assert not await runtime.find(folder.owner)
    assert f"pulling the image {registry.image}: 1 of 1 layers" in caplog.text


@pytest.mark.parametrize(
    ("part", "status", "kind", "said"),
    [
        ("/manifests/", 404, Rejected, "Check its name"),
        ("/manifests/", 500, NoCapacity, "cannot be pulled"),
        ("/blobs/", 404, NoCapacity, "cannot be pulled"),
    ],
)
async def test_pull_that_fails(
    registry: Registry, tmp_path: Path, part: str, status: int, kind: type[Exception], said: str
) -> None:
    """An image missing in the registry is rejected for good, a failing registry is `NoCapacity`; nothing is left."""
    registry.fails[part] = status
    folder = Folder(tmp_path / "app")
    async with docker_runtime(folder.owner, pull="missing") as runtime:
        with pytest.raises(kind, match=said) as caught:
            await runtime.launch(folder.spec("say x", build=BuildConfig(image=registry.image)))
        assert registry.image in str(caught.value)
        assert not await runtime.find(folder.owner)
    assert not docker("images", "--quiet", registry.image)


async def test_pull_that_fails_takes_no_older_image(registry: Registry, tmp_path: Path) -> None:
    """With `pull = "always"` a failing pull is an error even if an older image of that name exists."""
    folder = Folder(tmp_path / "app")
    await asyncio.to_thread(docker, "pull", "--quiet", registry.image)  # this loop serves the registry
    registry.fails["/manifests/"] = 500
    async with docker_runtime(folder.owner, pull="always", image=registry.image) as runtime:
        with pytest.raises(NoCapacity, match="cannot be pulled"):
            await runtime.launch(folder.spec("say x"))
