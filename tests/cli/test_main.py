from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from lightwork.cli import main
from tests.cli.fake_server import FakeServer

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def called(*args: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_help_lists_the_commands_without_importing_them() -> None:
    """`lightwork --help` shows each command's line and loads none of their modules."""
    code = """
import sys
from lightwork.cli import main
try:
    main(["--help"])
finally:
    loaded = {"lightwork.cli.run", "rich", "structlog", "aiohttp"} & set(sys.modules)
    assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert re.search("  run +Run the app of a file until it stops[.]", done.stdout)


def test_a_command_that_asks_an_app_does_not_load_the_engine(server: FakeServer) -> None:
    """`lightwork ps` loads an HTTP client and the types of the answers, none of what runs an app."""
    code = """
import sys
from lightwork.cli import main
try:
    main(["ps", "-q"])
finally:
    heavy = ("lightwork.engine", "lightwork.app", "lightwork.worker", "lightwork.link", "rich", "structlog")
    loaded = [name for name in sys.modules if name.startswith(heavy)]
    assert not loaded, loaded
"""
    server.add_work("root.train")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env={**ENVIRONMENT, "LIGHTWORK_URL": server.url})
    assert done.stdout == "root.train\n", done.stderr


def test_the_module_is_the_program() -> None:
    """`python -m lightwork` is `lightwork`."""
    command = [sys.executable, "-m", "lightwork", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stdout.startswith("lightwork ")


def test_the_shell_completes_commands() -> None:
    """Completion, which a shell asks for through the environment, knows the commands."""
    environment = {
        **ENVIRONMENT,
        "_LIGHTWORK_COMPLETE": "bash_complete",
        "COMP_WORDS": "lightwork ru",
        "COMP_CWORD": "1",
    }
    command = [sys.executable, "-m", "lightwork"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "plain,run\n"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["rum"], "No such command 'rum'"),
        (["run"], "Missing argument 'APP'"),
        (["run", "--port", "70000", "x.py"], "70000"),
        (["run", "--frobnicate", "x.py"], "--frobnicate"),
    ],
)
def test_usage_errors_give_2(args: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A command line that cannot be understood is explained on standard error and gives 2."""
    assert called(*args) == 2
    assert says in capsys.readouterr().err
