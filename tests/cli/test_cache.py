from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import msgspec
import pytest

import lightwork.engine.workers.runtimes
from lightwork.cli.cache import parse_age, size
from lightwork.runtime import Cached, RuntimeFailure, Unreachable
from tests.cli.invoke import invoke

DAY = 86400.0


class _Options(msgspec.Struct, forbid_unknown_fields=True):
    is_down: bool = False


class Shelf:
    """A runtime whose cache entries are set by the test."""

    Options = _Options
    left: ClassVar[list[Cached]] = []
    stuck: ClassVar[set[str]] = set()
    taken: ClassVar[set[str]] = set()
    discarded: ClassVar[list[str]] = []

    def __init__(self, name: str, options: _Options) -> None:
        self.name, self.options = name, options

    async def __aenter__(self) -> Self:
        if self.options.is_down:
            raise Unreachable("runtimes.down: nobody answers")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def cached(self) -> Sequence[Cached]:
        return [entry for entry in self.left if entry.name not in self.discarded]

    async def discard(self, entry: Cached) -> bool:
        if entry.name in self.stuck:
            raise RuntimeFailure("the disk is read-only")
        if entry.name in self.taken:
            return False
        self.discarded.append(entry.name)
        return True


class NeedsKeys(Shelf):
    """A runtime that needs options, so it cannot be made without a profile."""

    class Options(msgspec.Struct):
        where: str


def entry(name: str, age: float | None, *, in_use: bool = False, amount: int = 1_500_000) -> Cached:
    return Cached(
        kind="image", name=name, place="here", size=amount, unused_for=age, in_use=in_use, detail=f"from {name}"
    )


@pytest.fixture(autouse=True)
def _shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [entry("app", DAY), entry("env", 40 * DAY), entry("busy", 0.0, in_use=True), entry("odd", None)]
    monkeypatch.setattr(Shelf, "left", kept)
    monkeypatch.setattr(Shelf, "discarded", [])
    monkeypatch.setattr(Shelf, "stuck", set())
    monkeypatch.setattr(Shelf, "taken", set())
    points = {
        name: EntryPoint(name, f"{__name__}:{target}", "lightwork.runtimes")
        for name, target in (("shelf", "Shelf"), ("needs", "NeedsKeys"), ("broken", "nothing"))
    }
    points["inprocess"] = lightwork.engine.workers.runtimes.installed()["inprocess"]
    monkeypatch.setattr(lightwork.engine.workers.runtimes, "installed", lambda: points)
    monkeypatch.setattr("lightwork.cli.cache.installed", lambda: points)
    monkeypatch.chdir(tmp_path)
    configure("")


def configure(text: str) -> None:
    Path("lightwork.toml").write_text(f'runtime = "shelf"\n{text}')


def test_ls_shows_what_was_not_used_for_longest_first() -> None:
    """Each entry is listed once, even if several profiles list it, with its size and the time of its last use."""
    configure('[runtimes.same]\nkind = "shelf"\n')
    done = invoke("cache", "ls")
    assert done.code == 0, done.err
    lines = [line.split(maxsplit=8) for line in done.out.splitlines()]
    assert [line[0] for line in lines] == ["NAME", "env", "app", "busy", "odd"]
    assert lines[1] == ["env", "image", "shelf", "here", "1.5", "MB", "40d0h", "ago", "from env"]
    assert ["busy" in line and "in use" in line for line in done.out.splitlines()].count(True) == 1
    assert "unknown" in done.out


def test_ls_as_json() -> None:
    """With -o json the list is one document, with sizes in bytes and ages in seconds."""
    document = invoke("cache", "ls", "-o", "json").json
    assert document["errors"] == {}
    assert document["items"][0] == {
        "profile": "shelf",
        "kind": "image",
        "name": "env",
        "place": "here",
        "size": 1_500_000,
        "unused_for": 40 * DAY,
        "in_use": False,
        "detail": "from env",
    }


def test_prune_removes_all_but_what_is_used() -> None:
    """A prune removes unused entries in the order of the runtime. A second prune has nothing to remove."""
    done = invoke("cache", "prune", "--yes")
    assert (done.code, Shelf.discarded) == (0, ["app", "env", "odd"]), done.err
    assert done.out.splitlines()[-1] == "3 of 3 removed, 4.5 MB"
    again = invoke("cache", "prune")
    assert (again.code, again.out) == (0, "nothing to remove, 1 kept\n")


def test_prune_older_than() -> None:
    """--older-than keeps entries that were used since, and entries whose last use is unknown."""
    assert invoke("cache", "prune", "-y", "--older-than", "30d").code == 0
    assert Shelf.discarded == ["env"]


def test_prune_as_json() -> None:
    """With -o json the entries to remove, the removed entries and the freed bytes are one document."""
    Shelf.taken.add("app")
    document = invoke("cache", "prune", "-y", "-o", "json").json
    assert [item["name"] for item in document["items"]] == ["app", "env", "odd"]
    assert [item["name"] for item in document["removed"]] == ["env", "odd"]
    assert (document["freed"], document["errors"]) == (3_000_000, {})


@pytest.mark.parametrize("args", [("--dry-run",), ("--dry-run", "--yes", "-o", "json")])
def test_dry_run_leaves_everything_and_says_so(args: tuple[str, ...]) -> None:
    """--dry-run removes nothing, and the exit code tells that there are entries to remove."""
    done = invoke("cache", "prune", *args)
    assert (done.code, Shelf.discarded) == (5, [])
    assert "env" in done.out
    assert "busy" not in done.out


@pytest.mark.parametrize(("answer", "code", "number"), [(True, 0, 3), (False, 5, 0)])
def test_prune_asks(answer: bool, code: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --yes the command asks for confirmation. The answer no keeps everything."""
    asked: list[str] = []

    def confirm(text: str, **options: Any) -> bool:
        asked.append(text)
        return answer

    monkeypatch.setattr("click.confirm", confirm)
    assert invoke("cache", "prune").code == code
    assert (asked, len(Shelf.discarded)) == (["Remove these 3, 4.5 MB?"], number)


def test_what_is_used_meanwhile_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that a launch used while the user was asked is not removed."""

    def confirm(text: str, **options: Any) -> bool:
        monkeypatch.setattr(Shelf, "left", [entry("env", 1.0), entry("other", 50 * DAY)])
        return True

    monkeypatch.setattr("click.confirm", confirm)
    done = invoke("cache", "prune", "--older-than", "30d")
    assert done.out.splitlines()[-1] == "0 of 1 removed, 0 B"
    assert (done.code, Shelf.discarded) == (0, [])


def test_what_cannot_be_removed_is_told() -> None:
    """An entry that cannot be removed is named with the reason. Other entries are removed, and the exit code is 1."""
    Shelf.stuck.add("app")
    done = invoke("cache", "prune", "--yes")
    assert (done.code, Shelf.discarded) == (1, ["env", "odd"])
    assert "shelf app: the disk is read-only" in done.err


def test_runtime_that_does_not_answer() -> None:
    """A profile that does not answer is an error and hides no other entries. A runtime without a profile is not."""
    configure('[runtimes.down]\nkind = "shelf"\nis_down = true\n')
    done = invoke("cache", "ls")
    assert done.code == 1
    assert "env" in done.out
    assert "down: runtimes.down: nobody answers" in done.err
    assert "needs" not in done.err
    assert invoke("cache", "ls", "--runtime", "shelf").code == 0


@pytest.mark.parametrize(
    ("args", "text", "says"),
    [
        (("ls", "--runtime", "inprocess"), "", "the runtime 'inprocess' keeps nothing"),
        (("ls", "--runtime", "nobody"), "", "there is no runtime 'nobody'"),
        (("ls", "--runtime", "needs"), "", "where"),
        (("prune",), "frob = 1\n", "frob"),
        (
            ("prune", "--older-than", "30"),
            "",
            "must be a number and a unit (s, m, h, d or w), for example 30d, got '30'",
        ),
    ],
)
def test_usage_errors_give_2(args: tuple[str, ...], text: str, says: str) -> None:
    """A runtime without a cache, an unknown runtime, an invalid configuration and an invalid age are usage errors."""
    configure(text)
    done = invoke("cache", *args)
    assert done.code == 2
    assert says in done.err


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("1.5m", 90), ("2h", 7200), ("30d", 30 * DAY), ("1w", 7 * DAY)]
)
def test_age(text: str, seconds: float) -> None:
    """An age is a number and a unit."""
    assert parse_age(text) == seconds


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (123_456, "123 kB"), (10**13, "10.0 TB")]
)
def test_size(number: int, text: str) -> None:
    """A size has at most three digits."""
    assert size(number) == text
