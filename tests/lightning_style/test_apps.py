"""Each app of `apps` runs to its end, in this process and in separate processes, with the expected result."""

# The apps have no annotations.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lightwork import LightningApp, LightningFlow
from tests.lightning_style import apps

pytestmark = pytest.mark.bare


@pytest.fixture(params=["inprocess", "local"])
def runtime(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def run(root: LightningFlow, runtime: str) -> tuple[Any, str | None]:
    """Return the root after the app's end, and its message."""
    app = LightningApp(root, runtime=runtime)
    asyncio.run(app.run())
    return root, app.stop_message


def test_sequence(runtime: str) -> None:
    """Two works run one after the other; the second uses the state of the first."""
    root, message = run(apps.TrainAndDeploy(), runtime)
    assert root.train.num_epochs == 3
    assert root.deploy.serves == "model-3.ckpt"
    assert message == "deployed"


def test_polled(runtime: str) -> None:
    """Parallel works are polled until both have succeeded."""
    root, _ = run(apps.Polled(), runtime)
    assert root.total == 13


@pytest.mark.parametrize("kind", [apps.Repeated, apps.RepeatedInParallel])
def test_repeated(kind: type[LightningFlow], runtime: str) -> None:
    """A work without a cache runs again as long as the flow calls it, even if nothing else changes."""
    root, _ = run(kind(), runtime)
    assert root.work.counter >= 3


def test_cached(runtime: str) -> None:
    """A work with a cache runs once for each set of arguments, however often the flow calls it."""
    root, _ = run(apps.Cached(), runtime)
    assert root.once.counter == 2
    assert root.once.num_successes == 2


def test_dynamic(runtime: str) -> None:
    """Works made in run, in a Dict, in a List and as an attribute have their names."""
    root, _ = run(apps.Dynamic(2), runtime)
    assert root.values == {
        "root.by_name.w0": 0,
        "root.by_name.w1": 1,
        "root.in_order.0": 10000,
        "root.in_order.1": 10201,
        "root.extra": 100,
    }


def test_nested(runtime: str) -> None:
    """The root calls a child flow's run with arguments; the run is cut short and repeated with the root's pass."""
    root, _ = run(apps.Nested(), runtime)
    assert root.pipeline.finished == ["data-0", "data-1"]
    assert root.pipeline.fit.num_epochs == 3


def test_schedule(runtime: str) -> None:
    """Pitfall 21: a firing spans several works without a cache, and each runs once for it."""
    root, _ = run(apps.Nightly(), runtime)
    assert root.finished == 1
    assert (root.extract.counter, root.load.counter, root.extra.counter) == (1, 1, 1)


def test_tolerant(runtime: str) -> None:
    """With raise_exception=False the flow decides about a failure, and the work does not run again and again."""
    root, message = run(apps.Tolerant(), runtime)
    assert root.fragile.tries == 1
    assert root.fallback.serves == "yesterday's"
    assert message is not None
    assert "the data are bad" in message


def test_intolerant(runtime: str) -> None:
    """Without raise_exception=False a failing work fails the app with the work's own exception."""
    with pytest.raises(ValueError, match="the data are bad"):
        run(apps.Intolerant(), runtime)


def test_converse(runtime: str) -> None:
    """A flow reads and sets the state of a running work."""
    root, _ = run(apps.Converse(), runtime)
    assert root.listen.should_end is True
    assert root.listen.heard > 3


def test_one_by_one(runtime: str) -> None:
    """An iteration goes through its items over many passes, each item once."""
    root, _ = run(apps.OneByOne(), runtime)
    assert root.seen == [1, 2, 3]
    assert root.train.num_epochs == 6


def test_one_work() -> None:
    """An app can be one work, which runs once."""
    apps.alone.configure(runtime="inprocess")
    asyncio.run(apps.alone.run())
    assert apps.alone.works[0].counter == 1  # type: ignore[attr-defined]
