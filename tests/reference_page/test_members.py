"""Every member of the LightningWork page exists as the page describes it, and has a row in the documentation."""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from lightwork import App, BuildConfig, Flow, LightningWork, Work
from lightwork.components.executor import WorkRunExecutor
from lightwork.errors import StateError, UsageError
from tests.support_works import Told

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
ORIGINAL = PROJECT.parent / "shared" / "reference" / "lightning_work.txt"


class Member(NamedTuple):
    """One member of the page."""

    kind: str
    name: str
    signature: str


def members() -> list[Member]:
    """Return the members of the page."""
    lines = [line for line in (HERE / "members.txt").read_text().splitlines() if line and not line.startswith("#")]
    found = []
    for line in lines:
        kind, _, rest = line.partition(" ")
        name, bracket, signature = rest.partition("(")
        found.append(Member(kind, name, bracket + signature))
    return found


def rows() -> dict[str, list[str]]:
    """Return the cells of the documentation's rows by member. A parameter and a property may share a name."""
    found: dict[str, list[str]] = {}
    for line in (PROJECT / "docs" / "lightning_work.md").read_text().splitlines():
        if match := re.match(r"\| `(\w+)` \|", line):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            found.setdefault(match[1], []).extend(cells[1:])
            assert len(cells) == 4, line
    return found


MEMBERS = members()
PARAMETERS = [name.split("=")[0].strip() for name in MEMBERS[0].signature.strip("()").split(",")]


def test_members_are_those_of_the_page() -> None:
    """The list has the page's 34 members, and equals the page if the page is available."""
    assert len(MEMBERS) == 34
    if ORIGINAL.exists():
        on_page = set(re.findall(r"^(?:property |static )?(\w+)[^\n]*\[source\]", ORIGINAL.read_text(), re.MULTILINE))
        assert {member.name for member in MEMBERS} == on_page - {"class"} | {"LightningWork"}


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
def test_member_is_there(member: Member) -> None:
    """For each member there is an attribute of that name, kind and signature."""
    if member.kind == "class":
        assert LightningWork is Work
        given = str(inspect.signature(Work.__init__).replace(return_annotation=inspect.Signature.empty))
        plain = re.sub(r": [^=,)]+(?= =)", "", given).replace(" = ", "=")
        assert plain.startswith("(self, " + member.signature.strip("()") + ", *, ")
        return
    attribute = inspect.getattr_static(Work, member.name)
    kinds = {"property": property, "static": staticmethod, "alias": type}
    if member.kind in kinds:
        assert isinstance(attribute, kinds[member.kind])
    else:
        assert inspect.isfunction(attribute)
    if member.signature:
        names = [str(one.name) for one in inspect.signature(getattr(Work, member.name)).parameters.values()]
        expected = [name.strip().lstrip("*") for name in member.signature.strip("()").split(",") if name.strip()]
        assert [name for name in names if name != "self"] == expected


def test_alias_is_the_executor() -> None:
    """_run_executor_cls is WorkRunExecutor."""
    assert Work._run_executor_cls is WorkRunExecutor


@pytest.mark.parametrize("name", [*PARAMETERS, *(member.name for member in MEMBERS[1:])])
def test_member_has_a_row(name: str) -> None:
    """Each parameter, method and property has a row, and the test named in the row exists."""
    cells = rows().get(name)
    assert cells, f"docs/lightning_work.md has no row for {name}"
    for shown in cells[2::3]:
        path, _, test = shown.strip("`").partition("::")
        source = PROJECT / "tests" / path
        assert source.exists(), shown
        assert f"def {test}(" in source.read_text() if test else True, shown


def test_parameter_and_property_of_one_name_have_a_row_each() -> None:
    """A name that is both a parameter and a property has a row for each."""
    both = {member.name for member in MEMBERS if member.kind == "property"} & set(PARAMETERS)
    found = rows()
    assert {name for name in both if len(found[name]) != 6} == set()


class Counter(Told):
    """Waits until `may_go` is set, then counts."""

    def __init__(self) -> None:
        super().__init__(parallel=True, cache_calls=False)
        self.count = 0
        self.may_go = False

    async def run(self) -> str:
        await self.until("may_go")
        self.count += 1
        return self.name


class Hidden(Work):
    """Keeps some public attributes out of its state."""

    def __init__(self) -> None:
        super().__init__()
        self.tmp_cache = object()
        self.kept = 1

    @staticmethod
    def _is_state_attribute(name: str) -> bool:
        return Work._is_state_attribute(name) and not name.startswith("tmp_")

    def run(self) -> None: ...


class Root(Flow):
    """Holds a work that the tests call."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work

    async def run(self) -> None:
        await asyncio.Event().wait()


def test_is_state_attribute_is_honoured() -> None:
    """An attribute that _is_state_attribute refuses is private: it takes any value and is not in the state."""
    work = Hidden()
    assert [name for name in work.state["vars"] if not name.startswith("_")] == ["kept"]
    assert Work._is_state_attribute("kept")
    assert not Work._is_state_attribute("_kept")
    with pytest.raises(StateError, match="late"):
        work.late = 1  # type: ignore[attr-defined]


def test_properties_say_what_was_given() -> None:
    """The properties return the constructor's arguments, and build configurations may be set."""

    class Given(Work):
        def run(self) -> None: ...

    config = BuildConfig(requirements=["msgspec"])
    work = Given(parallel=True, cache_calls=False, local_build_config=config, cloud_build_config=config)
    assert (work.parallel, work.cache_calls) == (True, False)
    assert work.local_build_config is work.cloud_build_config is config
    work.local_build_config = work.cloud_build_config = other = BuildConfig()
    assert work.local_build_config is work.cloud_build_config is other


@pytest.mark.parametrize("runtime", ["inprocess", "local"])
async def test_num_successes_counts(runtime: str) -> None:
    """num_successes is the number of calls that succeeded."""
    work = Counter()
    work.may_go = True
    async with App(Root(work), runtime=runtime):
        assert [await work.submit() for _ in range(3)] == ["root.work"] * 3
        assert (work.num_successes, work.count) == (3, 3)


async def test_pending_then_running() -> None:
    """A work is pending while its call waits for the process, and running while the call runs."""
    work = Counter()
    work._start_with_flow = False
    async with App(Root(work), runtime="local") as app:
        call = work.submit()
        assert work.is_pending
        assert not work.is_running
        await app.wait_for(lambda: work.is_running)
        work.may_go = True
        await call
        assert work.has_succeeded


async def test_display_name_is_set_before_the_run() -> None:
    """display_name is by default the name in the tree. Setting it is refused once the work is up."""
    work = Counter()
    async with App(Root(work), runtime="inprocess"):
        assert work.display_name == "root.work"
        await work.start()
        with pytest.raises(UsageError, match="before"):
            work.display_name = "late"


async def test_delete_leaves_nothing() -> None:
    """The method delete ends the work and releases what the runtime made for it; a later call starts the work again."""
    work = Counter()
    async with App(Root(work), runtime="local") as app:
        await work.start()
        await work.delete()
        assert work.has_stopped
        assert not work.has_started
        work.may_go = True
        assert await work.submit() == "root.work"
        assert app.is_running
