"""``lightwork checkpoint``: lists, shows and restores the checkpoints of a journal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from lightwork.cli.output import output_option, print_json
from lightwork.engine.recovery.replay import abandon_workers
from lightwork.errors import JournalError

if TYPE_CHECKING:
    from lightwork.engine.recovery.replay import Replay
    from lightwork.journal.store import Store

__all__ = ["checkpoint", "ls", "restore", "show"]

_PATH = click.Path(dir_okay=False, path_type=Path)


@click.group
def checkpoint() -> None:
    """List, show and restore the checkpoints of a journal.

    The app may run meanwhile.
    """


@checkpoint.command
@click.argument("journal", type=_PATH)
@output_option
def ls(journal: Path, as_json: bool) -> None:
    """List the checkpoints of a journal, oldest first."""
    store = _open(journal)
    try:
        found = store.snapshots()
    except JournalError as error:
        _fail(error)
    finally:
        store.close()
    if as_json:
        print_json({"items": [snapshot._asdict() for snapshot in found], "total": len(found)})
        return
    for snapshot in found:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(snapshot.time))
        click.echo(f"{snapshot.number:>4}  {when}  {snapshot.size:>11,} bytes  {snapshot.label}")
    if not found:
        click.echo(f"{journal} has no checkpoints", err=True)


@checkpoint.command
@click.argument("journal", type=_PATH)
@click.argument("number", type=int, required=False)
@output_option
def show(journal: Path, number: int | None, as_json: bool) -> None:
    """Show the state in a checkpoint. Without NUMBER, show the latest state in the journal."""
    store = _open(journal)
    try:
        replay = _read(store, number)
    finally:
        store.close()
    shown = _described(replay)
    if as_json:
        click.echo(_json(shown))
        return
    for name, component in shown["components"].items():
        status = f"  ({component['status']}, {component['results']} results kept)" if "status" in component else ""
        click.echo(f"{name}{status}")
        for attribute, value in component["vars"].items():
            click.echo(f"    {attribute} = {_short(value)}")


@checkpoint.command
@click.argument("journal", type=_PATH)
@click.argument("number", type=int)
@click.argument("new", type=_PATH)
def restore(journal: Path, number: int, new: Path) -> None:
    """Write checkpoint NUMBER into a NEW journal. `lightwork run APP --journal NEW --resume` starts from it.

    The new journal has the states and results. It does not have the workers: those of a running app stay with that app.
    """
    from lightwork.engine.recovery.records import encode
    from lightwork.journal.store import Store

    if new.exists():
        raise click.UsageError(f"{new} exists already; NEW must be the path of a new file")
    store = _open(journal)
    try:
        meta = store.meta()
        snapshot = abandon_workers(_read(store, number))
    finally:
        store.close()
    try:
        made = Store.create(new)
        try:
            made.set_meta({key: meta[key] for key in ("app", "lightwork") if key in meta})
            made.add_snapshot(encode(snapshot), f"restored from {number} of {journal.name}")
        finally:
            made.close()
    except JournalError as error:
        _fail(error)
    click.echo(f"start from it: lightwork run APP --journal {new} --resume")


def _open(path: Path) -> Store:
    from lightwork.journal.store import Store

    try:
        return Store.open(path, readonly=True)
    except JournalError as error:
        _fail(error)


def _read(store: Store, number: int | None) -> Replay:
    from lightwork.engine.recovery.recorder import read_journal

    try:
        if number is not None and number not in [snapshot.number for snapshot in store.snapshots()]:
            raise click.UsageError(
                f"there is no checkpoint {number} in {store.path}; `lightwork checkpoint ls` lists the checkpoints"
            )
        return read_journal(store, number)
    except JournalError as error:
        _fail(error)


def _described(replay: Replay) -> dict[str, Any]:
    components: dict[str, Any] = {}
    for known in replay.components.values():
        described: dict[str, Any] = {"vars": known.state.snapshot()}
        if known.work:
            record = replay.records[known.work]
            described["status"] = record.status.stage.value
            described["results"] = len(replay.machine.work(known.work).results)
        components[known.name] = described
    return {"is_over": replay.is_over, "time": replay.now, "components": components}


def _json(data: Any) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(data), indent=2).decode()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _fail(error: JournalError) -> NoReturn:
    raise click.ClickException(str(error)) from error
