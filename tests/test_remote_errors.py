from __future__ import annotations

import asyncio
import builtins
import pickle
import sys
import types
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import pytest

from lightwork.errors import ArgumentsError, CallTimeout, RemoteTraceback, StateError, WorkError
from lightwork.remote_errors import ErrorInfo, describe_error, rebuild_error

E = TypeVar("E", bound=BaseException)


class PlainError(Exception):
    pass


class DemandingError(Exception):
    """Cannot be made from its `args`, and counts how often it is made."""

    made = 0

    def __new__(cls, *args: Any, **kwargs: Any) -> DemandingError:
        DemandingError.made += 1
        return super().__new__(cls)

    def __init__(self, *, code: int, response: object) -> None:
        super().__init__(f"code {code}")
        DemandingError.made += 1
        self.code = code
        self.response = response


class Nested:
    class InnerError(ValueError):
        pass


class MixedError(PlainError, KeyError, LookupError):
    pass


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class NeedsItsInitError(Exception):
    __slots__ = ("told",)

    def __init__(self, told: str) -> None:
        self.told = told

    def __str__(self) -> str:
        return f"told {self.told}"


def raised(error: E) -> E:
    """Return the error with a traceback, after it was raised and caught."""
    try:
        raise error
    except BaseException:
        return error


def sent(error: BaseException) -> BaseException:
    """Return the error as the other process receives it: described, encoded, decoded and rebuilt."""
    data = msgspec.msgpack.encode(describe_error(raised(error)))
    return rebuild_error(msgspec.msgpack.decode(data, type=ErrorInfo), work="root.a")


def assert_work_error(error: BaseException, text: str, name: str) -> None:
    assert type(error) is WorkError
    assert (str(error), error.work, error.type_name) == (text, "root.a", name)


# --- its own class -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad", 3, [1]),
        KeyError("missing"),
        KeyError((1, ("a", None))),
        FileNotFoundError(2, "No such file or directory", "a.txt"),
        OSError(28, "No space left on device", "a", None, "b"),
        OSError("only a text"),
        TimeoutError("late"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        UnicodeEncodeError("ascii", "\xe9", 0, 1, "ordinal not in range(128)"),
        SyntaxError("bad", ("f.py", 1, 2, "x =")),
        ZeroDivisionError(),
        RecursionError("deep"),
        PlainError("a"),
        Nested.InnerError("b"),
        MixedError("c"),
        StateError("d"),
        ArgumentsError("e"),
        CallTimeout("f", work="root.b"),
        asyncio.IncompleteReadError(b"a", 3),
        asyncio.InvalidStateError("g"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_arrives_as_its_own(error: Exception) -> None:
    """Class, arguments, text and attributes are those of the raised exception."""
    arrived = sent(error)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert arrived.args == error.args
    assert vars(arrived) == vars(error)


def test_an_os_error_keeps_its_number_and_its_files() -> None:
    """`errno`, `strerror`, both file names and the subclass of the number arrive."""
    arrived = sent(OSError(2, "gone", "a", None, "b"))
    assert isinstance(arrived, FileNotFoundError)
    assert (arrived.errno, arrived.strerror, arrived.filename, arrived.filename2) == (2, "gone", "a", "b")


def test_an_import_error_keeps_the_name_of_the_module() -> None:
    """Fields that built-in exceptions keep outside of their arguments arrive too."""
    arrived = sent(ModuleNotFoundError("no torch", name="torch", path="/a"))
    assert isinstance(arrived, ModuleNotFoundError)
    assert (arrived.name, arrived.path) == ("torch", "/a")


def test_a_custom_init_is_not_called() -> None:
    """A class whose __init__ differs is rebuilt without running its code; values that cannot be sent are omitted."""
    error = DemandingError(code=7, response=object())
    made = DemandingError.made
    arrived = sent(error)
    assert isinstance(arrived, DemandingError)
    assert (arrived.code, str(arrived), hasattr(arrived, "response")) == (7, "code 7", False)
    assert DemandingError.made == made


def test_arguments_that_cannot_be_sent_leave_the_text() -> None:
    """If an argument cannot be encoded, the exception keeps its class, and its text replaces the arguments."""
    arrived = sent(ValueError(object))
    assert type(arrived) is ValueError
    assert arrived.args == ("<class 'object'>",)


def test_the_remote_traceback_is_the_cause() -> None:
    """The printed traceback ends with the worker's traceback, and `except` sees only the exception."""
    arrived = sent(ValueError("bad"))
    assert isinstance(arrived.__cause__, RemoteTraceback)
    assert arrived.__cause__.text.startswith("Traceback (most recent call last):\n")
    assert arrived.__cause__.text.endswith("ValueError: bad")
    with pytest.raises(ValueError, match="bad"):
        raise arrived


def test_notes_arrive() -> None:
    """Notes arrive on the exception and in the remote traceback."""
    error = ValueError("bad")
    error.add_note("in epoch 3")
    arrived = sent(error)
    assert arrived.__notes__ == ["in epoch 3"]
    assert isinstance(arrived.__cause__, RemoteTraceback)
    assert arrived.__cause__.text.endswith("ValueError: bad\nin epoch 3")


# --- a WorkError -------------------------------------------------------------------------------------


def test_a_class_that_is_not_loaded_here_is_a_work_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class whose module is not imported here is named in a WorkError, and nothing is imported."""
    module = types.ModuleType("only_there")
    error_class: type[Exception] = type("Odd", (Exception,), {"__module__": "only_there"})
    module.Odd = error_class  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "only_there", module)
    assert type(sent(error_class("x"))) is error_class
    monkeypatch.delitem(sys.modules, "only_there")
    assert_work_error(sent(error_class("x")), "Odd: x", "only_there.Odd")


def test_nothing_is_imported_called_or_looked_up_by_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module with a `__getattr__` and an importable module are neither called nor imported."""
    asked: list[str] = []
    lazy = types.ModuleType("lazy")
    lazy.__getattr__ = asked.append  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "lazy", lazy)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    for module in ("lazy", "colorsys"):
        assert type(rebuild_error(ErrorInfo(module, "Error", "x"), work="root.a")) is WorkError
    assert asked == []
    assert "colorsys" not in sys.modules


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError("x")])
def test_what_ends_a_program_there_does_not_end_it_here(error: BaseException) -> None:
    """Exits, interrupts and cancellations of a worker arrive as a WorkError."""
    arrived = sent(error)
    assert type(arrived) is WorkError
    assert str(arrived).startswith(type(error).__name__)


@pytest.mark.parametrize("error", [StopIteration(1), StopAsyncIteration()])
async def test_what_a_future_cannot_hold_is_a_work_error(error: Exception) -> None:
    """StopIteration arrives as a WorkError, which a future can hold and a coroutine can raise."""
    future = asyncio.get_running_loop().create_future()
    future.set_exception(sent(error))
    with pytest.raises(WorkError, match="Iteration"):
        await future


def test_a_group_is_a_work_error_with_the_whole_traceback() -> None:
    """The text of every member of an exception group is kept."""
    arrived = sent(ExceptionGroup("both", [raised(ValueError("one")), raised(KeyError("two"))]))
    assert_work_error(arrived, "ExceptionGroup: both (2 sub-exceptions)", "ExceptionGroup")
    text = str(arrived.__cause__)
    assert "ValueError: one" in text
    assert "KeyError: 'two'" in text


def test_a_class_inside_a_function_is_a_work_error() -> None:
    """A class inside of a function is named by its qualified name."""

    class LocalError(Exception):
        pass

    name = f"{__name__}.{LocalError.__qualname__}"
    assert_work_error(sent(LocalError("x")), "LocalError: x", name)


def test_a_class_whose_text_needs_its_init_is_a_work_error() -> None:
    """An exception whose __str__ needs its own __init__ keeps its text as a WorkError."""
    assert_work_error(sent(NeedsItsInitError("all")), "NeedsItsInitError: told all", f"{__name__}.NeedsItsInitError")


def test_an_exception_that_cannot_speak_is_described() -> None:
    """A __str__ that raises breaks neither end."""
    arrived = sent(MuteError())
    assert type(arrived) is WorkError
    assert str(arrived) == "MuteError: <str() of this MuteError raised RuntimeError>"
    assert "MuteError" in str(arrived.__cause__)


@pytest.mark.parametrize(
    "info",
    [
        ErrorInfo("builtins", "ValueError", "x", args=b"\xc1"),
        ErrorInfo("builtins", "ValueError", "x", args=msgspec.msgpack.encode({"a": 1})),
        ErrorInfo("builtins", "ValueError", "x", args=b"\x91" * 100_000 + b"\xc0"),
        ErrorInfo("builtins", "ValueError", "x", attributes=msgspec.msgpack.encode([1])),
        ErrorInfo("builtins", "UnicodeDecodeError", "x", args=msgspec.msgpack.encode([1])),
        ErrorInfo("builtins", "UnicodeDecodeError", "x"),
        ErrorInfo("builtins", "ValueError", "x", attributes=msgspec.msgpack.encode({"__notes__": 3})),
        ErrorInfo("builtins", "eval", "x"),
        ErrorInfo("builtins", "int", "x"),
        ErrorInfo("builtins", "ValueError.__init__", "x"),
        ErrorInfo("builtins", "ValueError.__init__.__globals__", "x"),
        ErrorInfo("builtins", "", "x"),
        ErrorInfo("", "", ""),
    ],
)
def test_a_description_that_lies_is_a_work_error(info: ErrorInfo) -> None:
    """Any data that a worker sends as an exception can be raised, printed and pickled."""
    error = rebuild_error(info, work="root.a")
    assert type(error) is WorkError
    assert error.work == "root.a"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_attributes_cannot_replace_what_an_exception_does() -> None:
    """Names that exceptions use themselves are not accepted from a worker."""
    attributes = {"with_traceback": 1, "__class__": 2, "__cause__": 3, "args": 4, "code": 5}
    error = rebuild_error(
        ErrorInfo("builtins", "ValueError", "x", attributes=msgspec.msgpack.encode(attributes)), work="root.a"
    )
    assert type(error) is ValueError
    assert vars(error) == {"code": 5}
    assert (error.args, error.__cause__) == (("x",), None)


# --- the traceback -----------------------------------------------------------------------------------


def made_module(monkeypatch: pytest.MonkeyPatch, name: str, file: str, source: str) -> types.ModuleType:
    """Return a loaded module whose functions seem to come from a file."""
    module = types.ModuleType(name)
    module.__file__ = file
    exec(compile(source, file, "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, name, module)
    return module


@pytest.fixture
def carry(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Call the argument from a function of a hidden module."""
    source = "def carry(function):\n    return function()\n"
    carry: Callable[..., Any] = made_module(monkeypatch, "carrier", "/nowhere/carrier.py", source).carry
    return carry


def boom() -> None:
    raise ValueError("boom")


def test_the_user_s_line_is_the_first_and_the_last(carry: Callable[..., Any]) -> None:
    """The frames that only lead to the user's code are omitted (pitfall 23)."""
    try:
        carry(lambda: carry(boom))
    except ValueError as error:
        text = describe_error(error, hide=("carrier",)).traceback
    assert "carrier.py" not in text
    assert "in boom" in text
    assert "carrier.py" in describe_error(raised(error_of(carry, boom))).traceback


def error_of(carry: Callable[..., Any], function: Callable[[], Any]) -> Exception:
    with pytest.raises(ValueError, match="boom") as caught:
        carry(function)
    return caught.value


def test_hidden_frames_stay_where_there_are_no_others() -> None:
    """An error of the framework itself keeps its frames, because it has no others."""
    try:
        msgspec.convert(1, str)
    except msgspec.ValidationError as caught:
        error = caught
    assert "test_remote_errors.py" in describe_error(error, hide=(__name__,)).traceback


def test_an_error_of_lightwork_ends_at_the_line_that_caused_it() -> None:
    """For an error that lightwork raises, its own frames are omitted and the user's line is the last."""
    from lightwork.components.signature import RunSignature

    def run(self: Any) -> None: ...

    with pytest.raises(ArgumentsError) as caught:
        RunSignature.of(run, "Train").bind((1,), {})
    text = describe_error(caught.value).traceback
    assert "signature.py" not in text
    assert 'RunSignature.of(run, "Train").bind((1,), {})' in text


def test_causes_and_contexts_are_shown_without_the_carriers(carry: Callable[..., Any]) -> None:
    """The text contains the whole chain, each part without the framework's frames."""

    def chained() -> None:
        try:
            carry(boom)
        except ValueError as error:
            try:
                raise KeyError("second")
            except KeyError:
                raise RuntimeError("third") from error

    with pytest.raises(RuntimeError) as caught:
        carry(chained)
    text = describe_error(caught.value, hide=("carrier",)).traceback
    assert text.index("ValueError: boom") < text.index("direct cause") < text.index("RuntimeError: third")
    assert "carrier.py" not in text


def test_frames_of_groups_are_hidden_too(carry: Callable[..., Any]) -> None:
    """The members of a group lose the framework's frames too."""
    group = ExceptionGroup("all", [error_of(carry, boom)])
    text = describe_error(raised(group), hide=("carrier",)).traceback
    assert "ValueError: boom" in text
    assert "carrier.py" not in text


def test_a_huge_message_is_cut_in_its_middle() -> None:
    """Texts are bounded in bytes and keep both ends; longer arguments are omitted."""
    info = describe_error(raised(ValueError("<" + "é" * 1_000_000 + ">")))
    for text in (info.message, info.traceback):
        assert len(text.encode()) <= 100_000
        assert "bytes left out" in text
        assert text.endswith(">")
    assert info.args is None
    arrived = rebuild_error(info, work="root.a")
    assert type(arrived) is ValueError
    assert arrived.args == (info.message,)


def test_huge_attributes_are_left_out_and_small_ones_stay() -> None:
    """One attribute that is too long does not remove the others."""
    error = PlainError("x")
    error.__dict__.update(long="x" * 200_000, short=1)
    assert vars(sent(error)) == {"short": 1}


def test_a_text_that_is_no_utf_8_can_be_sent() -> None:
    """Lone surrogates, as in file names, are escaped."""
    arrived = sent(ValueError("name\udcff"))
    assert type(arrived) is ValueError
    assert str(arrived) == "name\\udcff"


def test_a_deep_recursion_is_described() -> None:
    """A traceback of a thousand frames is as short as Python prints it."""

    def deeper() -> None:
        deeper()

    with pytest.raises(RecursionError) as caught:
        deeper()
    info = describe_error(caught.value)
    assert len(info.traceback) < 2000
    assert "Previous line repeated" in info.traceback


def test_an_exception_that_holds_itself_is_described() -> None:
    """Cycles among causes and contexts end."""
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert "ValueError: one" in describe_error(raised(one)).traceback


def test_every_built_in_exception_can_be_sent() -> None:
    """Every built-in exception is rebuilt as its own class, or as a WorkError if that class is never rebuilt."""
    for kind in vars(builtins).values():
        if isinstance(kind, type) and issubclass(kind, BaseException) and not issubclass(kind, BaseExceptionGroup):
            error = kind("ascii", "", 0, 1, "x") if kind is UnicodeEncodeError else made(kind)
            arrived = sent(error)
            whole = issubclass(kind, Exception) and not issubclass(kind, StopIteration | StopAsyncIteration)
            assert type(arrived) is (kind if whole else WorkError)


def made(kind: type[BaseException]) -> BaseException:
    if kind is UnicodeDecodeError:
        return UnicodeDecodeError("utf-8", b"a", 0, 1, "x")
    return UnicodeTranslateError("a", 0, 1, "x") if kind is UnicodeTranslateError else kind("x")
