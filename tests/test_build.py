from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lightwork.build import BuildConfig
from lightwork.errors import ConfigError


@dataclass
class WithCommands(BuildConfig):
    def build_commands(self) -> list[str]:
        return ["apt-get install -y graphviz"]


def test_a_build_config_starts_empty() -> None:
    """Without arguments no requirement is set, and two instances share no list."""
    build = BuildConfig()
    assert (build.requirements, build.dockerfile, build.image) == ([], None, None)
    assert build.build_commands() == []
    assert build.requirements is not BuildConfig().requirements


def test_a_dataclass_subclass_overrides_build_commands() -> None:
    """A subclass decorated with `@dataclass`, as Lightning programs write it, keeps the fields and the checks."""
    build = WithCommands(["numpy"], image="python:3.11")
    assert build.build_commands() == ["apt-get install -y graphviz"]
    assert (build.requirements, build.image) == (["numpy"], "python:3.11")
    with pytest.raises(ConfigError, match="requirement must not be empty"):
        WithCommands([" "])


def test_requirement_files_are_read_when_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A requirements file, relative to the working directory, is replaced by its lines without comments and blanks."""
    (tmp_path / "requirements.txt").write_text("# pinned\nnumpy==2.0  # arrays\n\nit @ file:///a.zip#sha256=1\n")
    monkeypatch.chdir(tmp_path)
    lines = ["numpy==2.0", "it @ file:///a.zip#sha256=1"]
    assert BuildConfig("requirements.txt").requirements == lines
    assert BuildConfig(["rich", "requirements.txt"]).requirements == ["rich", *lines]
    from_path: Any = tmp_path / "requirements.txt"
    assert BuildConfig(from_path).requirements == lines


def test_a_missing_requirements_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing requirements file is an error that names its absolute path."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        BuildConfig("none.txt")
    assert str(tmp_path / "none.txt") in str(caught.value)


def test_requirement_files_name_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-r FILE` is replaced by that file's lines, `-c FILE` stays. Paths are relative to the file that names them."""
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "top.txt").write_text("a\n-r inner/one.txt\n--requirement=inner/two.txt\n-c limits.txt\n--pre\n")
    (inner / "one.txt").write_text("b == 1 \\\n    --hash=sha256:0\n-r two.txt\n")
    (inner / "two.txt").write_text("c\n-c https://example.org/limits.txt\n")
    monkeypatch.chdir(tmp_path)
    two = ["c", "-c https://example.org/limits.txt"]
    lines = ["a", "b == 1      --hash=sha256:0", *two, *two, f"-c {tmp_path / 'limits.txt'}", "--pre"]
    assert BuildConfig("top.txt").requirements == lines
    assert BuildConfig(["-r top.txt", " d "]).requirements == [*lines, "d"]


def test_a_requirements_file_that_names_itself_is_refused(tmp_path: Path) -> None:
    """A circular -r is an error that names the file; using a file twice is allowed."""
    (tmp_path / "a.txt").write_text("-r b.txt\n")
    (tmp_path / "b.txt").write_text("-r a.txt\n")
    with pytest.raises(ConfigError, match=r"a\.txt' includes itself"):
        BuildConfig(str(tmp_path / "a.txt"))


def test_a_dockerfile_is_a_path_or_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dockerfile text is kept unchanged; a path is made absolute, must exist, and is read on request."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    monkeypatch.chdir(tmp_path)
    build = BuildConfig(dockerfile="Dockerfile")
    assert build.dockerfile == str(tmp_path / "Dockerfile")
    assert build.dockerfile_text() == "FROM scratch\n"
    assert BuildConfig(dockerfile="FROM python:3.11").dockerfile_text() == "FROM python:3.11"
    assert BuildConfig().dockerfile_text() is None
    with pytest.raises(ConfigError, match="dockerfile not found: "):
        BuildConfig(dockerfile="Dockerfil")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"image": "a", "dockerfile": "FROM b"}, "image and dockerfile exclude each other"),
        ({"requirements": "numpy"}, "must be a list"),
        ({"requirements": 3}, "must be a list"),
        ({"requirements": [3]}, "must be a string, got 3"),
        ({"requirements": [""]}, "requirement must not be empty"),
        ({"requirements": ["a\nb"]}, "must be one line"),
        ({"requirements": b"a"}, "must be a string, got 97"),
        ({"image": ""}, "image must not be empty"),
        ({"image": 3}, "image must be a string"),
        ({"dockerfile": 3}, "dockerfile must be a string"),
    ],
)
def test_bad_fields_are_refused(fields: dict[str, Any], said: str) -> None:
    """Each invalid field raises a ConfigError that names the field and the reason."""
    with pytest.raises(ConfigError, match=said):
        BuildConfig(**fields)


def test_it_travels_as_msgpack_and_as_pickle() -> None:
    """A build config survives msgpack and pickle, and a subclass survives pickle with its commands."""
    build = BuildConfig(["a"], image="b")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(build), type=BuildConfig) == build
    assert pickle.loads(pickle.dumps(WithCommands(["a"]))).build_commands() == WithCommands().build_commands()


def test_decoding_checks_too() -> None:
    """Decoded data is checked like constructor arguments."""
    data = msgspec.msgpack.encode({"image": "a", "dockerfile": f"FROM b{os.linesep}"})
    with pytest.raises(msgspec.ValidationError, match="image and dockerfile exclude each other"):
        msgspec.msgpack.decode(data, type=BuildConfig)
