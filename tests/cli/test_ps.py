from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lightwork.server.discovery import AppFile, announce
from tests.cli.fake_server import FakeServer, Refused
from tests.cli.invoke import invoke


def test_each_work_has_a_line(server: FakeServer) -> None:
    """The table has a line for each work, in the order of the tree. It is plain text if the output is no terminal."""
    server.add_work(
        "root.b", "failed", reason="crashed", message="exit code 3\nmore", calls={"succeeded": 2, "failed": 1}
    )
    server.add_work("root.a", "running", runtime="gpu", pid=12)
    done = invoke("ps")
    assert done.code == 0
    assert [line.split() for line in done.out.splitlines()] == [
        ["WORK", "STAGE", "CALLS", "FAILED", "SINCE", "RUNTIME", "PID", "WHY"],
        ["root.b", "failed", "3", "1", "crashed:", "exit", "code", "3"],
        ["root.a", "running", "0", "gpu", "12"],
    ]


def test_works_are_chosen_and_counted(server: FakeServer) -> None:
    """A pattern, a stage and a limit select works. `ls` is `ps`, -q prints only names, and other works are counted."""
    for number in range(5):
        server.add_work(f"root.trials.{number}", "failed" if number % 2 else "running")
    assert invoke("ls", "trials.*", "--stage", "failed", "-q").out.split() == ["root.trials.1", "root.trials.3"]
    done = invoke("ps", "--limit", "2", "-q")
    assert done.out.split() == ["root.trials.0", "root.trials.1"]
    assert done.err == "and 3 more\n"


def test_every_page_is_asked_for(server: FakeServer) -> None:
    """All works of several pages are listed, and the document has their number."""
    server.page_size = 2
    for number in range(5):
        server.add_work(f"root.{number}")
    found = invoke("ps", "-o", "json").json
    assert [work["name"] for work in found["items"]] == [f"root.{number}" for number in range(5)]
    assert found["total"] == 5


def test_no_app_gives_3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If no app runs or answers, the exit code is 3, and the message says what to do."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    done = invoke("ps")
    assert done.code == 3
    assert "lightwork run" in done.err
    done = invoke("ps", "--url", "http://127.0.0.1:1")
    assert done.code == 3
    assert "no app answers at http://127.0.0.1:1" in done.err


def test_the_app_is_found_by_its_file(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single app is found with its token. Among several, --app selects one; without it they are listed."""
    monkeypatch.delenv("LIGHTWORK_URL")
    server.token = "secret"
    server.add_work("root.a")
    fields: dict[str, Any] = {"pid": os.getpid(), "started_at": 1.0}
    ends = [announce(AppFile(run="run-one", name="Sweep", url=server.url, token="secret", **fields))]
    assert invoke("ps", "-q").out == "root.a\n"
    ends.append(announce(AppFile(run="run-two", name="Other", url="http://127.0.0.1:1", **fields)))
    done = invoke("ps")
    assert done.code == 2
    assert "--app" in done.err
    assert "run-one" in done.err
    assert "run-two" in done.err
    assert "secret" not in done.err
    for name in ("Sweep", "run-one"):
        assert invoke("ps", "-q", "--app", name).out == "root.a\n"
    done = invoke("ps", "--app", "Third")
    assert done.code == 3
    assert "no app 'Third'" in done.err
    listed = invoke("apps", "-o", "json")
    assert "secret" not in listed.out
    assert [app["name"] for app in listed.json["items"]] == ["Sweep", "Other"]
    assert len(invoke("apps").out.splitlines()) == 3
    for end in ends:
        end()


def test_a_token_is_asked_for(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the token the exit code is 3, and the message says how to set it."""
    server.token = "secret"
    done = invoke("ps")
    assert done.code == 3
    assert "LIGHTWORK_TOKEN" in done.err
    monkeypatch.setenv("LIGHTWORK_TOKEN", "secret")
    assert invoke("ps").code == 0


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("not_ready", 3), ("bad_request", 2), ("refused", 1), ("conflict", 1), ("timeout", 124), ("internal", 1)],
)
def test_what_the_app_answers_becomes_an_exit_code(server: FakeServer, code: str, exit_code: int) -> None:
    """Each error code of the app has an exit code, and the app's message is shown."""
    server.refusals["/works"] = Refused(code, "it was like this", 409)
    done = invoke("ps")
    assert done.code == exit_code
    assert done.err == "Error: it was like this\n"


def test_what_is_no_app_gives_3(server: FakeServer) -> None:
    """A server that is not an app is reported as such."""
    done = invoke("ps", "--url", f"{server.url}/elsewhere")
    assert done.code == 3
    assert "no lightwork app" in done.err
