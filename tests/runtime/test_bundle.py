from __future__ import annotations

import io
import logging
import os
import tarfile
from pathlib import Path

import pytest

from lightwork.errors import UsageError
from lightwork.runtime import bundle as module
from lightwork.runtime.bundle import Bundle, make_bundle, unpack


def make_app(folder: Path) -> Path:
    (folder / "pkg").mkdir(parents=True)
    (folder / "app.py").write_text("import pkg\n")
    (folder / "pkg" / "__init__.py").write_text("x = 1\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o700)
    (folder / "link.py").symlink_to("app.py")
    return folder


def tar_of(bundle: Bundle) -> io.BytesIO:
    data = io.BytesIO()
    bundle.write(data)
    data.seek(0)
    return data


def test_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    """Times, owners, umask and the order in which files were made do not change the digest or the tar."""
    first = make_app(tmp_path / "one")
    second = tmp_path / "two"
    second.mkdir()
    (second / "link.py").symlink_to("app.py")
    (second / "run.sh").write_text("#!/bin/sh\n")
    (second / "run.sh").chmod(0o755)
    (second / "pkg").mkdir(mode=0o700)
    (second / "pkg" / "__init__.py").write_text("x = 1\n")
    (second / "app.py").write_text("import pkg\n")
    os.utime(second / "app.py", (1, 1))
    one, two = make_bundle(first), make_bundle(second)
    assert one.digest == two.digest
    assert tar_of(one).getvalue() == tar_of(two).getvalue()


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "app.py").write_text("import pkg #\n"),
        lambda folder: (folder / "app.py").chmod(0o755),
        lambda folder: (folder / "app.py").rename(folder / "ap.py"),
        lambda folder: (folder / "new").write_text(""),
    ],
    ids=["content", "executable", "name", "new file"],
)
def test_every_change_changes_the_digest(change: object, tmp_path: Path) -> None:
    """A change of a file's content, executable bit, name or presence changes the digest."""
    folder = make_app(tmp_path / "app")
    (folder / "link.py").unlink()
    before = make_bundle(folder)
    assert callable(change)
    change(folder)
    assert make_bundle(folder).digest != before.digest


def test_round_trip(tmp_path: Path) -> None:
    """The unpacked folder has the files, links and executable bits of the original, without ignored files."""
    folder = make_app(tmp_path / "app")
    (folder / ".lightningignore").write_text("data/\n")
    (folder / "data").mkdir()
    (folder / "data" / "big").write_bytes(b"x" * 1000)
    bundle = make_bundle(folder, ["*.tmp"])
    target = tmp_path / "there" / "app"
    unpack(tar_of(bundle), target, bundle.digest)
    found = sorted(str(path.relative_to(target)) for path in target.rglob("*"))
    assert found == [".lightningignore", "app.py", "link.py", "pkg", "pkg/__init__.py", "run.sh"]
    assert (target / "link.py").readlink() == Path("app.py")
    assert os.access(target / "run.sh", os.X_OK)
    assert not (target / "app.py").stat().st_mode & 0o111
    assert bundle.size == sum((folder / name).lstat().st_size for name in bundle.files)
    assert os.listdir(target.parent) == ["app"]


def test_folder_that_is_there_stays(tmp_path: Path) -> None:
    """Unpacking into a folder that exists changes nothing."""
    bundle = make_bundle(make_app(tmp_path / "app"))
    unpack(tar_of(bundle), tmp_path / "there")
    (tmp_path / "there" / "mark").write_text("")
    unpack(tar_of(bundle), tmp_path / "there")
    assert (tmp_path / "there" / "mark").exists()


def test_change_while_bundling_is_noticed(tmp_path: Path) -> None:
    """Writing a bundle fails if a file has changed since the digest was computed."""
    folder = make_app(tmp_path / "app")
    bundle = make_bundle(folder)
    (folder / "app.py").write_text("import sys\n")
    with pytest.raises(UsageError, match="changed while they were bundled"):
        bundle.write(io.BytesIO())


def test_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    """A link that leads out of the folder is an error that names the link."""
    folder = make_app(tmp_path / "app")
    (folder / "passwords").symlink_to("/etc/passwd")
    with pytest.raises(UsageError, match="passwords -> /etc/passwd"):
        make_bundle(folder)


def test_large_folder_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Above the limit a warning names the largest files, and the bundle is made anyway."""
    monkeypatch.setattr(module, "LARGE", 1000)
    folder = make_app(tmp_path / "app")
    (folder / "weights").write_bytes(b"x" * 2_000_000)
    with caplog.at_level(logging.WARNING, "lightwork"):
        bundle = make_bundle(folder)
    assert "weights (2.0 MB)" in caplog.text
    assert "weights" in bundle.files


def evil(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> io.BytesIO:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        tar.addfile(member)
    data.seek(0)
    return data


@pytest.mark.parametrize(
    "tar",
    [
        evil("../out"),
        evil("a/../../out"),
        evil("link", tarfile.SYMTYPE, "/etc/passwd"),
        evil("link", tarfile.SYMTYPE, "../out"),
        evil("hard", tarfile.LNKTYPE, "../out"),
        evil("device", tarfile.CHRTYPE),
        io.BytesIO(b"no tar at all"),
    ],
    ids=["parent", "hidden parent", "absolute link", "link out", "hard link out", "device", "no tar"],
)
def test_tar_that_leads_out_is_refused(tar: io.BytesIO, tmp_path: Path) -> None:
    """A tar with members that lead out is refused, and no file is left outside or inside of the target."""
    tar.seek(0)
    with pytest.raises(UsageError, match="refused"):
        unpack(tar, tmp_path / "place" / "target")
    assert os.listdir(tmp_path) == ["place"]
    assert os.listdir(tmp_path / "place") == []


def test_damaged_bundle_is_refused(tmp_path: Path) -> None:
    """A tar with another digest is not unpacked."""
    bundle = make_bundle(make_app(tmp_path / "app"))
    data = tar_of(bundle).getvalue()
    with pytest.raises(UsageError, match="damaged"):
        unpack(io.BytesIO(data[:-1]), tmp_path / "target", bundle.digest)
    assert not (tmp_path / "target").exists()
