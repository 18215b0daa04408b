"""The images that are kept for later launches, and when each was last used; see `lightwork.runtime.Caching`.

An engine knows which image a container uses, and when one was made, but not when it was last used: a container that
ended is removed. So each launch leaves a sign in a folder of this user, an empty file for each image of each engine,
whose time is the launch's. What is launched from other machines or by other users leaves none here.
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
    from lightwork_runtimes.docker._engine import Engine

__all__ = ["APP", "BASE", "BASED_ON", "ENV", "ENVIRONMENT", "FOLDERS", "Uses", "cached", "discard", "own_tags"]

APP, ENV, BASE = "lightwork-app", "lightwork-env", "lightwork-base"
"""Repositories of the images that are built, those that are built on others first."""

BASED_ON, ENVIRONMENT, FOLDERS = "lightwork.base", "lightwork.env", "lightwork.folders"
"""Labels: id of the base of an environment, tag of the environment of an app, and the folders that its code is of."""

_KIND = "image"
_NO_TAG = "<none>:<none>"
"""What an engine says of an image that has none."""


class Uses:
    """When the images of one engine were last used from here, in files. What goes wrong with these is passed over."""

    def __init__(self, engine: str) -> None:
        self._folder = os.path.join(cache_folder("docker"), "".join(char if char.isalnum() else "-" for char in engine))

    def note(self, tags: Iterable[str]) -> None:
        """These are used now."""
        with contextlib.suppress(OSError):
            os.makedirs(self._folder, 0o700, exist_ok=True)
            for tag in set(tags):
                os.close(os.open(self._path(tag), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
                os.utime(self._path(tag))

    def since(self, tag: str) -> float | None:
        """Seconds since it was used from here, None if it was not."""
        try:
            return max(0.0, time.time() - os.stat(self._path(tag)).st_mtime)
        except OSError:
            return None

    def forget_others(self, tags: Iterable[str]) -> None:
        """No images but these are there."""
        names = {os.path.basename(self._path(tag)) for tag in tags}
        with contextlib.suppress(OSError):
            for name in os.listdir(self._folder):
                if name not in names:
                    os.unlink(os.path.join(self._folder, name))

    def _path(self, tag: str) -> str:
        return os.path.join(self._folder, tag.replace("/", "-"))


def own_tags(tags: Sequence[str] | None) -> list[str]:
    """Those of an image's tags that lightwork has given it."""
    return [tag for tag in tags or () if tag.partition(":")[0] in (APP, ENV, BASE)]


async def cached(engine: Engine) -> list[Cached]:
    """Every image that was built here, those that are built on others first."""
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


async def discard(engine: Engine, entry: Cached) -> bool:
    """Remove an image unless a container or another image uses it; says whether it is gone.

    Raises:
        RuntimeFailure: The engine does not remove it, or does not answer.
    """
    if (entry.kind, entry.place) != (_KIND, engine.address.url):
        return True
    shelf = await _Shelf.read(engine)
    # The engine refuses what a container uses, in one step with the removal; of what others are built on it would take
    # the name away and free nothing. An image that a launch has found, and that is gone before its container is
    # created, is made again by that launch.
    if entry.name in shelf.own and (shelf.is_needed(entry.name) or not await engine.remove_image(entry.name)):
        return False
    Uses(engine.id).forget_others(shelf.own.keys() - {entry.name})
    return True


class _Shelf:
    """The images of an engine at one moment.

    Attributes:
        own: By tag, those that were built here.
        used: Ids of those that a container uses, by what was built on them as well.
    """

    def __init__(self, images: Sequence[dict[str, Any]], containers: Iterable[str]) -> None:
        self._images = {image["Id"]: image for image in images}
        self.own = {tag: image for image in images for tag in own_tags(image.get("RepoTags"))}
        self.used = {each for container in containers for each in self._ancestry(container)}

    @classmethod
    async def read(cls, engine: Engine) -> _Shelf:
        """As it is now; containers are looked at last, so that one which is just created is not missed."""
        return cls(await engine.images(), await engine.images_in_use())

    def is_needed(self, tag: str) -> bool:
        """Whether an image or a container uses this one."""
        image_id = self.own[tag]["Id"]
        others = (other["Id"] for other in self.own.values() if other["Id"] != image_id)
        return image_id in self.used or any(image_id in self._ancestry(other) for other in others)

    def own_size(self, image: Mapping[str, Any]) -> int:
        """Bytes of the image that are not of one with a name which it was built on."""
        ancestors = [self._images[each] for each in self._ancestry(image["Id"]) if each != image["Id"]]
        named = [each for each in ancestors if any(tag != _NO_TAG for tag in each.get("RepoTags") or ())]
        shared = max((int(each["Size"]) for each in named), default=0)
        return max(0, int(image["Size"]) - shared)

    def _ancestry(self, image_id: str) -> list[str]:
        """The image and all that it was built on, as far as the engine and our labels tell."""
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
