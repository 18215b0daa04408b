from __future__ import annotations

import inspect
import math
from typing import Any

import msgspec
import pytest

from lightwork.compute import CloudCompute, Mount
from lightwork.errors import ConfigError


def test_the_parameters_are_those_of_the_upstream() -> None:
    """The constructor takes upstream's parameters, in its order, with its defaults."""
    given = {name: parameter.default for name, parameter in inspect.signature(CloudCompute).parameters.items()}
    assert list(given.items()) == [
        ("name", "default"),
        ("disk_size", 0),
        ("idle_timeout", None),
        ("shm_size", None),
        ("mounts", None),
        ("colocation_group_id", None),
        ("interruptible", False),
    ]


def test_mounts_are_one_or_several() -> None:
    """`mount_points` gives the mounts however they were given."""
    one, two = Mount("a", "/a"), Mount("b", "/b")
    assert CloudCompute().mount_points == ()
    assert CloudCompute(mounts=one).mount_points == (one,)
    assert CloudCompute(mounts=[one, two]).mount_points == (one, two)


def test_it_travels_as_msgpack() -> None:
    """A compute with everything set is equal after msgpack."""
    compute = CloudCompute("gpu", 10, 60, 512, [Mount("a", "/a")], "group", True)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(compute), type=CloudCompute) == compute


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": ""}, "name must be a non-empty string"),
        ({"name": 3}, "name must be a non-empty string, got 3"),
        ({"disk_size": -1}, "disk_size must be a number of GB"),
        ({"disk_size": 1.5}, "disk_size"),
        ({"disk_size": True}, "disk_size"),
        ({"shm_size": -1}, "shm_size must be a number of MB"),
        ({"idle_timeout": -1}, "idle_timeout must be a number of seconds"),
        ({"idle_timeout": math.nan}, "idle_timeout"),
        ({"colocation_group_id": ""}, "colocation_group_id"),
        ({"interruptible": 1}, "interruptible must be True or False"),
        ({"mounts": "a"}, "mounts must be a Mount"),
        ({"mounts": ["a"]}, "mounts must be a Mount"),
        ({"mounts": [Mount("a", "/x"), Mount("b", "/x/")]}, "share the path '/x': 'a' and 'b'"),
    ],
)
def test_bad_fields_are_refused(fields: dict[str, Any], said: str) -> None:
    """Each bad field is a ConfigError that says which and why."""
    with pytest.raises(ConfigError, match=said):
        CloudCompute(**fields)


@pytest.mark.parametrize(
    ("source", "path", "said"), [("", "/a", "source"), ("a", "data", "absolute"), ("a", "", "mount_path")]
)
def test_bad_mounts_are_refused(source: str, path: str, said: str) -> None:
    """A mount has a source and an absolute path."""
    with pytest.raises(ConfigError, match=said):
        Mount(source, path)
