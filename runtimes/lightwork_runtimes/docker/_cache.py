"""The images kept for later launches, and when each was last used; see `lightwork.runtime.Caching`.

An engine has the image of each container and the creation time of each image. It does not have the time of last use,
because a container that ended is removed. So each launch touches an empty file in a folder of this user, one file for
each image of each engine. Launches from other machines or by other users touch no file here.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lightwork.runtime import Cached
from lightwork_runtimes.remote.kept import cache_folder

if TYPE_CHECKING:
    from lightwork_runtimes.docker._engine import DockerEngine

__all__ = ["APP", "BASE", "BASED_ON", "ENV", "ENVIRONMENT", "FOLDERS", "Uses", "cached", "discard", "own_tags"]

APP, ENV, BASE = "lightwork-app", "lightwork-env", "lightwork-base"
"""Repositories of the images that lightwork builds. An image is built on those to its right."""

BASED_ON, ENVIRONMENT, FOLDERS = "lightwork.base", "lightwork.env", "lightwork.folders"
"""Labels: id of an environment's base, tag of an app's environment, and the folders that the app's code comes from."""

_KIND = "image"
_NO_TAG = "<none>:<none>"
"""The tag that an engine reports for an image without tags."""


class Uses:
    """When the images of one engine were last used from here, kept as files. Errors with the files are ignored."""

    def __init__(self, engine: str) -> None:
        self._folder = os.path.join(cache_folder("docker"), "".join(char if char.isalnum() else "-" for char in engine))

    def note(self, tags: Iterable[str]) -> None:
        """Record that these images are used now."""
        with contextlib.suppress(OSError):
            os.makedirs(self._folder, 0o700, exist_ok=True)
            for tag in set(tags):
                os.close(os.open(self._path(tag), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
                os.utime(self._path(tag))

    def since(self, tag: str) -> float | None:
        """Return the seconds since the image was last used from here, None if it was not."""
        try:
            return max(0.0, time.time() - os.stat(self._path(tag)).st_mtime)
        except OSError:
            return None

    def forget_others(self, tags: Iterable[str]) -> None:
        """Delete the records of all images except these."""
        names = {os.path.basename(self._path(tag)) for tag in tags}
        with contextlib.suppress(OSError):
            for name in os.listdir(self._folder):
                if name not in names:
                    os.unlink(os.path.join(self._folder, name))

    def _path(self, tag: str) -> str:
        return os.path.join(self._folder, tag.replace("/", "-"))


def own_tags(tags: Sequence[str] | None) -> list[str]:
    """Return those of an image's tags that lightwork gave it."""
    return [tag for tag in tags or () if tag.partition(":")[0] in (APP, ENV, BASE)]


async def cached(engine: DockerEngine) -> list[Cached]:
    """Return every image that lightwork built. An image comes before the images that it is built on."""
    shelf = await _Shelf.read(engine)
    uses = Uses(engine.id)
    found = []
    for tag, image in shelf.own.items():
        ages = [uses.since(tag), max(0.0, engine.now - float(image["Created"]))]
        in_use = image["Id"] in shelf.used
        found.append(
            Cached(
                kind=_KIND,
                name=tag,
                place=engine.address.url,
                size=shelf.own_size(image),
                unused_for=0.0 if in_use else min(age for age in ages if age is not None),
                in_use=in_use,
                detail=(image.get("Labels") or {}).get(FOLDERS, "") if tag.startswith(APP) else "",
            )
        )
    return sorted(found, key=lambda entry: (APP, ENV, BASE).index(entry.name.partition(":")[0]))


async def discard(engine: DockerEngine, entry: Cached) -> bool:
    """Remove an image unless a container or another image uses it. Return whether it is gone.

    Raises:
        RuntimeFailure: The engine fails to remove the image, or does not answer.
    """
    if (entry.kind, entry.place) != (_KIND, engine.address.url):
        return True
    shelf = await _Shelf.read(engine)
    # The engine refuses to remove an image that a container uses, atomically. For an image that others are built on it
    # would remove the name and free nothing. If an image is removed after a launch found it and before the launch
    # creates its container, that launch builds it again.
    if entry.name in shelf.own and (shelf.is_needed(entry.name) or not await engine.remove_image(entry.name)):
        return False
    Uses(engine.id).forget_others(shelf.own.keys() - {entry.name})
    return True


class _Shelf:
    """The images of an engine at one moment.

    Attributes:
        own: By tag, the images that lightwork built.
        used: Ids of the images that a container uses, directly or through an image built on them.
    """

    def __init__(self, images: Sequence[dict[str, Any]], containers: Iterable[str]) -> None:
        self._images = {image["Id"]: image for image in images}
        self.own = {tag: image for image in images for tag in own_tags(image.get("RepoTags"))}
        self.used = {each for container in containers for each in self._ancestry(container)}

    @classmethod
    async def read(cls, engine: DockerEngine) -> _Shelf:
        """Read the engine's images and containers. Containers come last, so that a new one is not missed."""
        return cls(await engine.images(), await engine.images_in_use())

    def is_needed(self, tag: str) -> bool:
        """Whether a container or another image uses this image."""
        image_id = self.own[tag]["Id"]
        others = (other["Id"] for other in self.own.values() if other["Id"] != image_id)
        return image_id in self.used or any(image_id in self._ancestry(other) for other in others)

    def own_size(self, image: Mapping[str, Any]) -> int:
        """Return the bytes of the image that it does not share with a named image below it."""
        ancestors = [self._images[each] for each in self._ancestry(image["Id"]) if each != image["Id"]]
        named = [each for each in ancestors if any(tag != _NO_TAG for tag in each.get("RepoTags") or ())]
        shared = max((int(each["Size"]) for each in named), default=0)
        return max(0, int(image["Size"]) - shared)

    def _ancestry(self, image_id: str) -> list[str]:
        """Return the image and all the images below it, as far as the engine and lightwork's labels tell."""
        found: list[str] = []
        open_ends = [image_id]
        while open_ends:
            end = open_ends.pop()
            image = self._images.get(end)
            if image is not None and end not in found:
                found.append(end)
                labels = image.get("Labels") or {}
                environment = self.own.get(labels.get(ENVIRONMENT, ""), {})
                open_ends += [image.get("ParentId") or "", labels.get(BASED_ON, ""), environment.get("Id", "")]
        return found
