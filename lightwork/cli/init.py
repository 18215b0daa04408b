"""``lightwork init``: a small new app that runs at once."""

from __future__ import annotations

import os
from pathlib import Path

import click

__all__ = ["FILES", "init"]

_APP = '''\
"""Trains a few models at once and says which was best. Run it: lightwork run app.py"""

import asyncio

from lightwork import App, Flow, Work


class Train(Work):
    """One job, in a process of its own. What `__init__` sets is its state, and streams to the flow."""

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
    """Decides what is run, and when it is enough."""

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
"""A work that no app drives runs in place, so it is tested like any other class."""

import asyncio

from app import Train


def test_the_loss_falls() -> None:
    train = Train(rate=0.5)
    assert asyncio.run(train.run(2)) == 0.25
'''

_CONFIG = """\
# What an app of this folder starts with. `lightwork config view` shows every key.

runtime = "local"             # each work in a process of this machine

# [runtimes.gpu]              # a named profile: works on machines that ssh reaches
# kind = "ssh"
# hosts = ["me@10.0.0.4"]

# [works."root.trials.*"]     # which works use it
# runtime = "gpu"
"""

FILES = {
    "app.py": _APP,
    "test_app.py": _TEST,
    "lightwork.toml": _CONFIG,
    ".gitignore": ".lightwork/\n__pycache__/\n",
}
"""What is written: name, and text."""


@click.command
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
def init(folder: Path) -> None:
    """Write a small app that runs at once into FOLDER, by default this one.

    The folder is made if it is not there. It has to be empty, but for names that begin with a dot, such as
    .git; nothing is ever written over.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_empty(folder)
        for name, text in FILES.items():
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise click.UsageError(f"{error.filename or folder}: {error.strerror or error}") from error
    click.echo(f"{', '.join(FILES)} written to {folder.resolve()}")
    where = "" if folder.resolve() == Path.cwd() else f"cd {folder} && "
    click.echo(f"Now: {where}lightwork run app.py")


def _check_empty(folder: Path) -> None:
    names = sorted(os.listdir(folder))
    in_the_way = [name for name in names if not name.startswith(".") or name in FILES]
    if in_the_way:
        shown = ", ".join(in_the_way[:5]) + (", ..." if len(in_the_way) > 5 else "")
        raise click.UsageError(f"{folder.resolve()} is not empty ({shown}): name a folder that is, or a new one")
