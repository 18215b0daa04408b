"""State in a running app: edits of a work arrive in the flow, and proposals of the flow arrive in the work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightwork import App, Work
from lightwork.changes import Change, StateChanged
from lightwork.errors import ProposalRefused, StateError
from tests.app.support_flows import Clashing, Echo, Editor, Gate, Merging, PlainBusy, Script, Shipped, Strict

pytestmark = pytest.mark.bare


@pytest.fixture(params=["inprocess", "local"])
def make(request: pytest.FixtureRequest) -> Callable[..., App[Any]]:
    """Make an app around works, on each runtime."""
    return lambda *args, **children: App(Script(*args, **children), runtime=request.param)


async def test_every_kind_of_edit_streams(make: Callable[..., App[Any]]) -> None:
    """Pitfall 7: in-place edits, key removals and attribute deletions each arrive as one change."""
    work: Any = Editor()
    changes: list[Change] = []
    app = make(work=work)
    app.watch(changes.append)
    async with app:
        await work.run("edit")
        assert (work.items, work.table, work.tags) == ([2, 3], {"a": {"b": 1}, "c": [0, 1]}, {"y"})
        assert not hasattr(work, "name_of_it")
    kinds = {(one.path[0], one.kind) for one in changes if isinstance(one, StateChanged) and one.path[0][0] != "_"}
    assert {("items", "splice"), ("table", "set"), ("tags", "update"), ("name_of_it", "delete")} <= kinds


async def test_last_value_arrives(make: Callable[..., App[Any]]) -> None:
    """Sets may coalesce; the last value has arrived when the call ends, and no older value follows it."""
    work: Any = Editor()
    seen: list[Any] = []
    app = make(work=work)
    app.watch(lambda one: seen.append(one.value) if isinstance(one, StateChanged) and one.path == ("n",) else None)
    async with app:
        assert await work.run("count") == work.n == 5000
    assert seen == sorted(set(seen))
    assert seen[-1] == 5000


async def test_snapshots_are_not_torn(make: Callable[..., App[Any]]) -> None:
    """Pitfall 10: a value that changes while it is sent is never seen half changed."""
    work: Any = Editor()
    app = make(work=work)
    torn: list[Any] = []

    def check(change: Change) -> None:
        pair = work.table["a"]
        if "left" in pair and pair["left"] != pair["right"]:
            torn.append(pair)

    app.watch(check)
    async with app:
        await work.run("pairs")
    assert not torn
    assert work.table["a"]["left"] == [1999] * 5


async def test_edits_from_threads_of_a_work(make: Callable[..., App[Any]]) -> None:
    """All edits made in threads of a work arrive, and in order."""
    work: Any = Editor()
    async with make(work=work):
        assert await work.run("threads") == 200
        assert [one for one in work.items if one[0] == "a"] == [f"a{n}" for n in range(100)]
        assert len(work.items) == 200


async def test_edit_of_a_coroutine_that_never_awaits(tmp_path: Path) -> None:
    """The flow sees an edit while the coroutine that made it still blocks the work's loop."""
    gate: Any = Gate(str(tmp_path / "gate"))
    app = App(Script(gate=gate), runtime="local")
    async with app:
        call = await gate.run()
        await app.wait_for(lambda: gate.step == 1)
        assert not call.done
        (tmp_path / "gate").touch()
        await call
        assert gate.step == 2


async def test_edits_before_the_start_travel_with_it(make: Callable[..., App[Any]]) -> None:
    """A value that the flow sets before the start is there when the worker starts, and again after a stop."""
    work: Any = Editor(start_with_flow=False)
    work.n = 1
    async with make(work=work):
        work.n += 1
        work.items.append("flow")
        work.go = True
        assert await work.run("until_go") == [2, ["flow"]]
        await work.stop()
        work.n = 7
        assert await work.run("until_go") == [7, ["flow"]]


async def test_private_is_shipped_and_stays(make: Callable[..., App[Any]]) -> None:
    """A private attribute is sent with the work; the worker's name is the name in the tree."""
    work = Shipped({"deep": [1]})
    async with make(work=work):
        assert await work.run() == [{"deep": [1]}, [1, 2], "root.work"]


# --- proposals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["quiet", "busy"])
async def test_proposal_reaches_an_async_work(make: Callable[..., App[Any]], kind: str) -> None:
    """Pitfall 8: an edit of the flow is visible at once, and reaches the work whether it is idle or busy."""
    work: Any = Editor(parallel=True)
    async with make(work=work) as app:
        if kind == "busy":
            call = await work.run("until_go")
            await app.wait_for(lambda: work.name_of_it == "waiting")
        else:
            await work.start()
        work.n = 42
        work.items.append("flow")
        work.go = True
        assert (work.n, work.items) == (42, ["flow"])
        await work.wait_confirmed()
        if kind == "quiet":
            call = await work.run("until_go")
        assert await call == [42, ["flow"]]


async def test_proposal_reaches_a_plain_work(make: Callable[..., App[Any]]) -> None:
    """Pitfall 8: an edit of the flow reaches a busy plain run."""
    work: Any = PlainBusy()
    async with make(work=work) as app:
        call = await work.run()
        await app.wait_for(lambda: work.ticks == 1)
        work.items.append("flow")
        work.go = True
        assert await call == ["flow"]


async def test_none_to_text_and_back(make: Callable[..., App[Any]]) -> None:
    """Pitfall 8: a change of type, None to a text and back, is a change like any other."""
    work: Any = Editor()
    async with make(work=work):
        await work.start()
        work.name_of_it = "text"
        await work.wait_confirmed()
        assert work.name_of_it == "text"
        work.name_of_it = None
        await work.wait_confirmed()
        assert work.name_of_it is None


async def test_nested_proposals(make: Callable[..., App[Any]]) -> None:
    """Nested edits, deletions of keys, slices and sets of the flow arrive as they were made."""
    work: Any = Editor()
    async with make(work=work):
        await work.start()
        work.table["a"]["b"] = [1]
        work.table["a"]["b"].append(2)
        work.items += [1, 2, 3]
        work.items[0:2] = ["x"]
        work.tags.add("t")
        work.table["gone"] = 1
        del work.table["gone"]
        await work.wait_confirmed()
        expected = ([["x", 3], {"a": {"b": [1, 2]}}, {"t"}],)
        assert ([work.items, work.table, work.tags],) == expected
        work.go = True
        assert await work.run("until_go") == [0, ["x", 3]]


async def test_merge_by_override(make: Callable[..., App[Any]]) -> None:
    """Pitfall 9: 50 increments of the work and 10 of the flow at once make 60, with an async apply_flow_delta."""
    work: Any = Merging()
    async with make(work=work) as app:
        call = await work.run(50)
        for _ in range(10):
            work.n += 1
            await asyncio.sleep(0)
        await call
        await work.wait_confirmed()
        assert app.works == [work]
        assert work.n == 60


async def test_refused_via_wait_confirmed(make: Callable[..., App[Any]]) -> None:
    """wait_confirmed raises a refused change with its reason, and the flow has the work's value again."""
    work: Any = Strict()
    async with make(work=work):
        await work.start()
        work.n = 10
        assert work.n == 10
        with pytest.raises(ProposalRefused, match=r"root.work refused a change of its state: 10 is too much"):
            await work.wait_confirmed()
        assert work.n == 0
        work.n = 9
        await work.wait_confirmed()
        assert await work.run() == 9


async def test_refused_without_a_wait_fails_the_app(make: Callable[..., App[Any]]) -> None:
    """A refused change that is not awaited fails the app."""

    async def script(flow: Any) -> None:
        await flow.work.start()
        flow.work.n = 11

    with pytest.raises(ProposalRefused, match=r"11 is too much"):
        await make(script, work=Strict()).run()


async def test_simultaneous_writes_are_refused(tmp_path: Path) -> None:
    """Pitfall 9: if both sides write one place, the flow's write is refused with an error; the work's value stays."""
    work = Clashing()
    async with App(Script(work=work), runtime="local"):
        await work.start()
        done = tmp_path / "done"
        call = work.submit(str(done))
        while not done.exists():  # the flow's loop is blocked, so that it cannot see the work's write
            time.sleep(0.001)  # noqa: ASYNC251
        work.n = 10
        with pytest.raises(ProposalRefused, match=r"n was changed by .* at the same time: the flow saw 0 there"):
            await work.wait_confirmed()
        await call
        assert work.n == 1


async def test_attribute_deleted_by_the_flow(make: Callable[..., App[Any]]) -> None:
    """A flow cannot delete an attribute of a running work; the attribute is restored."""
    work: Any = Editor()
    async with make(work=work):
        await work.start()
        del work.n
        with pytest.raises(ProposalRefused, match=r"cannot delete the attribute 'n' of a running Editor"):
            await work.wait_confirmed()
        assert work.n == 0


# --- too large ----------------------------------------------------------------------------------


async def test_large_value_in_a_work(make: Callable[..., App[Any]]) -> None:
    """Assigning 100 MB in a work raises a StateError there that names attribute, size and limit; the work goes on."""
    work: Any = Editor()
    async with make(work=work):
        said = await work.run("large")
        assert said.startswith("StateError: Editor.table['large']: the value is 100,000,0")
        assert "max_frame" in said
        assert (work.n, "large" in work.table) == (1, False)


async def test_large_list_in_a_work(make: Callable[..., App[Any]]) -> None:
    """A list of 100 MB fails the call that assigns it, and the work takes the next call."""
    work: Any = Editor()
    async with make(work=work):
        with pytest.raises(StateError, match=r"Editor.items: the value is 100,\d+,\d+ bytes long.*67,104,768"):
            await work.run("large_list")
        assert work.items == []
        assert await work.run("count") == 5000


@pytest.mark.parametrize("value", [b"x" * 100_000_000, "x" * 100_000_000, ["x" * 1_000_000] * 100], ids=type)
async def test_large_value_in_the_flow(value: Any) -> None:
    """Assigning 100 MB in the flow raises a StateError there, and everything else goes on."""
    work: Any = Editor()
    async with App(Script(work=work), runtime="inprocess"):
        await work.start()
        with pytest.raises(StateError, match=r"Editor.n: the value is 100,\d+,\d+ bytes long"):
            work.n = value
        with pytest.raises(StateError, match=r"Editor.items"):
            work.items.extend(value if isinstance(value, list) else [value])
        work.n = 3
        await work.wait_confirmed()
        assert (work.n, work.items) == (3, [])


class Grower(Work):
    """Grows a list beyond the size of one frame by small edits, without awaiting."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[str] = []

    async def run(self) -> int:
        for _ in range(30):
            self.items.append("x" * 5_000)
        return len(self.items)


async def test_many_small_edits_beyond_a_frame() -> None:
    """Joined edits are split again if they are too long for one frame together."""
    work = Grower()
    async with App(Script(work=work), runtime="inprocess", max_frame=20_000):
        assert await work.run() == 30
        assert len(work.items) == 30
        work.items.append("flow")
        await work.wait_confirmed()
        assert work.items[-1] == "flow"


async def test_flow_state_has_no_limit() -> None:
    """A flow's own state is not sent, and may be large."""

    async def script(flow: Any) -> None:
        flow.passes = "x" * 100_000
        flow.stop()

    app = App(Script(script, work=Echo()), runtime="inprocess", max_frame=10_000)
    await app.run()
    assert len(app.root.passes) == 100_000  # type: ignore[arg-type]
