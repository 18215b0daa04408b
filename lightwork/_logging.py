"""Logging of the framework: structlog formats the events, standard `logging` carries the records.

Every record goes to a standard logger under ``lightwork``. A service that embeds an app handles it like a record of
any other library. Nothing global is configured: structlog's own configuration is neither read nor set. structlog is
imported when the first enabled record is logged, because importing it takes longer than importing the rest of
lightwork. The output of works is not logging; see `lightwork.changes.LogLine`.
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

    The message of a record is the event followed by ``key=value`` pairs. The record also has the attributes ``event``
    (the event alone) and ``fields`` (a dictionary), for handlers that format them separately.
    """

    __slots__ = ("_fields", "_logger")

    def __init__(self, logger: logging.Logger, fields: dict[str, Any]) -> None:
        self._logger = logger
        self._fields = fields

    def bind(self, **fields: Any) -> Logger:
        """Return a logger of the same name that adds these fields to every record."""
        return Logger(self._logger, {**self._fields, **fields})

    def is_enabled(self, level: int) -> bool:
        """Return whether records of this `logging` level are handled. Use it to skip costly preparations."""
        return self._logger.isEnabledFor(level)

    def debug(self, event: str, /, **fields: Any) -> None:
        """Log a detail for debugging lightwork itself."""
        self._emit(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: Any) -> None:
        """Log an event of normal operation."""
        self._emit(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        """Log a problem that does not stop the app."""
        self._emit(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        """Log a failure. ``exc_info=error`` adds the traceback."""
        self._emit(logging.ERROR, event, fields)

    def exception(self, event: str, /, **fields: Any) -> None:
        """Log a failure with the traceback of the exception that is being handled."""
        fields.setdefault("exc_info", True)
        self._emit(logging.ERROR, event, fields)

    def critical(self, event: str, /, **fields: Any) -> None:
        """Log a failure that ends the program."""
        self._emit(logging.CRITICAL, event, fields)

    def _emit(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if not self._logger.isEnabledFor(level):
            return
        args, keywords = _process(self._logger, level, event, {**self._fields, **fields})
        # Skip two frames, `_emit` and the method of the level, to name the line that logged.
        self._logger.log(level, *args, stacklevel=3, **keywords)


def get_logger(name: str) -> Logger:
    """Return the framework's logger of this name; pass ``__name__``. ``lightwork.`` is prepended to any other name."""
    if name != _ROOT and not name.startswith(f"{_ROOT}."):
        name = f"{_ROOT}.{name}"
    return Logger(logging.getLogger(name), {})


def configure_logging(level: str = "warning", json: bool = False, stream: TextIO | None = None) -> None:
    """Write lightwork's records to standard error, as the command line does. A second call replaces the first.

    Records of other libraries are written in the same format, from level warning.

    Args:
        level: Lowest level of lightwork's records: ``debug``, ``info``, ``warning``, ``error`` or ``critical``.
        json: Write one JSON object a line instead of text.
        stream: Stream to write to (default: ``sys.stderr``).

    Raises:
        ValueError: The level is unknown.
    """
    if level.lower() not in LEVELS:
        raise ValueError(f"log level must be one of {', '.join(LEVELS)}, got {level!r}")
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
    """Return a function that turns an event into the arguments of `logging.Logger.log`."""
    import structlog

    # The chain is passed in. `structlog.configure` belongs to the embedding program.
    bound = structlog.BoundLoggerBase(None, [structlog.contextvars.merge_contextvars, _to_record], {})

    def run(logger: logging.Logger, method: str, event: str, fields: dict[str, Any]) -> Any:
        return bound._process_event(method, event, fields)

    return run


def _to_record(logger: Any, method: str, event_dict: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Build the message as text and put its parts in ``extra``. Last processor of the chain."""
    event = str(event_dict.pop("event"))
    keywords = {name: event_dict.pop(name) for name in ("exc_info", "stack_info") if name in event_dict}
    fields = dict(event_dict)
    message = " ".join([event, *(f"{key}={value!r}" for key, value in fields.items())])
    keywords["extra"] = {"event": event, "fields": fields}
    # The message is an argument of "%s", so a "%" in it is not interpreted.
    return ("%s", message), keywords


class _Handler(logging.StreamHandler[Any]):
    """Writes to the current ``sys.stderr`` of each record, because the live view replaces ``sys.stderr``."""

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
    """Return the event and the fields of a record, also of a record of another library."""
    fields = getattr(record, "fields", None)
    if isinstance(fields, dict):
        return str(getattr(record, "event", "")), fields
    return record.getMessage(), {}


class _JsonFormatter(logging.Formatter):
    """Formats one JSON object a line: ``time`` (seconds since the epoch), ``level``, ``logger``, ``event``, fields."""

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
        # A field value that JSON cannot hold is written as its repr.
        return msgspec.json.encode(line, enc_hook=repr).decode()


class _ConsoleFormatter(logging.Formatter):
    """Formats structlog's console line: time, level, event, fields, logger; in colour on a terminal."""

    def __init__(self, handler: _Handler) -> None:
        super().__init__()
        self._handler = handler
        self._renderer: Any = None

    def format(self, record: logging.LogRecord) -> str:
        if self._renderer is None:
            from structlog.dev import ConsoleRenderer, plain_traceback

            isatty = getattr(self._handler.stream, "isatty", None)
            # 0: do not pad the event. Passed by position, because the parameter's name differs between versions.
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
