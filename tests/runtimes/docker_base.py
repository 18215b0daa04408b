"""An image with this machine's Python, built without a registry; and a check whether an engine answers.

The interpreter's folder and all shared libraries that it needs go into a tar, the only layer. The image's tag is a
digest of its contents, so it is built once for each engine and Python.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

REPOSITORY = "lightwork-test-base"
PREFIX = Path(sys.base_prefix)
STDLIB = Path(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix, "installed_base": sys.base_prefix}))
_LEFT_OUT = {"site-packages", "test", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "pydoc_data"}
_PROGRAMS = [Path("/bin/sh"), Path("/bin/true"), Path("/bin/sleep"), Path("/bin/chmod")]
_LOADED_LATE = [
    "libpthread", "libdl", "librt", "libutil", "libm", "libresolv", "libnss_dns", "libnss_files", "libgcc_s",
    "libstdc++",
]  # fmt: skip


def docker(*args: str, input: bytes | None = None) -> str:
    """Run Docker's own command line and return its output."""
    done = subprocess.run(["docker", *args], input=input, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"docker {' '.join(args)}: {done.stderr.decode()}")
    return done.stdout.decode().strip()


def why_not() -> str:
    """Return why there is no engine to test with, an empty string if there is one."""
    try:
        docker("version", "--format", "{{.Server.Version}}")
    except FileNotFoundError:
        return "the command `docker` is not installed: run .ci/docker"
    except RuntimeError as error:
        return f"no engine answers, run .ci/docker: {error}"
    return ""


def require_engine() -> None:
    """Skip the test, or the module, if no engine answers."""
    if reason := why_not():
        pytest.skip(reason, allow_module_level=True)


def base_image() -> str:
    """Return the name of an image with this Python at its path here. Build it if the engine does not have it."""
    facts = f"{sys.version} {STDLIB} {Path(__file__).read_text()}"
    name = f"{REPOSITORY}:{hashlib.sha256(facts.encode()).hexdigest()[:12]}"
    if not docker("images", "--quiet", name):
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as tar:
            add_bytes(tar, "Dockerfile", _dockerfile().encode())
            add_bytes(tar, "root.tar", _root())
        docker("build", "--quiet", "--force-rm", "--tag", name, "-", input=context.getvalue())
    return name


def _dockerfile() -> str:
    return f'FROM scratch\nADD root.tar /\nENV PATH="{PREFIX}/bin:/usr/bin:/bin" LANG=C.UTF-8\n'


def _root() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for path in _files():
            tar.add(path, str(path).lstrip("/"), recursive=False)
        needing = [PREFIX / "bin" / "python3", *_PROGRAMS, *(STDLIB / "lib-dynload").glob("*.so")]
        for path in (*libraries(needing), *_PROGRAMS):
            # Under the name by which it was found, not its link's target: the loader looks for that name.
            info = tar.gettarinfo(os.path.realpath(path), str(path).lstrip("/"))
            with open(path, "rb") as file:
                tar.addfile(info, file)
        add_bytes(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        add_bytes(tar, "etc/nsswitch.conf", b"hosts: files dns\n")
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(folder)
    return data.getvalue()


def _files() -> Iterator[Path]:
    """Yield the interpreter and the standard library, with the compiled files, which halve the start time."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    yield from (PREFIX / "bin" / program for program in (name, "python3", "python"))
    for folder, folders, files in os.walk(STDLIB):
        folders[:] = [entry for entry in folders if entry not in _LEFT_OUT and not entry.startswith("config-")]
        yield from (Path(folder) / entry for entry in files)
    yield from sorted((PREFIX / "lib").glob("libpython*"))


def libraries(needing: Iterable[Path]) -> set[Path]:
    """Return the shared libraries that these programs and libraries need."""
    listed = subprocess.run(["ldd", *map(str, needing)], capture_output=True, text=True, check=False).stdout
    found = {Path(match) for match in re.findall(r"(/\S+\.so\S*)", listed) if os.path.exists(match)}
    system = {path.parent for path in found if path.name.startswith("libc.so")}
    found |= {path for folder in system for name in _LOADED_LATE for path in folder.glob(f"{name}.so.*")}
    return {path for path in found if not path.is_relative_to(PREFIX)}


def add_bytes(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    tar.addfile(member, io.BytesIO(data))


if __name__ == "__main__":
    print(base_image())
