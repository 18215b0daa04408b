from __future__ import annotations

import inspect
import math
from typing import Any

import msgspec
import pytest

from lightwork.compute import CloudCompute, Mount
from lightwork.errors import ConfigError


def test_the_parameters_are_those_of_the_upstream() -> None:
    """The constructor takes Lightning's parameters, in its order, with its defaults."""
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
    """`mount_points` is a tuple for no mount, one mount and a list of mounts."""
    one, two = Mount("a", "/a"), Mount("b", "/b")
    assert CloudCompute().mount_points == ()
    assert CloudCompute(mounts=one).mount_points == (one,)
    assert CloudCompute(mounts=[one, two]).mount_points == (one, two)


@pytest.mark.parametrize(
    ("source", "path"),
    [("s3://foo/bar/", "/data/bar"), ("s3://foo", "/data/foo"), ("/there/models", "/data/models"), ("a", "/data/a")],
)
def test_a_mount_has_a_path_by_default(source: str, path: str) -> None:
    """The default path is below /data with the source's last name; a mount with the same explicit path is equal."""
    assert Mount(source).mount_path == path
    assert Mount(source) == Mount(source, path)


def test_decoding_checks_too() -> None:
    """Decoded data is checked like constructor arguments."""
    for data in ({"disk_size": -1}, {"mounts": [{"source": "a", "mount_path": "b"}]}, {"interruptible": 1}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.msgpack.decode(msgspec.msgpack.encode(data), type=CloudCompute)


def test_a_description_is_not_changed_later() -> None:
    """A compute is immutable after its check."""
    compute: Any = CloudCompute()
    with pytest.raises(AttributeError):
        compute.disk_size = -1


def test_it_travels_as_msgpack() -> None:
    """A compute with every field set is equal after msgpack."""
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
        ({"disk_size": "10"}, "disk_size"),
        ({"shm_size": -1}, "shm_size must be a number of MB"),
        ({"shm_size": 0.5}, "shm_size"),
        ({"idle_timeout": "60"}, "idle_timeout"),
        ({"idle_timeout": -1}, "idle_timeout must be a number of seconds"),
        ({"idle_timeout": math.nan}, "idle_timeout"),
        ({"colocation_group_id": ""}, "colocation_group_id"),
        ({"interruptible": 1}, "interruptible must be True or False"),
        ({"mounts": "a"}, "mounts must be a Mount"),
        ({"mounts": ["a"]}, "mounts must be a Mount"),
        ({"mounts": [Mount("a", "/x"), Mount("b", "/x/")]}, "mount paths must differ, got '/x' for 'a' and 'b'"),
    ],
)
def test_bad_fields_are_refused(fields: dict[str, Any], said: str) -> None:
    """Each invalid field raises a ConfigError that names the field and the reason."""
    with pytest.raises(ConfigError, match=said):
        CloudCompute(**fields)


@pytest.mark.parametrize(
    ("source", "path", "said"),
    [
        ("", "/a", "source"),
        (3, "/a", "source must be a non-empty string, got 3"),
        ("a", "data", "absolute"),
        ("a", " ", "mount_path"),
        ("a", 3, "mount_path"),
        ("a", "/", "absolute path below the root"),
        ("a", "/x/..", "absolute path below the root"),
        ("s3://", "", "cannot derive a folder name"),
        ("a/..", "", "cannot derive a folder name"),
    ],
)
def test_bad_mounts_are_refused(source: Any, path: Any, said: str) -> None:
    """A mount needs a source and an absolute path below the root."""
    with pytest.raises(ConfigError, match=said):
        Mount(source, path)
