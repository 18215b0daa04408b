"""The checks of CI, each in a separate environment. ``nox`` runs all default sessions, ``nox -s NAME`` runs one."""

from __future__ import annotations

import os

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
# The tests run last, so that the output ends with pytest's summary.
nox.options.sessions = ["lint", "types", "no_extras", "tests"]

PROJECT = nox.project.load_toml("pyproject.toml")


def group(*names: str) -> tuple[str, ...]:
    """Return the requirements of dependency groups in pyproject.toml."""
    return nox.project.dependency_groups(PROJECT, *names)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, imports, docstrings and formatting."""
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
    """Run the tests that must pass without any extra installed."""
    session.install("-e", ".", *group("tests"))
    # A module whose tests need an extra skips itself here. This is not a failure.
    session.run("pytest", "-m", "bare", *session.posargs, env={"LIGHTWORK_REQUIRE_ALL": "0"})


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests, with every extra that they can use."""
    session.install("-e", ".[uvloop,docker,ssh,cloud,metrics]", *group("tests", "example", "browser"))
    session.run("pytest", *session.posargs, env={"PYTHONUNBUFFERED": "1"})


@nox.session(default=False, venv_backend="none")
def prose(session: nox.Session) -> None:
    """Find phrases that readers must read twice, in comments, strings and docs. Give paths after ``--``."""
    session.run("python", ".ci/prose.py", *session.posargs, external=True)


@nox.session(default=False)
def vendor(session: nox.Session) -> None:
    """Download the dashboard's JavaScript libraries at their pinned versions and check them."""
    session.run("python", ".ci/vendor.py")
    session.run("git", "status", "--short", "lightwork/server/page/vendor", external=True)


@nox.session(default=False)
def mutants(session: nox.Session) -> None:
    """Change the rules of the machine and the session of a link bit by bit, and print what no test notices."""
    session.install("-e", ".", *group("tests", "mutants"))
    session.run("python", ".ci/mutants.py", *session.posargs)


@nox.session(default=False)
def chaos(session: nox.Session) -> None:
    """Inject 10,000 faults into one app; half an hour or more. ``CHAOS_SEED=N nox -s chaos`` repeats a run."""
    session.install("-e", ".[uvloop,tls]", *group("tests"))
    number = os.environ.get("CHAOS_FAULTS", "10000")
    session.run("pytest", "-s", "tests/chaos/test_chaos.py", *session.posargs, env={"CHAOS_FAULTS": number})


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """Run 50 busy works for ten minutes. Memory and descriptors of the scheduler must stay flat."""
    session.install("-e", ".[uvloop,tls]", *group("tests"))
    session.run("python", "-m", "tests.chaos.soak", *session.posargs, env={"PYTHONPATH": f".{os.pathsep}runtimes"})


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure against the budgets. Print a table and write build/benchmarks/."""
    # ``PEERS="ray distributed" nox -s bench`` installs and measures these peers too.
    peers = os.environ.get("PEERS", "").split()
    session.install("-e", ".[uvloop,docker,ssh]", *group("bench"), *peers)
    session.run("python", "-m", "benchmarks", *session.posargs)
