"""``lightwork state``: read, change and follow the state of a running app."""

from __future__ import annotations

import contextlib
import difflib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from lightwork.cli.connect import ConnectedApp, asks_app, full_name
from lightwork.cli.inspect import value_text
from lightwork.cli.names import complete_component
from lightwork.cli.output import NOT_FOUND, CommandFailure, output_option, print_json, print_json_line, styled
from lightwork.cli.settings import parse_value

if TYPE_CHECKING:
    from lightwork.client import Client, Event

__all__ = ["Place", "change_text", "get", "locate", "set_", "state", "watch"]


class Place(NamedTuple):
    """Where a value stands: in which component, and at which path of its attributes; empty for all of them.

    Attributes:
        present: The value that is there now, None where none is.
        is_there: Whether one is.
    """

    component: str
    path: list[Any]
    present: Any
    is_there: bool


@click.group
def state() -> None:
    """Read, change and follow the state of a running app.

    NAME is a component, and then what is in its state: train, root.train.lr, root.train.losses.0
    """


@state.command
@click.argument("name", default="root", shell_complete=complete_component)
@output_option
@asks_app
async def get(connected: ConnectedApp, name: str, as_json: bool) -> None:
    """Print the state of a component, or one value in it.

    Of a component its attributes are printed, as JSON; a text is printed as it is. With -o json the component, the
    path and the value are one document.
    """
    place = await locate(connected.client, name)
    if not place.path:
        value = place.present
    else:
        value = (await connected.client.state(place.component, place.path)).value
    if as_json:
        print_json({"component": place.component, "path": place.path, "value": value})
    elif isinstance(value, dict | list):
        print_json(value)
    else:
        click.echo(value_text(value))


@state.command("set")
@click.argument("settings", metavar="NAME=VALUE...", nargs=-1, required=True, shell_complete=complete_component)
@output_option
@asks_app
async def set_(connected: ConnectedApp, settings: tuple[str, ...], as_json: bool) -> None:
    """Change values in the state.

    A value takes the type of the one that is there where that is a bool, an int, a float or a str; else it is what
    it means as JSON, or the text as it stands. Of a work that runs it is a proposal, which the work may refuse: then
    the exit code is 1.
    """
    edits: dict[str, list[tuple[list[Any], Any]]] = defaultdict(list)
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{setting}: it has to be NAME=VALUE, as in root.lr=0.1")
        place = await locate(connected.client, name.strip(), is_new=True)
        if not place.path:
            raise click.UsageError(f"{setting}: {place.component} is a component; name an attribute of it")
        try:
            value = parse_value(text, place.present)
        except (ValueError, OverflowError):
            kind = type(place.present).__name__
            raise click.UsageError(f"{setting}: there is {place.present!r} now, and {text!r} is no {kind}") from None
        edits[place.component].append((place.path, value))
    for component, made in edits.items():
        await connected.client.edit_state(component, made)
    if as_json:
        print_json(
            {
                "items": [
                    {"component": component, "path": path, "value": value}
                    for component, made in edits.items()
                    for path, value in made
                ]
            }
        )


@state.command
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=complete_component)
@output_option
@asks_app
async def watch(connected: ConnectedApp, names: tuple[str, ...], as_json: bool) -> None:
    """Print every change of the state as it happens, until the app ends; with NAME those in there only.

    A line for each: NAME = VALUE where one was set, NAME[2:3] = [...] where part of a list was replaced. With -o json
    a document for each, as the feed sends it. Of a value that changes many times within a moment the last is printed.
    """
    client = connected.client
    places = [await locate(client, name, is_new=True) for name in names]
    has_begun = False
    async with contextlib.aclosing(client.feed()) as feed:
        async for event in feed:
            if event.kind == "state" and _is_wanted(event, places):
                print_json_line(event.data) if as_json else click.echo(change_text(event.data))
            elif event.kind == "snapshot":
                if has_begun:
                    click.echo("some changes were left out: they came faster than they could be printed", err=True)
                has_begun = True


def _is_wanted(event: Event, places: Sequence[Place]) -> bool:
    """Whether a change is in one of these places, or takes one of them along."""
    if not places:
        return True
    name, path = event.data["name"], event.data["path"]
    for place in places:
        if name == place.component and all(mine == theirs for mine, theirs in zip(place.path, path, strict=False)):
            return True
        if not place.path and name.startswith(f"{place.component}."):
            return True
    return False


def change_text(change: dict[str, Any]) -> str:
    """A change of the state on one line, much as Python would write it."""
    target = ".".join([change["name"], *map(str, change["path"])])
    value = change["value"]
    match change["kind"]:
        case "delete":
            return f"del {styled(target, fg='cyan')}"
        case "splice" if isinstance(value, list):
            start, removed, inserted = value
            target = f"{target}[{start}:{start + removed}]"
            return f"{styled(target, fg='cyan')} = {json.dumps(inserted, ensure_ascii=False)}"
        case "update" if isinstance(value, list):
            added, gone = (json.dumps(_items(part), ensure_ascii=False) for part in value)
            return f"{styled(target, fg='cyan')} + {added} - {gone}"
        case _:
            return f"{styled(target, fg='cyan')} = {json.dumps(value, ensure_ascii=False)}"


def _items(part: Any) -> Any:
    return part.get("$set", part) if isinstance(part, dict) else part


# --- finding a value ------------------------------------------------------------------------------


async def locate(client: Client, name: str, *, is_new: bool = False) -> Place:
    """The component and the path that a name on the command line means.

    Args:
        client: Asks the app.
        name: A component's name, then keys and indices; the longest component that fits is meant.
        is_new: Whether the last key need not be there, as long as what it would be put into is.

    Raises:
        Failure: There is none such; says what there is.
    """
    known = [component.name for component in (await client.components()).items]
    parts = full_name(name).split(".")
    for length in range(len(parts), 0, -1):
        component = ".".join(parts[:length])
        if component in known:
            break
    else:
        raise CommandFailure(f"the app has no component {parts[0]!r}", NOT_FOUND)
    rest = parts[length:]
    answer = (await client.state(component)).state
    variables = answer.get("vars", {}) if isinstance(answer, dict) else {}
    shown = {key: value for key, value in variables.items() if not key.startswith("_")}
    return _walk(component, shown, rest, known, is_new)


def _walk(component: str, variables: dict[str, Any], keys: list[str], known: list[str], is_new: bool) -> Place:
    value: Any = variables
    path: list[Any] = []
    for number, text in enumerate(keys):
        where = ".".join([component, *map(str, path)])
        is_last = number == len(keys) - 1
        if isinstance(value, dict) and "$cut" in value:
            # It is too large to be looked through here: the app itself says whether the rest is there.
            rest = [int(key) if key.isdigit() else key for key in keys[number:]]
            return Place(component, [*path, *rest], None, False)
        key: Any = text
        if isinstance(value, list):
            key = _index(text, len(value), where, is_new and is_last)
            if key == len(value):
                return Place(component, [*path, key], None, False)
        elif not isinstance(value, dict):
            raise CommandFailure(f"{where} is {value!r:.60}, which has nothing in it", NOT_FOUND)
        elif text not in value:
            if is_new and is_last and path:
                return Place(component, [*path, text], None, False)
            below = [other.removeprefix(f"{component}.") for other in known if other.startswith(f"{component}.")]
            raise CommandFailure(
                f"{where} has no {text!r}; {_near(text, [*value, *([] if path else below)])}", NOT_FOUND
            )
        path.append(key)
        value = value[key]
    return Place(component, path, value, True)


def _index(text: str, length: int, where: str, is_new: bool) -> int:
    most = length if is_new else length - 1
    if not text.isdigit() or int(text) > most:
        raise CommandFailure(f"{where} is a list of {length}, and {text!r} is none of its places", NOT_FOUND)
    return int(text)


def _near(text: str, choices: Iterable[Any]) -> str:
    names = [str(choice) for choice in choices]
    if near := difflib.get_close_matches(text, names, n=3, cutoff=0.5):
        return f"did you mean {' or '.join(near)}?"
    more = ", ..." if len(names) > 12 else ""
    return f"it has {', '.join(names[:12])}{more}" if names else "it has none"
