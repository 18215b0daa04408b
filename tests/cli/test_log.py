from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog

from lightwork._logging import configure_logging, get_logger


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A stream for configured records. The configuration of logging is restored afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("lightwork")
    handlers, level = list(root.handlers), ours.level
    yield io.StringIO()
    root.handlers[:] = handlers
    ours.setLevel(level)


def test_an_embedding_service_sees_ordinary_records(caplog: pytest.LogCaptureFixture) -> None:
    """A record has a message with its fields, the event and the fields separately, and the logging location."""
    with caplog.at_level(logging.INFO, "lightwork"):
        get_logger("lightwork.engine").bind(work="root.a").info("100% launched", pid=7)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("lightwork.engine", logging.INFO)
    assert record.getMessage() == "100% launched work='root.a' pid=7"
    assert record.__dict__["event"] == "100% launched"
    assert record.__dict__["fields"] == {"work": "root.a", "pid": 7}
    assert (record.filename, record.funcName) == ("test_log.py", "test_an_embedding_service_sees_ordinary_records")


def test_names_stay_below_lightwork(caplog: pytest.LogCaptureFixture) -> None:
    """Every logger is a child of the logger `lightwork`, so one setting reaches all loggers."""
    get_logger("lightwork_runtimes.local").error("failed")
    assert caplog.records[0].name == "lightwork.lightwork_runtimes.local"


def test_fields_may_have_any_name(caplog: pytest.LogCaptureFixture) -> None:
    """Fields may have the names of a record's own attributes."""
    get_logger("lightwork").warning("event", name="x", message="y", args=1, level=2, exc_info=None)
    assert caplog.records[0].getMessage() == "event name='x' message='y' args=1 level=2"


def test_an_exception_brings_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """`exception` attaches the exception that is currently handled."""
    error = ValueError("bad")
    try:
        raise error
    except ValueError:
        get_logger("lightwork").exception("failed")
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[1] is error


def test_context_of_structlog_is_merged(caplog: pytest.LogCaptureFixture) -> None:
    """Values that the embedding program binds with structlog's contextvars are in the records of lightwork."""
    with structlog.contextvars.bound_contextvars(request="r1"):
        get_logger("lightwork").warning("event")
    assert caplog.records[0].__dict__["fields"] == {"request": "r1"}


def test_structlog_is_loaded_with_the_first_enabled_record() -> None:
    """Only a record of an enabled level loads structlog."""
    code = """
import logging, sys
from lightwork._logging import get_logger
log = get_logger("lightwork.x")
log.info("nobody wants it")
assert "structlog" not in sys.modules
logging.getLogger("lightwork").addHandler(logging.NullHandler())
log.warning("wanted")
assert "structlog" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(filter(None, sys.path))})


def test_json_lines(stream: io.StringIO) -> None:
    """With json each record, also of other libraries, is one object a line. Unknown types are written as their repr."""
    configure_logging("info", json=True, stream=stream)
    get_logger("lightwork.x").info("launched", pid=7, time="no", odd=Ellipsis)
    logging.getLogger("other").warning("library %s", "says")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert isinstance(first.pop("time"), float)
    assert first == {"level": "info", "logger": "lightwork.x", "event": "launched", "pid": 7, "odd": "Ellipsis"}
    assert (second["logger"], second["event"]) == ("other", "library says")


def test_console_lines(stream: io.StringIO) -> None:
    """Without json a line has level, event, fields and logger, and a traceback follows it."""
    configure_logging("info", stream=stream)
    try:
        raise ValueError("bad")
    except ValueError:
        get_logger("lightwork.x").exception("failed", pid=7)
    head, *trace = stream.getvalue().splitlines()
    for part in ("error", "failed", "pid=7", "lightwork.x"):
        assert part in head
    assert trace[-1] == "ValueError: bad"
    assert "\x1b" not in stream.getvalue()


def test_the_level_is_lightworks_own(stream: io.StringIO) -> None:
    """The level applies to lightwork. The level of other libraries is warning."""
    configure_logging("debug", stream=stream)
    get_logger("lightwork.x").debug("ours")
    logging.getLogger("other").info("theirs")
    assert "ours" in stream.getvalue()
    assert "theirs" not in stream.getvalue()


def test_configuring_again_replaces(stream: io.StringIO) -> None:
    """A second configuration replaces the first, so each record is written once."""
    configure_logging("info", json=True, stream=stream)
    configure_logging("error", json=True, stream=stream)
    get_logger("lightwork.x").warning("too low")
    get_logger("lightwork.x").error("once")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["once"]


def test_records_follow_standard_error(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a stream, records go to the sys.stderr of the moment at which they are made."""
    configure_logging("info", json=True)
    monkeypatch.setattr(sys, "stderr", stream)
    get_logger("lightwork.x").info("here")
    assert "here" in stream.getvalue()


def test_an_unknown_level_is_an_error() -> None:
    """The message names the valid levels."""
    with pytest.raises(ValueError, match="debug, info, warning"):
        configure_logging("loud")
