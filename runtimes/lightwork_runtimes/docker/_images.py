"""The images that works run in: found, pulled or built, each once.

There are up to three. Each is named by the digest of everything that it is made of. So an existing image is up to date,
and nothing is sent or built for unchanged parts:

- the base: the profile's image, the `BuildConfig`'s, or one built from a Dockerfile (``lightwork-base``);
- the environment: the base with build commands, lightwork and requirements (``lightwork-env``);
- the app: the environment with the app's code (``lightwork-app``), at the paths that it has on this machine.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import IO, Any

import anyio
import anyio.to_thread
import msgspec

from lightwork.build import BuildConfig
from lightwork.errors import UsageError
from lightwork.runtime import NoCapacity, Rejected, RuntimeFailure
from lightwork.runtime.bundle import make_bundle
from lightwork_runtimes.docker import _payload as payload
from lightwork_runtimes.docker._cache import APP, BASE, BASED_ON, ENV, ENVIRONMENT, FOLDERS, Uses, own_tags
from lightwork_runtimes.docker._code import AppCode, code_roots
from lightwork_runtimes.docker._engine import BuildFailed, DockerEngine, EngineError
from lightwork_runtimes.docker._options import DockerOptions
from lightwork_runtimes.docker._payload import Facts
from lightwork_runtimes.docker._report import start_failure

__all__ = ["FOLDER", "Images", "folder_label"]

_log = logging.getLogger("lightwork.runtimes.docker")
FOLDER = "lightwork.folder"
"""Label of an app's image with the digest of its folders, to find and remove the images of their older states."""

_IN_MEMORY = 16 * 1024 * 1024
_DIGITS = 20


class Images:
    """Prepares images on one engine. The images found or built are remembered until `forget`."""

    def __init__(self, engine: DockerEngine, options: DockerOptions) -> None:
        self._engine = engine
        self._options = options
        self._uses = Uses(engine.id)
        self._known: dict[str, Any] = {}
        self._locks: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)

    def forget(self) -> None:
        """Forget the known images, because one of them was removed."""
        self._known.clear()

    async def ready(self, build: BuildConfig | None, cwd: str | None, patterns: tuple[str, ...] = ()) -> str:
        """Return the name of the image for a work. Pull and build if necessary.

        Args:
            build: The contents of the image.
            cwd: The work's folder, sent as the app's folder unless the profile names another. None: no code is added.
            patterns: Patterns of the files that the work leaves out of the code.

        Raises:
            Rejected: The image cannot be made: no base image was found, a build failed, or the Python version differs.
            NoCapacity: A registry does not answer.
            Unreachable: The engine does not answer.
        """
        build = build or BuildConfig()
        commands = build.build_commands()
        if not _is_list_of_texts(commands):
            raise Rejected(f"{type(build).__name__}.build_commands() must return a list of strings, not {commands!r}")
        while True:
            found: list[str] = []
            try:
                await self._find_or_make(found, build, commands, cwd, patterns)
            except RuntimeFailure:
                if not found or await self._engine.image(found[-1]) is not None:
                    raise
                self.forget()  # an image to build on was removed meanwhile
            else:
                self._uses.note(own_tags(found))
                return found[-1]

    async def _find_or_make(
        self, found: list[str], build: BuildConfig, commands: list[str], cwd: str | None, patterns: tuple[str, ...]
    ) -> None:
        """Append the name of each image to `found` as soon as it exists, the base first."""
        base = await self._once(f"base {build.image} {build.dockerfile} {cwd}", lambda: self._base(build, cwd))
        found += [*own_tags(base.get("RepoTags")), base["Id"]]
        wants = json.dumps([list(build.requirements), commands, cwd if build.requirements else None])
        env = await self._once(f"env {base['Id']} {wants}", lambda: self._environment(base, build, commands, cwd))
        found.append(env)
        if cwd is not None:
            found.append(await self._once(f"app {env} {cwd} {patterns}", lambda: self._app(env, cwd, patterns)))

    async def _once(self, key: str, make: Callable[[], Any]) -> Any:
        async with self._locks[key]:
            if key not in self._known:
                self._known[key] = await make()
            return self._known[key]

    # --- the base ---------------------------------------------------------------------------------

    async def _base(self, build: BuildConfig, cwd: str | None) -> dict[str, Any]:
        if build.dockerfile is not None:
            return await self._from_dockerfile(build, cwd)
        name = build.image or self._options.base_image
        found = await self._engine.image(name)
        if self._options.pull == "always" or (found is None and self._options.pull == "missing"):
            await self._pull(name)
            found = await self._engine.image(name)
        if found is None:
            raise Rejected(f"the image {name!r} is not on the engine {self._engine.address}, and `pull` is 'never'")
        return found

    async def _pull(self, name: str) -> None:
        """Pull the image and log each finished layer. Raise if the pull fails, even where an older image exists."""
        _log.info("pulling the image %s", name)
        done: set[str] = set()
        seen: set[str] = set()
        try:
            async for step in self._engine.pull(name):
                layer, status = step.get("id"), step.get("status", "")
                if layer and status == "Pulling fs layer":
                    seen.add(layer)
                elif layer and status == "Pull complete":
                    done.add(layer)
                    _log.info("pulling the image %s: %d of %d layers", name, len(done), len(seen))
        except EngineError as error:
            text = f"the image {name!r} is not on the engine and cannot be pulled: {error}"
            if error.status == 404 or "denied" in str(error) or "not found" in str(error):
                raise Rejected(f"{text}. Check its name, or run `docker pull` after a `docker login`") from error
            raise NoCapacity(text) from error

    async def _from_dockerfile(self, build: BuildConfig, cwd: str | None) -> dict[str, Any]:
        """Return an image built from a Dockerfile. The context is the file's folder; for a text, the app's folder."""
        assert build.dockerfile is not None
        try:
            text = build.dockerfile_text() or ""
        except OSError as error:
            raise Rejected(f"the Dockerfile {build.dockerfile} cannot be read: {error}") from error
        is_path = os.path.isabs(build.dockerfile)
        folder = os.path.dirname(build.dockerfile) if is_path else self._options.folder or cwd
        bundle = None if folder is None else await anyio.to_thread.run_sync(make_bundle, folder)
        tag = f"{BASE}:{_digest('dockerfile', text, bundle.digest if bundle else '')}"
        found = await self._engine.image(tag)
        if found is not None:
            return found

        def write(file: IO[bytes]) -> None:
            if bundle is not None:
                bundle.write(file)

        await self._build(
            tag, text, {"context": write}, {}, what=f"the Dockerfile {build.dockerfile if is_path else ''}"
        )
        found = await self._engine.image(tag)
        assert found is not None
        return found

    # --- the environment --------------------------------------------------------------------------

    async def _environment(self, base: dict[str, Any], build: BuildConfig, commands: list[str], cwd: str | None) -> str:
        own = await anyio.to_thread.run_sync(payload.load_payload)
        requirements = list(build.requirements)
        facts = [
            _here(),
            own.digest,
            base["Id"],
            self._options.python,
            requirements,
            commands,
            self._options.requirements,
        ]
        tag = f"{ENV}:{_digest(*facts, *map(_stamp, requirements))}"
        if await self._engine.image(tag) is not None:
            return tag
        found = await self._probe(base)
        here = self._options.requirements == "here" or (
            self._options.requirements == "auto" and found.is_like_here and not commands
        )
        python = self._options.python
        lines = [f"FROM {base['Id']}", "USER root", *(f"RUN {command}" for command in commands), "ADD lightwork.tar /"]
        parts: dict[str, Callable[[IO[bytes]], None]] = {"lightwork.tar": lambda file: own.write(file, found)}
        if not found.is_like_here:
            lines.append(payload.install_line(python, payload.PACKAGES, own.pins))
        with tempfile.TemporaryDirectory(prefix="lightwork-site-") as site:
            if requirements and here:
                _log.info("installing the requirements %s", requirements)
                await payload.install_here(requirements, site, cwd)
                parts["requirements.tar"] = lambda file: payload.tar_tree(site, payload.REQUIREMENTS, file)
                lines.append("ADD requirements.tar /")
            elif requirements:
                lines.append(payload.install_line(python, payload.REQUIREMENTS, requirements))
            lines.append(_compile_line(python, payload.ROOT))
            if user := base["Config"].get("User"):
                lines.append(f"USER {user}")
            what = "the environment of a work"
            await self._build(tag, "\n".join(lines), parts, {BASED_ON: base["Id"]}, what)
        return tag

    async def _probe(self, base: dict[str, Any]) -> Facts:
        """Run the image's interpreter in a temporary container, to read its version and platform."""
        name = (base.get("RepoTags") or [base["Id"]])[0]
        container = f"lightwork-probe-{uuid.uuid4().hex[:12]}"
        config = {
            "Image": base["Id"],
            "Entrypoint": [self._options.python, "-c", payload.PROBE],
            "Cmd": [],
            "Labels": {"lightwork.probe": name},
            "HostConfig": {"NetworkMode": "none"},
        }
        try:
            await self._engine.create(container, config)
            try:
                await self._engine.start(container)
            except EngineError as error:
                raise Rejected(start_failure(str(error), name, self._options.python)) from error
            said = b"".join([piece async for piece in self._engine.output(container, follow=True)])
        finally:
            with anyio.CancelScope(shield=True):
                await self._engine.remove(container)
        try:
            found = msgspec.json.decode(said, type=Facts)
        except msgspec.DecodeError as error:
            text = said.decode(errors="replace").strip()
            raise Rejected(f"{self._options.python!r} of the image {name!r} is not a working Python: {text}") from error
        if tuple(found.version[:2]) != sys.version_info[:2]:
            theirs, ours = (f"{version[0]}.{version[1]}" for version in (found.version, sys.version_info))
            raise Rejected(
                f"the image {name!r} has Python {theirs}, the scheduler {ours}: both must have the same minor version. "
                f"Use an image with Python {ours}, or run the scheduler with {theirs}"
            )
        return found

    # --- the app ----------------------------------------------------------------------------------

    async def _app(self, env: str, cwd: str, patterns: tuple[str, ...]) -> str:
        try:
            roots = code_roots(self._options.folder or cwd)
            code = await anyio.to_thread.run_sync(AppCode, roots, patterns)
        except (UsageError, OSError) as error:
            raise Rejected(f"the app's code cannot be sent: {error}") from error
        tag = f"{APP}:{_digest(env, code.digest)}"
        if await self._engine.image(tag) is not None:
            return tag
        lines = [f"FROM {env}", *(f"ADD {part} /" for part in code.parts)]
        if code.is_worth_compiling:
            lines += ["USER root", *(_compile_line(self._options.python, root) for root in code.roots)]
        labels = {FOLDER: folder_label(code.roots, patterns), ENVIRONMENT: env, FOLDERS: ", ".join(code.roots)}
        await self._build(tag, "\n".join(lines), dict(code.parts), labels, what=f"the app's image of {code.roots}")
        await self._remove_older(tag, labels)
        return tag

    async def _remove_older(self, tag: str, labels: dict[str, str]) -> None:
        """Remove the images with older states of this app's folders, except those that a container uses."""
        for other in await self._engine.tags(f"{FOLDER}={labels[FOLDER]}"):
            if other != tag and other.startswith(f"{APP}:"):
                await self._engine.remove_image(other)

    # --- building ---------------------------------------------------------------------------------

    async def _build(
        self,
        tag: str,
        dockerfile: str,
        parts: dict[str, Callable[[IO[bytes]], None]],
        labels: dict[str, str],
        what: str,
    ) -> None:
        _log.info("building %s as %s", what, tag)
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as context:
            try:
                await anyio.to_thread.run_sync(_write_context, context, dockerfile, parts)
            except (UsageError, OSError) as error:
                raise Rejected(f"{what} cannot be built: {error}") from error
            try:
                async for line in self._engine.build(context, tag, labels):
                    if line.startswith("Step "):
                        _log.info("building %s: %s", tag, line)
            except BuildFailed as error:
                raise Rejected(f"{what} cannot be built:\n{error}") from error
            except EngineError as error:
                raise Rejected(f"{what} cannot be built: {error}") from error


def folder_label(roots: Sequence[str], patterns: Sequence[str] = ()) -> str:
    """Return the value of the label `FOLDER` for the code of these folders, without files that match the patterns."""
    return _digest(*roots, *([list(patterns)] if patterns else []))


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _write_context(context: Any, dockerfile: str, parts: dict[str, Callable[[IO[bytes]], None]]) -> None:
    import tarfile

    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, write in parts.items():
            with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as part:
                write(part)
                size = part.tell()
                part.seek(0)
                if name == "context":  # the files themselves, not an archive
                    with tarfile.open(fileobj=part, mode="r:") as inner:
                        for inside in inner:
                            tar.addfile(inside, inner.extractfile(inside) if inside.isfile() else None)
                    continue
                member = tarfile.TarInfo(name)
                member.size = size
                tar.addfile(member, part)
        payload.add_bytes(tar, "Dockerfile", dockerfile.encode())
    context.seek(0)


def _compile_line(python: str, folder: str) -> str:
    """Return the Dockerfile line that compiles all code once for all starts. Files with invalid Python are skipped."""
    program = f"import compileall; compileall.compile_dir({folder!r}, quiet=2)"
    return f"RUN {json.dumps([python, '-c', program])}"


def _digest(*facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, default=list).encode()).hexdigest()[:_DIGITS]


def _here() -> list[str]:
    """Return the facts of this interpreter that decide whether its packages can be sent."""
    import sysconfig

    return [f"{sys.version_info.major}.{sys.version_info.minor}", str(sysconfig.get_config_var("SOABI"))]


def _stamp(requirement: str) -> list[int]:
    """Return size and time of the file that a requirement names, so that a changed file of the same name is noticed."""
    path = requirement.rpartition(" @ ")[2].strip().removeprefix("file://")
    try:
        info = os.stat(path)
    except (OSError, ValueError):
        return []
    return [info.st_size, info.st_mtime_ns]
