"""Structured logs: a constant message plus key/values; JSON lines unless a terminal reads them.

Lines go through the standard library's logging, below the logger `korch`, so whoever embeds korch routes or silences them as any
other. Nothing heavier is imported: every process of a cluster pays for this module when it starts.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import orjson

ROOT = "korch"
_LEVEL_COLUMNS = 8


class Line:
    """What one call said; as text `message key=value ...`, for handlers that know nothing of fields."""

    __slots__ = ("component", "fields", "message")

    def __init__(self, component: str, message: str, fields: dict[str, Any]) -> None:
        self.component = component
        self.message = message
        self.fields = fields

    def __str__(self) -> str:
        return " ".join([self.message, *(f"{key}={value}" for key, value in self.fields.items())])


class Logger:
    """Logs for one component. Fields are keyword arguments; `exc_info` adds the traceback of an exception."""

    __slots__ = ("_component", "_logger")

    def __init__(self, component: str) -> None:
        self._component = component
        self._logger = logging.getLogger(f"{ROOT}.{component}")

    def debug(self, message: str, /, **fields: Any) -> None:
        self._log(logging.DEBUG, message, None, fields)

    def info(self, message: str, /, **fields: Any) -> None:
        self._log(logging.INFO, message, None, fields)

    def warning(self, message: str, /, *, exc_info: BaseException | None = None, **fields: Any) -> None:
        self._log(logging.WARNING, message, exc_info, fields)

    def error(self, message: str, /, *, exc_info: BaseException | None = None, **fields: Any) -> None:
        self._log(logging.ERROR, message, exc_info, fields)

    def exception(self, message: str, /, **fields: Any) -> None:
        """Log an error with the exception that is being handled."""
        self._log(logging.ERROR, message, sys.exception(), fields)

    def _log(self, level: int, message: str, error: BaseException | None, fields: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            # Two frames up is the call that says something.
            self._logger.log(level, Line(self._component, message, fields), exc_info=error, stacklevel=3)


def get_logger(component: str) -> Logger:
    """Return a logger whose lines carry `component`. Use: `log.info("pod bound", pod="ns/name", node="n1")`."""
    return Logger(component)


def configure(*, level: str = "info") -> None:
    """Set up logging to standard error for this process; called once by a composition root. `level` is a stdlib level name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_ForPeople() if sys.stderr.isatty() else _ForMachines())
    root = logging.getLogger(ROOT)
    root.handlers = [handler]
    root.propagate = False
    root.setLevel(logging.getLevelNamesMapping()[level.upper()])


class _ForMachines(logging.Formatter):
    """One JSON object a line: component, the fields, event, level, timestamp, and exception if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = _line_of(record)
        document = {
            "component": line.component,
            **line.fields,
            "event": line.message,
            "level": record.levelname.lower(),
            "timestamp": _time(record).isoformat().replace("+00:00", "Z"),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(document, default=repr).decode()


class _ForPeople(logging.Formatter):
    """Time, level, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        line = _line_of(record)
        level = record.levelname.lower().ljust(_LEVEL_COLUMNS)
        text = f"{_time(record):%H:%M:%S.%f}"[:-3] + f" {level} {line} component={line.component}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _line_of(record: logging.LogRecord) -> Line:
    return record.msg if isinstance(record.msg, Line) else Line(record.name, record.getMessage(), {})


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)
