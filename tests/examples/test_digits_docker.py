"""The unchanged example in containers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from lightwork_runtimes.docker import _images
from tests.examples.places import configuration, make_place, run_digits
from tests.runtimes.docker_base import base_image, docker, require_engine

require_engine()

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed"),
    pytest.mark.timeout(600),
]


async def test_digits_on_docker(tmp_path: Path) -> None:
    """With `--runtime docker` the image has the example's requirements, and the flow reaches the service."""
    toml = configuration("docker", {"image =": f'image = "{base_image()}"\npull = "never"'})
    place = make_place(tmp_path, toml)
    try:
        await run_digits(place, "--runtime", "docker")
        (image,) = images_of(place)
        assert not docker("ps", "--all", "--quiet", "--filter", f"ancestor={image}")
    finally:
        for image in images_of(place):
            docker("rmi", "--force", image)


def images_of(place: Path) -> list[str]:
    """Return the images with the code of an app's folder."""
    label = f"label={_images.FOLDER}={_images.folder_label([str(place)])}"
    return docker("images", "--quiet", "--filter", label).split()
