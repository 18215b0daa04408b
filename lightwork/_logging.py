"""Logging of the framework itself: structlog in front, ordinary `logging` records behind.

Every record goes to a standard logger under ``lightwork``, so a service that embeds an app sees it as it
sees any other library's. Nothing global is configured: structlog's own configuration is neither read nor
set. structlog is imported with the first record that somebody wants, because importing it takes longer
than importing the rest of lightwork. What works print is not logging; see `lightwork.changes.LogLine`.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

__all__ = ["LEVELS", "Logger", "configure_logging", "get_logger"]

_ROOT = "lightwork"
LEVELS = ("debug", "info", "warning", "error", "critical")

_pipeline: Any = None


class Logger:
    """Logs events with fields to the standard logger of the same name.

    A record's message is the event followed by ``key=value`` pairs; the record also has ``event`` (the
    event alone) and ``fields`` (a dictionary), for handlers that want them apart.
    """

    __slots__ = ("_fields", "_logger")

    def __init__(self, logger: logging.Logger, fields: dict[str, Any]) -> None:
        self._logger = logger
        self._fields = fields

    def bind(self, **fields: Any) -> Logger:
        """A logger of the same name that adds these fields to every record."""
        return Logger(self._logger, {**self._fields, **fields})

    def is_enabled(self, level: int) -> bool:
        """Whether a record of this `logging` level would go anywhere; to skip costly preparations."""
        return self._logger.isEnabledFor(level)

    def debug(self, event: str, /, **fields: Any) -> None:
        """Log what only somebody who debugs lightwork wants to know."""
        self._emit(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: Any) -> None:
        """Log what happened in the normal course of things."""
        self._emit(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        """Log what somebody should look at although everything goes on."""
        self._emit(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        """Log what went wrong; ``exc_info=error`` adds the traceback."""
        self._emit(logging.ERROR, event, fields)

    def exception(self, event: str, /, **fields: Any) -> None:
        """`error` with the traceback of the exception that is being handled."""
        fields.setdefault("exc_info", True)
        self._emit(logging.ERROR, event, fields)

    def critical(self, event: str, /, **fields: Any) -> None:
        """Log what ends the program."""
        self._emit(logging.CRITICAL, event, fields)

    def _emit(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if not self._logger.isEnabledFor(level):
            return
        args, keywords = _process(self._logger, level, event, {**self._fields, **fields})
        # Two frames up is the line that logged: `_emit`, then the method of the level.
        self._logger.log(level, *args, stacklevel=3, **keywords)


def get_logger(name: str) -> Logger:
    """The framework's logger of this name; pass ``__name__``. Names outside ``lightwork`` are put below it."""
    if name != _ROOT and not name.startswith(f"{_ROOT}."):
        name = f"{_ROOT}.{name}"
    return Logger(logging.getLogger(name), {})


def configure_logging(level: str = "warning", json: bool = False, stream: TextIO | None = None) -> None:
    """Write lightwork's records to standard error; what the command line does. Repeating it replaces the last.

    Records of other libraries are shown from warning on, in the same form.

    Args:
        level: ``debug``, ``info``, ``warning``, ``error`` or ``critical``, for lightwork's own records.
        json: One JSON object a line instead of text.
        stream: Where to write instead of ``sys.stderr``.

    Raises:
        ValueError: If there is no such level.
    """
    if level.lower() not in LEVELS:
        raise ValueError(f"log level {level!r} is none of {', '.join(LEVELS)}")
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(handler)
    handler = _Handler(stream)
    handler.setFormatter(_JsonFormatter() if json else _ConsoleFormatter(handler))
    root.addHandler(handler)
    logging.getLogger(_ROOT).setLevel(level.upper())


def _process(logger: logging.Logger, level: int, event: str, fields: dict[str, Any]) -> tuple[Any, Any]:
    global _pipeline
    if _pipeline is None:
        _pipeline = _make_pipeline()
    method = logging.getLevelName(level).lower()
    return _pipeline(logger, method, event, fields)  # type: ignore[no-any-return]


def _make_pipeline() -> Any:
    """A function that turns an event into the arguments of `logging.Logger.log`."""
    import structlog

    # The chain is passed in, never taken from `structlog.configure`: that one belongs to the embedding program.
    bound = structlog.BoundLoggerBase(None, [structlog.contextvars.merge_contextvars, _to_record], {})

    def run(logger: logging.Logger, method: str, event: str, fields: dict[str, Any]) -> Any:
        return bound._process_event(method, event, fields)

    return run


def _to_record(logger: Any, method: str, event_dict: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The last processor of the chain: the message as text, and its parts in ``extra``."""
    event = str(event_dict.pop("event"))
    keywords = {name: event_dict.pop(name) for name in ("exc_info", "stack_info") if name in event_dict}
    fields = dict(event_dict)
    message = " ".join([event, *(f"{key}={value!r}" for key, value in fields.items())])
    keywords["extra"] = {"event": event, "fields": fields}
    # The message is an argument of "%s", so that a "%" in it stays what it is.
    return ("%s", message), keywords


class _Handler(logging.StreamHandler[Any]):
    """Writes to ``sys.stderr`` as it is at the moment of the record: the live view puts its own in its place."""

    def __init__(self, stream: TextIO | None) -> None:
        logging.Handler.__init__(self)
        self._fixed = stream

    @property
    def stream(self) -> Any:
        return self._fixed or sys.stderr

    @stream.setter
    def stream(self, value: Any) -> None:
        self._fixed = value


def _parts(record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
    """Event and fields of a record, of another library's too."""
    fields = getattr(record, "fields", None)
    if isinstance(fields, dict):
        return str(getattr(record, "event", "")), fields
    return record.getMessage(), {}


class _JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time`` (seconds since the epoch), ``level``, ``logger``, ``event``, the fields."""

    def format(self, record: logging.LogRecord) -> str:
        import msgspec

        event, fields = _parts(record)
        line = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": event,
            **{key: value for key, value in fields.items() if key not in {"time", "level", "logger", "event"}},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        # Fields can be anything; what JSON has no form for is written as its repr.
        return msgspec.json.encode(line, enc_hook=repr).decode()


class _ConsoleFormatter(logging.Formatter):
    """structlog's console line: time, level, event, fields, logger; in colour on a terminal."""

    def __init__(self, handler: _Handler) -> None:
        super().__init__()
        self._handler = handler
        self._renderer: Any = None

    def format(self, record: logging.LogRecord) -> str:
        if self._renderer is None:
            from structlog.dev import ConsoleRenderer, plain_traceback

            isatty = getattr(self._handler.stream, "isatty", None)
            # No padding of the event; by position, because the parameter's name differs between versions.
            self._renderer = ConsoleRenderer(
                0, colors=bool(isatty and isatty()), exception_formatter=plain_traceback, sort_keys=False
            )
        event, fields = _parts(record)
        line: dict[str, Any] = {
            **{key: value for key, value in fields.items() if key not in {"timestamp", "level", "logger", "event"}},
            "timestamp": self.formatTime(record, "%H:%M:%S"),
            "level": record.levelname.lower(),
            "event": event,
            "logger": record.name,
        }
        if record.exc_info:
            line["exc_info"] = record.exc_info
        if record.stack_info:
            line["stack"] = record.stack_info
        return str(self._renderer(None, record.levelname.lower(), line))
