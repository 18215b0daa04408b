from __future__ import annotations

from typing import Any

import pytest

from lightwork.cli.settings import SettingError, apply_settings, parse_setting, parse_value
from tests.cli.support import FakeComponent


class FakeTree:
    def __init__(self) -> None:
        self.train = FakeComponent(lr=0.1, epochs=3, name="x", shuffle=True, best=None, layers=[1])
        listed = FakeComponent(children={"works": {"0": self.train}})
        self.root = FakeComponent(children={"structures": {"trials": listed}}, message="")

    def get_component_by_name(self, name: str) -> FakeComponent:
        return {"root": self.root, "root.trials.0": self.train}[name]


@pytest.mark.parametrize(
    ("text", "present", "value"),
    [
        ("1", 0.5, 1.0),
        ("1e-3", 0.5, 0.001),
        ("7", 3, 7),
        ("1e3", 3, 1000),
        ("yes", False, True),
        ("0", True, False),
        ("5", "text", "5"),
        ('"5"', "text", "5"),
        ("a=b", "text", "a=b"),
        ("5", None, 5),
        ("text", None, "text"),
        ('{"a": [1]}', None, {"a": [1]}),
        ("[2, 3]", [1], [2, 3]),
    ],
)
def test_a_value_takes_the_type_of_the_one_that_is_there(text: str, present: Any, value: Any) -> None:
    """Text is parsed as the type of a present scalar, otherwise as JSON."""
    parsed = parse_value(text, present)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(("text", "present"), [("fast", 0.1), ("1.5", 3), ("inf", 3), ("2", True), ("", 1)])
def test_a_value_that_does_not_fit_is_refused(text: str, present: Any) -> None:
    """Text that is not a valid value of the present type is an error."""
    with pytest.raises((ValueError, OverflowError)):
        parse_value(text, present)


def test_a_setting_is_cut_at_its_last_dot_and_first_equals_sign() -> None:
    """The attribute follows the last dot of the name. The value may contain dots and equals signs."""
    assert parse_setting("root.trials.0.lr=a.b=c") == ("root.trials.0", "lr", "a.b=c")


@pytest.mark.parametrize("setting", ["", "root.lr", "lr=1", ".lr=1", "root.=1", "=1"])
def test_a_malformed_setting_is_an_error_that_shows_the_form(setting: str) -> None:
    """A setting without the form COMPONENT.ATTRIBUTE=VALUE is refused with an example."""
    with pytest.raises(SettingError, match=r"must be COMPONENT\.ATTRIBUTE=VALUE, for example root\.lr=0\.1"):
        parse_setting(setting)


def test_settings_reach_the_components() -> None:
    """Attributes of the root and of a work in a list are set before the start."""
    app = FakeTree()
    apply_settings(app, ["root.message=hello", "root.trials.0.lr=1", "root.trials.0.best=null"])
    assert app.root.attributes["message"] == "hello"
    assert repr(app.train.attributes["lr"]) == "1.0"
    assert app.train.attributes["best"] is None


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("root.trails.0.lr=1", r"no component 'root\.trails\.0'; did you mean root\.trials\.0\?"),
        ("root.trials.0.lt=1", r"no state attribute 'lt'; did you mean lr\?"),
        ("root.trials.0.zzzzzz=1", r"its attributes are: lr, epochs, name, shuffle, best, layers"),
        ("root.trials.0._internal=1", r"no state attribute '_internal'"),
        ("root.trials.0.epochs=many", r"root\.trials\.0\.epochs must be an int like 3, got 'many'"),
        ("root.trials.0.best=refused", r"best=refused: the state cannot hold it"),
    ],
)
def test_an_unknown_name_or_bad_value_is_an_error_that_helps(setting: str, says: str) -> None:
    """The message names the setting, the error, and the nearest valid names."""
    with pytest.raises(SettingError, match=says):
        apply_settings(FakeTree(), [setting])
