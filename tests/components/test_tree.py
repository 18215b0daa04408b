"""Components in the tree: names, containers, removal and reuse, and errors."""

from __future__ import annotations

from typing import Any

import pytest

from lightwork import App, Flow, Work
from lightwork.errors import ComponentError, StateError, UsageError
from lightwork.structures import Dict, List

pytestmark = pytest.mark.bare


class Job(Work):
    def __init__(self, n: int = 0) -> None:
        super().__init__()
        self.n = n

    async def run(self) -> None: ...


class Inner(Flow):
    def __init__(self) -> None:
        super().__init__()
        self.job = Job()
        self.jobs = [Job(), Job()]

    async def run(self) -> None: ...


class Root(Flow):
    a: Any
    b: Any
    _best: Any
    _both: Any
    fine: Any
    inner: Any
    job: Any
    table: Any
    trials: Any
    data: Any

    def __init__(self, **children: Any) -> None:
        super().__init__()
        self.data = 1
        for name, child in children.items():
            setattr(self, name, child)

    async def run(self) -> None: ...


def rooted(**children: Any) -> Any:
    """Return a root in an app, so that its children have names."""
    return App(Root(**children), runtime="inprocess").root


def names(flow: Flow) -> list[str]:
    return [name for name, _ in flow.named_works()]


# --- names --------------------------------------------------------------------------------------


def test_names() -> None:
    """The name of a component is its path from the root; a component without a root has no name."""
    root = rooted(inner=Inner(), trials=[Job(), Job()], table={"a": Job(), "b": [Job()]})
    assert root.name == "root"
    assert root.inner.jobs[1].name == "root.inner.jobs.1"
    assert root.trials[0].name == "root.trials.0"
    assert root.table["b"][0].name == "root.table.b.0"
    assert Job().name == Inner().job.name == ""


@pytest.mark.parametrize("attached_first", [True, False])
def test_containers_filled_before_or_after(attached_first: bool) -> None:
    """Pitfall 15: nested containers get the same names if they are filled before or after they are attached."""
    root = rooted()
    outer: Any = Dict()
    inner: Any = List()

    def fill() -> None:
        inner.append(Job())
        inner.extend([Job(), [Job(), Job()]])

    if attached_first:
        root_like = Root(outer=outer)
        outer["x"] = inner
        fill()
    else:
        fill()
        outer["x"] = inner
        root_like = Root(outer=outer)
    root = App(root_like).root
    assert names(root) == [f"root.outer.x.{tail}" for tail in ("0", "1", "2.0", "2.1")]
    assert len({work.name for work in root.works()}) == 4


def test_plain_lists_and_dicts_become_structures() -> None:
    """Lists, tuples and dicts of components become List and Dict, nested ones too."""
    root = rooted(a=[Job(), {"x": Job()}], b=(Job(),), c={"y": [Job()]})
    assert [type(root.a), type(root.a[1]), type(root.b), type(root.c["y"])] == [List, Dict, List, List]


def test_works_and_flows() -> None:
    """works, named_works and flows list the components below, in the order in which they were set."""
    root = rooted(first=Job(), inner=Inner(), trials=[Job(), Inner()])
    assert names(root) == [
        "root.first",
        "root.inner.job",
        "root.inner.jobs.0",
        "root.inner.jobs.1",
        "root.trials.0",
        "root.trials.1.job",
        "root.trials.1.jobs.0",
        "root.trials.1.jobs.1",
    ]
    assert [work.name for work in root.works(recurse=False)] == ["root.first", "root.trials.0"]
    assert list(root.flows) == ["root.inner", "root.trials.1"]
    assert [work.name for work in root.inner.works()] == ["root.inner.job", "root.inner.jobs.0", "root.inner.jobs.1"]
    assert len(root.trials.works) == 4
    assert list(root.trials.flows) == ["root.trials.1"]


def test_ready() -> None:
    """A flow is ready when its child flows are ready; a subclass may override that."""

    class Late(Inner):
        is_up = False

        @property
        def ready(self) -> bool:
            return self.is_up

    root = rooted(late=Late())
    assert not root.ready
    Late.is_up = True
    assert root.ready


# --- the containers -----------------------------------------------------------------------------


def test_list_names_are_kept() -> None:
    """A List names each item by a number that never changes and is never reused, in any order."""
    root = rooted(trials=[Job(0), Job(1), Job(2)])
    del root.trials[0]
    root.trials.insert(0, Job(3))
    assert names(root) == ["root.trials.3", "root.trials.1", "root.trials.2"]
    root.trials.reverse()
    assert names(root) == ["root.trials.2", "root.trials.1", "root.trials.3"]
    root.trials.sort(key=lambda job: job.n)
    assert names(root) == ["root.trials.1", "root.trials.2", "root.trials.3"]
    root.trials[0] = Job(4)
    assert names(root) == ["root.trials.4", "root.trials.2", "root.trials.3"]
    root.trials[1:] = [Job(5)]
    assert names(root) == ["root.trials.4", "root.trials.5"]
    assert root.trials.pop().n == 5


def test_filtered_list_is_assigned() -> None:
    """A new list that contains present items keeps them with their names, and removes the other items."""
    root = rooted(trials=[Job(n) for n in range(4)], table={"a": Job(), "b": Job()})
    trials, third = root.trials, root.trials[3]
    root.trials = [job for job in root.trials if job.n % 2]
    assert names(root)[:2] == ["root.trials.1", "root.trials.3"]
    assert root.trials is trials
    assert root.trials[1] is third
    root.table = {"b": root.table["b"], "c": Job()}
    assert list(root.table) == ["b", "c"]
    root.trials += [Job()]
    assert root.trials[-1].name == "root.trials.4"
    root.trials = []
    assert (len(root.trials), third.name) == (0, "")


def test_dict() -> None:
    """A Dict names each item by its key."""
    root = rooted(table=Dict(a=Job()))
    root.table["b"] = Job()
    root.table["a"] = replaced = Job()
    assert names(root) == ["root.table.a", "root.table.b"]
    assert root.table.pop("a") is replaced
    assert replaced.name == ""
    assert "a" not in root.table


@pytest.mark.parametrize("key", ["", "a.b", 1, None])
def test_dict_keys(key: Any) -> None:
    """A key that is not a valid name is refused."""
    with pytest.raises(ComponentError, match=r"cannot be a key of a Dict"):
        Dict({key: Job()})


@pytest.mark.parametrize("bad", [[Job(), 1], {"a": Job(), "b": None}, [Job(), []], [[Job()], "x"]])
def test_mixed_containers(bad: Any) -> None:
    """A container of components and data is refused, and its components can be used elsewhere."""
    root = Root()
    with pytest.raises(ComponentError, match=r"keep components and data in attributes of their own"):
        root.mixed = bad  # type: ignore[attr-defined]
    first = next(iter(bad.values() if isinstance(bad, dict) else bad))
    root.fine = first
    assert root.fine is not None


def test_list_takes_components_only() -> None:
    """A List or Dict refuses data, and does not change."""
    trials: List[Any] = List([Job()])
    with pytest.raises(ComponentError, match=r"a List holds components, and 3 is a int"):
        trials.append(3)
    with pytest.raises(ComponentError, match=r"a Dict holds components"):
        Dict(a=3)  # type: ignore[type-var]
    assert len(trials) == 1


# --- twice --------------------------------------------------------------------------------------


def test_used_by_two_parents() -> None:
    """A component has one place. A second place is refused with the name of the first, and nothing changes."""
    root = rooted(job=Job(), inner=Inner())
    with pytest.raises(ComponentError, match=r"Job is used twice: it is root.job already, and cannot be 'job' of"):
        root.inner.job = root.job
    with pytest.raises(ComponentError, match=r"used twice"):
        root.other = [Job(), root.job]
    fresh = Job()
    with pytest.raises(ComponentError, match=r"used twice"):
        root.other = [fresh, root.job]
    root.other = fresh
    assert (fresh.name, root.job.name, root.inner.job.name) == ("root.other", "root.job", "root.inner.job")


def test_twice_in_one_container() -> None:
    """A container with one component twice is refused."""
    job = Job()
    with pytest.raises(ComponentError, match=r"cannot be in a List twice: make a second instance"):
        Root(x=[[job], [job]])
    trials = List([job])
    with pytest.raises(ComponentError, match=r"twice"):
        trials.append(job)


def test_inside_of_itself() -> None:
    """A flow cannot hold a component that contains the flow."""
    outer, inner = Root(), Root()
    outer.inner = inner
    with pytest.raises(ComponentError, match=r"is inside .* and cannot hold it"):
        inner.outer = outer  # type: ignore[attr-defined]


# --- references and data ------------------------------------------------------------------------


def test_private_attribute() -> None:
    """A private attribute may keep only components that have a place, also in a list."""
    root = Root(a=Job(), b=Job())
    root._best = root.a
    root._both = [root.a, root.b]
    assert type(root._both) is list
    assert root._best.name == root.a.name
    for unplaced in (Job(), [Job()], {"a": [Job()]}):
        with pytest.raises(ComponentError, match=r"Root._x would keep a Job out of the tree.*public name"):
            root._x = unplaced  # type: ignore[attr-defined]


def test_component_appended_to_data() -> None:
    """A component in a list or dict of data is refused, and the error names the way out."""
    root = Root(trials=[], table={})
    with pytest.raises(StateError, match=r"Root.trials\[0\]: a Job is a component.*lightwork.structures.List\(\)"):
        root.trials.append(Job())
    with pytest.raises(StateError, match=r"Root.table\['a'\]: a Job is a component.*Dict\(\)"):
        root.table["a"] = Job()
    assert (root.trials, root.table) == ([], {})


def test_nothing_makes_way_for_a_component() -> None:
    """Components may replace None and empty containers, and None may replace components."""
    root = rooted(job=None, trials=[])
    root.job = Job()
    root.trials = [Job()]
    assert names(root) == ["root.job", "root.trials.0"]
    assert root.state_dict()["vars"] == {"data": 1}
    root.job = None
    assert names(root) == ["root.trials.0"]
    assert root.state_dict()["vars"]["job"] is None
    root.job = Job()
    assert root.job.name == "root.job"


def test_data_and_components_keep_their_names() -> None:
    """Data cannot replace a component, and a component cannot replace data."""
    root = Root(job=Job())
    with pytest.raises(StateError, match=r"data is data and cannot become a component"):
        root.data = Job()
    with pytest.raises(ComponentError, match=r"job is a component and cannot become 3: `del self.job` removes it"):
        root.job = 3
    for name in ("works", "run", "name"):
        with pytest.raises(ComponentError, match=rf"Root.{name} is a method or property of the class"):
            setattr(root, name, Job())


def test_class_level_default_of_a_child() -> None:
    """A class may declare a child with a class attribute of None."""

    class Announced(Root):
        job: Any = None

    root = Announced()
    root.job = Job()
    assert root.works() == [root.job]


# --- leaving ------------------------------------------------------------------------------------


def test_removed_and_used_again() -> None:
    """A component that was removed, replaced or taken out of a container has no place, and can get one again."""
    root = rooted(a=Job(), b=Job(), trials=[Job()], inner=Inner())
    a, b, trial, inner = root.a, root.b, root.trials[0], root.inner
    del root.a
    root.b = Job()
    root.trials.remove(trial)
    del root.inner
    assert [one.name for one in (a, b, trial, inner, inner.job)] == [""] * 5
    assert not hasattr(root, "a")
    root.c, root.trials[:] = a, [b, trial]
    root.inner = inner
    assert [one.name for one in (a, b, trial, inner.job)] == [
        "root.c",
        "root.trials.1",
        "root.trials.2",
        "root.inner.job",
    ]


def test_stop_needs_an_app() -> None:
    """The methods stop and fail of a flow need a running app."""
    for method in (Root().stop, Root().fail):
        with pytest.raises(UsageError, match=r"needs a running app; make one with App\(Root\(\)\)"):
            method()


def test_flow_without_run() -> None:
    """A flow without a run is refused."""

    class Empty(Flow):
        pass

    with pytest.raises(ComponentError, match=r"Empty has no run method"):
        Empty()


# --- state as data ------------------------------------------------------------------------------


def tree() -> Any:
    return Root(inner=Inner(), trials=[Job(1), Job(2)], job=Job(3))


def test_state_of_a_tree() -> None:
    """The state of a flow has the groups of the reference, and contains the state of everything below it."""
    state = tree().state
    assert set(state) == {"vars", "calls", "flows", "works", "structures", "changes"}
    assert state["structures"]["trials"]["1"]["vars"]["n"] == 2
    assert state["flows"]["inner"]["structures"]["jobs"]["0"]["vars"]["n"] == 0
    assert state["works"]["job"]["calls"] == {"latest_call_hash": None}


def test_state_dict_of_a_tree_is_taken_back() -> None:
    """load_state_dict makes the state of a tree of the same shape equal."""
    one, other = tree(), tree()
    one.data, one.trials[1].n, one.inner.job.n = 7, 8, 9
    other.load_state_dict(one.state_dict())
    assert other.state_dict() == one.state_dict()
    other.data = 0
    other.set_state(one.state)
    assert other.data == 7


def test_state_dict_of_another_tree() -> None:
    """A state of another tree is refused with every key, and changes nothing. Unless strict, what fits is loaded."""
    one, other = tree(), tree()
    one.data, one.trials[0].n = 7, 8
    state = one.state_dict()
    del state["works"]["job"]
    state["structures"]["trials"]["5"] = {"vars": {}}
    state["flows"]["inner"]["vars"]["new"] = 1
    with pytest.raises(StateError) as caught:
        other.load_state_dict(state)
    for part in ("has inner.new", "lacks job", "has trials.5"):
        assert part in str(caught.value)
    assert other.state_dict() == tree().state_dict()
    other.load_state_dict(state, strict=False)
    assert (other.data, other.trials[0].n, other.job.n) == (7, 8, 3)


def test_bad_value_deep_in_a_state() -> None:
    """One value that the state cannot hold refuses the whole state."""
    root = tree()
    state = root.state_dict()
    state["vars"]["data"] = 5
    state["structures"]["trials"]["1"]["vars"]["n"] = object()
    with pytest.raises(StateError, match=r"Job.n: a value of type object"):
        root.load_state_dict(state)
    assert root.data == 1
