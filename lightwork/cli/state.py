"""``lightwork state``: reads, changes and watches the state of a running app."""

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
from lightwork.cli.settings import parse_value, with_article

if TYPE_CHECKING:
    from lightwork.client import Client, Event

__all__ = ["Place", "change_text", "get", "locate", "set_", "state", "watch"]


class Place(NamedTuple):
    """The location of a value in the state.

    Attributes:
        component: Full name of the component.
        path: Attribute, then keys and indices in its value. Empty for all attributes of the component.
        present: The present value; None if there is no value.
        is_there: Whether there is a value.
    """

    component: str
    path: list[Any]
    present: Any
    is_there: bool


@click.group
def state() -> None:
    """Read, change and watch the state of a running app.

    NAME is a component, or a component followed by an attribute, keys and indices:
    train, root.train.lr, root.train.losses.0
    """


@state.command
@click.argument("name", default="root", shell_complete=complete_component)
@output_option
@asks_app
async def get(connected: ConnectedApp, name: str, as_json: bool) -> None:
    """Print the state of a component, or one value of it.

    The state of a component is printed as JSON, a text is printed unchanged. With -o json the output is one document
    with the component, the path and the value.
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
    """Change values of the state.

    A value is parsed as the type of the present value if that is bool, int, float or str. Otherwise it is parsed as
    JSON, and kept as text if it is not valid JSON. A running work may refuse the change: then the exit code is 1.
    """
    edits: dict[str, list[tuple[list[Any], Any]]] = defaultdict(list)
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{setting}: must be NAME=VALUE, for example root.lr=0.1")
        place = await locate(connected.client, name.strip(), is_new=True)
        if not place.path:
            raise click.UsageError(f"{setting}: {place.component} is a component; add the name of an attribute")
        try:
            value = parse_value(text, place.present)
        except (ValueError, OverflowError):
            kind = with_article(type(place.present).__name__)
            raise click.UsageError(f"{setting}: must be {kind} like {place.present!r}, got {text!r}") from None
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
    """Print each change of the state until the app ends. With NAME, print only the changes there.

    A change is one line: NAME = VALUE for a value that was set, NAME[2:3] = [...] for a part of a list that was
    replaced. With -o json a change is one document, as the feed sends it. If a value changes many times in quick
    succession, only the last change is printed.
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
                    click.echo("some changes are missing: they came faster than they could be printed", err=True)
                has_begun = True


def _is_wanted(event: Event, places: Sequence[Place]) -> bool:
    """Return whether a change affects one of these places."""
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
    """Describe a change of the state on one line, in a syntax close to Python."""
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
    """Return the place in the state that a name on the command line means.

    Args:
        client: A client of the app.
        name: Name of a component, then keys and indices. The longest name of a component that matches is used.
        is_new: Whether the last key may be new. Its container must exist.

    Raises:
        CommandFailure: The component or the key does not exist. The message lists what exists.
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
            # The app sent only the beginning of this value, because it is large. The app resolves the other keys.
            rest = [int(key) if key.isdigit() else key for key in keys[number:]]
            return Place(component, [*path, *rest], None, False)
        key: Any = text
        if isinstance(value, list):
            key = _index(text, len(value), where, is_new and is_last)
            if key == len(value):
                return Place(component, [*path, key], None, False)
        elif not isinstance(value, dict):
            raise CommandFailure(f"{where} is {value!r:.60}, which has no items", NOT_FOUND)
        elif text not in value:
            if is_new and is_last and path:
                return Place(component, [*path, text], None, False)
            below = [other.removeprefix(f"{component}.") for other in known if other.startswith(f"{component}.")]
            raise CommandFailure(
                f"{where} has no {text!r}; {_hint(text, [*value, *([] if path else below)])}", NOT_FOUND
            )
        path.append(key)
        value = value[key]
    return Place(component, path, value, True)


def _index(text: str, length: int, where: str, is_new: bool) -> int:
    most = length if is_new else length - 1
    if not text.isdigit() or int(text) > most:
        if most < 0:
            raise CommandFailure(f"{where} is an empty list, it has no item {text!r}", NOT_FOUND)
        raise CommandFailure(
            f"{where} is a list of {length} items: the index must be from 0 to {most}, got {text!r}", NOT_FOUND
        )
    return int(text)


def _hint(text: str, choices: Iterable[Any]) -> str:
    """Return the nearest choices, or else the first 12 choices."""
    names = [str(choice) for choice in choices]
    if near := difflib.get_close_matches(text, names, n=3, cutoff=0.5):
        return f"did you mean {' or '.join(near)}?"
    more = ", ..." if len(names) > 12 else ""
    return f"it has {', '.join(names[:12])}{more}" if names else "it is empty"
