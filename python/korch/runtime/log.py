"""Structured logs: a constant message plus key/values; JSON unless a terminal reads it."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog


def get_logger(component: str) -> Any:
    """Return a logger whose lines carry `component`. Use: `log.info("pod bound", pod="ns/name", node="n1")`."""
    return structlog.get_logger(component=component)


def configure(*, level: str = "info") -> None:
    """Set up process-wide logging to standard error; called once by a composition root. `level` is a stdlib level name."""
    renderer: Any = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
