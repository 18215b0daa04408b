"""Runs a command of the program in this process."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import pytest

from lightwork.cli import main


class Done:
    """The exit code and the output of a command that has ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def json(self) -> Any:
        """The document on standard output."""
        assert self.code in (0, 1), self.err
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """The documents on standard output, one in each line."""
        return [json.loads(line) for line in self.out.splitlines()]


def invoke(*args: str) -> Done:
    """Run ``lightwork ARGS``. Standard output is not a terminal."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as caught:
        main(args)
    assert isinstance(caught.value.code, int)
    return Done(caught.value.code, out.getvalue(), err.getvalue())
