from __future__ import annotations

import asyncio

import pytest

from lightwork.cli.report import format_error
from lightwork.cli.settings import parse_setting
from lightwork.errors import RemoteTraceback, WorkError

REMOTE = 'Traceback (most recent call last):\n  File "train.py", line 7, in run\n    fit()\nValueError: bad data\n'


def raised(error: Exception, cause: BaseException | None = None) -> Exception:
    try:
        raise error from cause
    except Exception as caught:
        return caught


def test_the_workers_traceback_comes_first_and_the_flows_line_after_it() -> None:
    """A remote traceback is shown as text, followed by the frames of the flow and the error."""
    text = format_error(raised(ValueError("bad data"), RemoteTraceback(REMOTE)))
    assert text.startswith(REMOTE)
    assert "The error reached the flow here:" in text
    assert "raise error from cause" in text
    assert text.endswith("\nValueError: bad data\n")
    assert "RemoteTraceback" not in text


def test_an_error_that_never_was_in_the_flow_shows_the_worker_alone() -> None:
    """Without a frame of the flow, only the remote traceback and the notes of the error are shown."""
    error = ValueError("bad data")
    error.__cause__ = RemoteTraceback(REMOTE)
    error.add_note("call 3 of root.train")
    assert format_error(error) == f"{REMOTE}call 3 of root.train\n"


def test_frames_of_the_framework_and_the_loop_are_left_out() -> None:
    """Frames of lightwork and asyncio are left out, unless the full traceback is requested."""

    async def flow() -> None:
        await asyncio.wait_for(asyncio.gather(call()), 60)

    async def call() -> None:
        parse_setting("nothing")

    with pytest.raises(ValueError, match="COMPONENT") as caught:
        asyncio.run(flow())
    text = format_error(caught.value)
    assert "in flow" in text
    assert "in call" in text
    assert "runners.py" not in text
    assert "tasks.py" not in text
    assert "settings.py" not in text
    full = format_error(caught.value, full=True)
    assert "settings.py" in full
    assert "runners.py" in full


def test_an_error_of_our_own_keeps_its_frames() -> None:
    """An error that has only frames of lightwork is a bug of lightwork, so its frames are shown."""
    with pytest.raises(AttributeError) as caught:
        parse_setting(None)  # type: ignore[arg-type]
    error = caught.value
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next
    assert "settings.py" in format_error(error)


def test_causes_and_contexts_are_shown_in_order() -> None:
    """A chain of exceptions is formatted as by Python."""
    first = raised(KeyError("first"))
    second = raised(TypeError("second"), first)
    text = format_error(second)
    assert text.index("KeyError: 'first'") < text.index("direct cause") < text.index("TypeError: second")
    third = raised(RuntimeError("third"))
    third.__suppress_context__, third.__context__ = False, second
    assert "During handling of the above" in format_error(third)
    third.__suppress_context__ = True
    assert "second" not in format_error(third)


def test_a_circle_of_causes_ends() -> None:
    """Exceptions that are each other's cause are shown once."""
    one, two = KeyError("one"), KeyError("two")
    one.__cause__, two.__cause__ = two, one
    assert format_error(one).count("KeyError: 'one'") == 1


def test_members_of_a_group_are_shown_with_their_remote_tracebacks() -> None:
    """Each member of a group is indented below it, with its remote traceback."""
    member = raised(WorkError("lost"), RemoteTraceback(REMOTE))
    text = format_error(raised(ExceptionGroup("two calls", [member, KeyError("x")])))
    assert "ExceptionGroup: two calls (2 sub-exceptions)" in text
    assert '  |   File "train.py", line 7, in run\n' in text
    assert "2 of 2" in text
    assert "  | KeyError: 'x'\n" in text
