"""The public path of a class: tracebacks, ``repr`` and pickles show where users import it from."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
import traceback
from collections.abc import Iterator
from typing import Any, get_type_hints

import cloudpickle
import msgspec
import pytest

import lightwork
from lightwork import BuildConfig, CloudCompute, Config, Mount, Reason, Stage, Work, WorkStatus
from lightwork.errors import AppEnded, ComponentError, LightworkError, UsageError
from lightwork.remote_errors import describe_error, rebuild_error
from tests.api_page import FRAMEWORK

pytestmark = pytest.mark.bare


def classes() -> Iterator[tuple[str, type]]:
    """Each class in `__all__` of a public module, with the first of these modules that exports it."""
    seen = set()
    for module in FRAMEWORK:
        for name in importlib.import_module(module).__all__:
            found = getattr(importlib.import_module(module), name)
            if isinstance(found, type) and found not in seen:
                seen.add(found)
                yield module, found


@pytest.mark.parametrize(
    ("module", "exported"), list(classes()), ids=lambda value: getattr(value, "__name__", str(value))
)
def test_class_has_its_public_path(module: str, exported: type) -> None:
    """A public class says that it is from the public module, and pickles by that path."""
    assert exported.__module__ == module
    assert getattr(importlib.import_module(module), exported.__name__) is exported
    assert pickle.loads(pickle.dumps(exported)) is exported
    assert cloudpickle.loads(cloudpickle.dumps(exported)) is exported


@pytest.mark.parametrize(
    "value",
    [
        WorkStatus(Stage.FAILED, 1.0, Reason.OOM, "too much"),
        CloudCompute("gpu", mounts=[Mount("s3://foo/bar")]),
        BuildConfig(requirements=["numpy"]),
        Config(port=80, works={"root.*": {"runtime": "gpu"}}),  # type: ignore[dict-item]
        Stage.RUNNING,
    ],
    ids=lambda value: type(value).__name__,
)
def test_value_survives(value: Any) -> None:
    """A value of a public class survives pickle and msgspec, and the hints of its class resolve."""
    assert pickle.loads(pickle.dumps(value)) == value
    data = msgspec.msgpack.encode(value)
    assert msgspec.msgpack.decode(data, type=type(value)) == value
    get_type_hints(type(value), include_extras=True)


def test_value_survives_in_a_fresh_process() -> None:
    """A pickle of public classes loads where nothing but the standard library was imported before."""
    kinds = [found for _, found in classes()]
    program = "import pickle, sys; print(len(pickle.load(sys.stdin.buffer)))"
    done = subprocess.run([sys.executable, "-c", program], input=pickle.dumps(kinds), capture_output=True, check=True)
    assert int(done.stdout) == len(kinds)


def test_components_show_their_path() -> None:
    """The public path is what ``repr`` of a class shows, and what an error says that it is."""
    assert repr(Work) == "<class 'lightwork.Work'>"
    assert repr(lightwork.App[lightwork.Flow]) == "lightwork.App[lightwork.Flow]"
    assert "lightwork.AppEnded: x" in "".join(traceback.format_exception(AppEnded("x")))


@pytest.mark.parametrize("error", [AppEnded("x"), UsageError("x"), ComponentError("x")])
def test_error_arrives_as_its_own_class(error: LightworkError) -> None:
    """An error of lightwork that a worker raises arrives in the flow as its own class."""
    assert type(rebuild_error(describe_error(error), work="root.work")) is type(error)


class Plain(Work):
    def run(self) -> None: ...


def test_frames_of_the_framework_are_hidden() -> None:
    """The traceback of an error that a component raises ends at the line of the caller."""
    with pytest.raises(UsageError) as caught:
        Plain().submit()
    shown = describe_error(caught.value).traceback.replace("\\", "/")
    assert "test_public_paths.py" in shown
    assert "components/work.py" not in shown
