"""What CI runs, each session in an environment of its own: ``nox`` for all, ``nox -s NAME`` for one."""

from __future__ import annotations

import os

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
# The tests come last, so that pytest's summary is the end of the output.
nox.options.sessions = ["lint", "types", "no_extras", "tests"]

PROJECT = nox.project.load_toml("pyproject.toml")


def group(*names: str) -> tuple[str, ...]:
    """Requirements of dependency groups of pyproject.toml."""
    return nox.project.dependency_groups(PROJECT, *names)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, imports and docstrings; formatting."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Strict types of everything that is Python here, and of the public names as mypy and pyright see them."""
    session.install("-e", ".[uvloop,docker,ssh,cloud,metrics]", *group("typing"))
    session.run("mypy")
    quiet = {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}  # no question to the network whether there is a newer one
    session.run("pyright", env=quiet)
    session.run("python", ".ci/verify_types.py", env=quiet)


@nox.session
def no_extras(session: nox.Session) -> None:
    """What needs no extra works where none is installed."""
    session.install("-e", ".", *group("tests"))
    # A module whose tests need an extra skips itself here, and that is no failure.
    session.run("pytest", "-m", "bare", *session.posargs, env={"LIGHTWORK_REQUIRE_ALL": "0"})


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, with every extra that they can use."""
    session.install("-e", ".[uvloop,docker,ssh,cloud,metrics]", *group("tests", "example", "browser"))
    session.run("pytest", *session.posargs, env={"PYTHONUNBUFFERED": "1"})


@nox.session(default=False)
def vendor(session: nox.Session) -> None:
    """Fetch the dashboard's JavaScript libraries again, at the versions that are written down, and check them."""
    session.run("python", ".ci/vendor.py")
    session.run("git", "status", "--short", "lightwork/server/page/vendor", external=True)


@nox.session(default=False)
def chaos(session: nox.Session) -> None:
    """10,000 faults against one app: ``CHAOS_SEED=N nox -s chaos`` has those of a run again. Half an hour and more."""
    session.install("-e", ".[uvloop,tls]", *group("tests"))
    number = os.environ.get("CHAOS_FAULTS", "10000")
    session.run("pytest", "-s", "tests/chaos/test_chaos.py", *session.posargs, env={"CHAOS_FAULTS": number})


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """Ten minutes of 50 works that call and edit without pause: memory and descriptors of the scheduler stay flat."""
    session.install("-e", ".[uvloop,tls]", *group("tests"))
    session.run("python", "-m", "tests.chaos.soak", *session.posargs, env={"PYTHONPATH": f".{os.pathsep}runtimes"})


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure against the budgets; prints a table and writes build/benchmarks/."""
    # The peers are measured where they are installed: name them, ``PEERS="ray distributed" nox -s bench``.
    peers = os.environ.get("PEERS", "").split()
    session.install("-e", ".[uvloop,docker,ssh]", *group("bench"), *peers)
    session.run("python", "-m", "benchmarks", *session.posargs)
