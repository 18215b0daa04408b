"""``lightwork init``: writes a small new app that is ready to run."""

from __future__ import annotations

import os
from pathlib import Path

import click

__all__ = ["FILES", "init"]

_APP = '''\
"""Trains a few models in parallel and reports the best loss. Run it: lightwork run app.py"""

import asyncio

from lightwork import App, Flow, Work


class Train(Work):
    """A job in its own process. The attributes set in `__init__` are its state. Each change reaches the flow."""

    def __init__(self, rate: float) -> None:
        super().__init__(parallel=True)
        self.rate = rate
        self.losses: list[float] = []

    async def run(self, epochs: int) -> float:
        loss = 1.0
        for epoch in range(epochs):
            await asyncio.sleep(0.2)  # the hard work
            loss *= 1 - self.rate
            self.losses.append(loss)
            print(f"epoch {epoch}: loss {loss:.4f}")
        return loss


class Sweep(Flow):
    """Decides which works run, and when the app stops."""

    def __init__(self, epochs: int = 10) -> None:
        super().__init__()
        self.epochs = epochs
        self.trials = [Train(rate) for rate in (0.1, 0.3, 0.5)]

    async def run(self) -> None:
        calls = [trial.submit(self.epochs) for trial in self.trials]
        losses = await asyncio.gather(*calls)
        self.stop(f"the best loss is {min(losses):.4f}")


app = App(Sweep())
'''

_TEST = '''\
"""A work without an app runs in the calling process, so it can be tested like any other class."""

import asyncio

from app import Train


def test_the_loss_falls() -> None:
    train = Train(rate=0.5)
    assert asyncio.run(train.run(2)) == 0.25
'''

_CONFIG = """\
# The configuration of apps in this folder. `lightwork config view` shows every key.

runtime = "local"             # run each work in a process on this machine

# [runtimes.gpu]              # a named profile: run works on other machines, over SSH
# kind = "ssh"
# hosts = ["me@10.0.0.4"]

# [works."root.trials.*"]     # the works that use this profile
# runtime = "gpu"
"""

FILES = {
    "app.py": _APP,
    "test_app.py": _TEST,
    "lightwork.toml": _CONFIG,
    ".gitignore": ".lightwork/\n__pycache__/\n",
}
"""File name to text of each file that the command writes."""


@click.command
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
def init(folder: Path) -> None:
    """Write a small app that is ready to run into FOLDER (default: the current folder).

    A missing folder is created. The folder must be empty; names that begin with a dot, such as .git, are allowed.
    No file is overwritten.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_empty(folder)
        for name, text in FILES.items():
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise click.UsageError(f"{error.filename or folder}: {error.strerror or error}") from error
    click.echo(f"wrote {', '.join(FILES)} to {folder.resolve()}")
    where = "" if folder.resolve() == Path.cwd() else f"cd {folder} && "
    click.echo(f"run the app: {where}lightwork run app.py")


def _check_empty(folder: Path) -> None:
    names = sorted(os.listdir(folder))
    in_the_way = [name for name in names if not name.startswith(".") or name in FILES]
    if in_the_way:
        shown = ", ".join(in_the_way[:5]) + (", ..." if len(in_the_way) > 5 else "")
        raise click.UsageError(f"{folder.resolve()} must be empty, but contains {shown}: name another folder")
