from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import msgspec
import pytest

import lightwork.engine.workers.runtimes
from lightwork.runtime import Holding, Ref, RuntimeFailure, Unreachable
from tests.cli.invoke import invoke


class _Options(msgspec.Struct, forbid_unknown_fields=True):
    is_down: bool = False


class Machines:
    """A runtime whose machines are set by the test."""

    Options = _Options
    left: ClassVar[list[Holding]] = []
    stuck: ClassVar[set[str]] = set()
    released: ClassVar[list[str]] = []

    def __init__(self, name: str, options: _Options) -> None:
        self.name, self.options = name, options

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def holdings(self) -> Sequence[Holding]:
        if self.options.is_down:
            raise Unreachable("runtimes.down: the cloud could not be asked")
        ours = [msgspec.structs.replace(one, ref=Ref(self.name, one.ref.name)) for one in self.left]
        return [one for one in ours if one.ref.name not in self.released]

    async def release(self, ref: Ref) -> None:
        if ref.name in self.stuck:
            raise ExceptionGroup("stuck", [RuntimeFailure("runtimes.gpu: it is protected")])
        self.released.append(ref.name)


def holding(name: str, wanted: bool | None, age: float = 100.0) -> Holding:
    return Holding(
        ref=Ref("?", name),
        owner=f"owner-{name}",
        work=f"root.{name}",
        place="here",
        id=f"i-{name}",
        size="small",
        state="running",
        age=age,
        is_wanted=wanted,
    )


@pytest.fixture(autouse=True)
def _machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machines, "left", [holding("a", True), holding("b", False, 7200.0), holding("c", None, 30.0)])
    monkeypatch.setattr(Machines, "released", [])
    monkeypatch.setattr(Machines, "stuck", set())
    points = {"machines": EntryPoint("machines", f"{__name__}:Machines", "lightwork.runtimes")}
    points["inprocess"] = lightwork.engine.workers.runtimes.installed()["inprocess"]
    monkeypatch.setattr(lightwork.engine.workers.runtimes, "installed", lambda: points)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lightwork.toml").write_text(
        '[runtimes.here]\nkind = "inprocess"\n[runtimes.gpu]\nkind = "machines"\n[runtimes.same]\nkind = "machines"\n'
    )


def add(text: str) -> None:
    with open("lightwork.toml", "a") as file:
        file.write(text)


def test_ls_shows_each_machine_once() -> None:
    """Each machine is listed once, even if two profiles list it, oldest first, with the status of its app."""
    done = invoke("cloud", "ls")
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert [line[0] for line in lines] == ["MACHINE", "i-b", "i-a", "i-c"]
    assert lines[1] == ["i-b", "gpu", "owner-b", "root.b", "small", "running", "2h00m", "dead"]
    assert [line[-1] for line in lines[2:]] == ["lives", "elsewhere"]


def test_ls_as_json() -> None:
    """With -o json the list is one document."""
    items = invoke("cloud", "ls", "-o", "json").json["items"]
    assert [(item["id"], item["app"], item["work"]) for item in items] == [
        ("i-b", "dead", "root.b"),
        ("i-a", "lives", "root.a"),
        ("i-c", "elsewhere", "root.c"),
    ]


def test_gc_gives_back_what_is_of_dead_apps() -> None:
    """A gc gives back only the machines of dead apps. A second gc has nothing to do. Both exit with code 0."""
    done = invoke("cloud", "gc", "--yes")
    assert (done.code, Machines.released) == (0, ["b"]), done.err
    assert done.out.splitlines()[-1] == "1 of 1 given back"
    again = invoke("cloud", "gc")
    assert (again.code, again.out) == (0, "nothing to give back; 2 machines are kept\n")


def test_gc_elsewhere_takes_those_of_other_machines_too() -> None:
    """--elsewhere includes machines of apps started on another machine, but never a machine whose app lives."""
    assert invoke("cloud", "gc", "--yes", "--elsewhere").code == 0
    assert sorted(Machines.released) == ["b", "c"]


@pytest.mark.parametrize("args", [("--dry-run",), ("--dry-run", "-o", "json")])
def test_dry_run_leaves_everything_and_says_so(args: tuple[str, ...]) -> None:
    """--dry-run gives nothing back, and the exit code tells that there are machines to give back."""
    done = invoke("cloud", "gc", *args)
    assert (done.code, Machines.released) == (5, [])
    assert "i-b" in done.out
    assert "i-a" not in done.out


@pytest.mark.parametrize(("answer", "code", "released"), [(True, 0, ["b"]), (False, 5, [])])
def test_gc_asks(answer: bool, code: int, released: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --yes the command asks for confirmation. The answer no keeps everything."""
    asked: list[str] = []

    def confirm(text: str, **options: Any) -> bool:
        asked.append(text)
        return answer

    monkeypatch.setattr("click.confirm", confirm)
    assert invoke("cloud", "gc").code == code
    assert (asked, Machines.released) == (["Give this machine back?"], released)


def test_what_lives_again_meanwhile_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose app came back while the user was asked is not given back."""

    def confirm(text: str, **options: Any) -> bool:
        monkeypatch.setattr(Machines, "left", [holding("b", True)])
        return True

    monkeypatch.setattr("click.confirm", confirm)
    assert invoke("cloud", "gc").out.splitlines()[-1] == "0 of 1 given back"
    assert Machines.released == []


def test_what_cannot_be_given_back_is_told() -> None:
    """A machine that cannot be given back is named with the reason. Others are given back, and the exit code is 1."""
    Machines.left.append(holding("d", False))
    Machines.stuck.add("b")
    done = invoke("cloud", "gc", "--yes")
    assert (done.code, Machines.released) == (1, ["d"])
    assert "gpu i-b: runtimes.gpu: it is protected" in done.err


def test_profile_that_cannot_be_asked_is_told() -> None:
    """A profile that does not answer hides no machines of other profiles. The exit code is 1."""
    add('[runtimes.down]\nkind = "machines"\nis_down = true\n')
    done = invoke("cloud", "ls")
    assert done.code == 1
    assert "i-b" in done.out
    assert "down: runtimes.down: the cloud could not be asked" in done.err
    assert invoke("cloud", "ls", "gpu").code == 0


@pytest.mark.parametrize(
    ("args", "text", "says"),
    [
        (("ls", "here"), "", "the runtime of profile 'here' does not make machines"),
        (("ls", "nobody"), "", "there is no runtime 'nobody'"),
        (("gc",), "frob = 1\n", "frob"),
        (("gc",), "[runtimes.new]\n", "there is no runtime 'new'"),
    ],
)
def test_usage_errors_give_2(args: tuple[str, ...], text: str, says: str) -> None:
    """A profile without machines, an unknown profile and an invalid configuration are usage errors."""
    add(text)
    done = invoke("cloud", *args)
    assert done.code == 2
    assert says in done.err


def test_no_profile_with_machines_gives_2() -> None:
    """If no profile makes machines, the error says how to add such a profile."""
    Path("lightwork.toml").write_text("")
    done = invoke("cloud", "gc")
    assert done.code == 2
    assert "kind = 'cloud'" in done.err
