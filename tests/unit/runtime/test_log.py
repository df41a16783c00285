"""Log lines, as a machine, a person and the standard library's own handlers read them."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator

import orjson
import pytest

from korch.runtime import log as logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _set_up_again() -> Iterator[None]:
    """Put the process-wide set-up back afterwards."""
    root = logging.getLogger(logs.ROOT)
    handlers, propagate, level = root.handlers, root.propagate, root.level
    yield
    root.handlers, root.propagate = handlers, propagate
    root.setLevel(level)


def configured(stderr: io.StringIO, level: str = "info") -> io.StringIO:
    """Set logging up as a process with this standard error does."""
    with contextlib.redirect_stderr(stderr):
        logs.configure(level=level)
    return stderr


def test_a_machine_gets_one_json_object_a_line() -> None:
    stderr = configured(io.StringIO())
    logs.get_logger("pods").info("pod bound", pod="d/web", revision=7, cause=ValueError("x"))
    document = orjson.loads(stderr.getvalue())
    assert document.pop("timestamp").endswith("Z")
    assert document == {
        "component": "pods",
        "pod": "d/web",
        "revision": 7,
        "cause": "ValueError('x')",
        "event": "pod bound",
        "level": "info",
    }


def test_an_exception_is_logged_with_its_traceback() -> None:
    stderr = configured(io.StringIO())
    log = logs.get_logger("tasks")
    try:
        raise RuntimeError("boom")
    except RuntimeError as error:
        log.exception("handled")
        kept = error
    log.error("task crashed", task="t", exc_info=kept)
    first, second = (orjson.loads(line) for line in stderr.getvalue().splitlines())
    assert first["level"] == "error" and first["exception"].endswith("RuntimeError: boom")
    assert second["exception"] == first["exception"] and second["task"] == "t"


def test_a_person_gets_time_level_message_and_fields() -> None:
    stderr = configured(Terminal())
    logs.get_logger("api").warning("slow", seconds=3)
    assert stderr.getvalue().partition(" ")[2] == "warning  slow seconds=3 component=api\n"


def test_lines_below_the_level_are_left_out() -> None:
    stderr = configured(io.StringIO(), "warning")
    logs.get_logger("api").info("quiet")
    assert stderr.getvalue() == ""


def test_whoever_embeds_korch_sees_its_lines_in_their_own_logging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="korch"):
        logs.get_logger("pods").info("pod bound", pod="d/web")
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == ("korch.pods", "pod bound pod=d/web")
    assert record.funcName == "test_whoever_embeds_korch_sees_its_lines_in_their_own_logging"
