"""The file in which audit events are kept, one JSON object a line, and its older parts beside it.

A line is handed to the system in one write before the next stage of its request begins, so it survives the end of this process.
When the file has reached its size it is renamed after the moment (`audit-2026-11-01T10-00-00.000.log`) and a new one begins; older
parts go by number and by age. Mirrors apiserver's plugin/pkg/audit/log on lumberjack.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from korch.runtime.clock import Clock
from korch.runtime.log import get_logger

# What lumberjack takes 0 for.
SIZE_MB_DEFAULT = 100
_STAMP = "%Y-%m-%dT%H-%M-%S"
_STDOUT = "-"

log = get_logger("audit")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """Where the log is and how much of it is kept. `path` "-" is standard output; 0 days or parts: all are kept."""

    path: str
    max_age_days: int = 0
    max_parts: int = 0
    max_size_mb: int = 0


class LogFile:
    """An open audit log. Raises OSError when it cannot be opened."""

    def __init__(self, options: LogOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._bytes_max = (options.max_size_mb or SIZE_MB_DEFAULT) * 1024 * 1024
        self._size = 0
        self._descriptor = -1
        if options.path != _STDOUT:
            self._path = Path(options.path)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._open()

    def write(self, event: dict[str, Any]) -> None:
        """Append one event. An event that cannot be written is told of in the server's own log, and its request goes on."""
        line = orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)
        try:
            self._append(line)
        except OSError as error:
            log.error("an audit event could not be written", audit_id=event.get("auditID"), error=str(error))

    def _append(self, line: bytes) -> None:
        if self._descriptor < 0:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            return
        if self._size and self._size + len(line) > self._bytes_max:
            self._rotate()
        written = os.write(self._descriptor, line)
        if written < len(line):
            # Half a line would spoil the next one.
            os.ftruncate(self._descriptor, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += len(line)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def _rotate(self) -> None:
        now, before = self._clock.now(), self._descriptor
        moment = datetime.fromtimestamp(now, UTC)
        stamp = f"{moment.strftime(_STAMP)}.{moment.microsecond // 1000:03d}"
        self._path.rename(self._path.with_name(f"{self._path.stem}-{stamp}{self._path.suffix}"))
        self._open()
        os.close(before)
        self._forget(now)

    def _forget(self, now: float) -> None:
        parts = sorted(self._parts(), reverse=True)
        doomed = parts[self._options.max_parts :] if self._options.max_parts else []
        if self._options.max_age_days:
            oldest = now - self._options.max_age_days * 24 * 3600
            doomed += [one for one in parts if one[0] < oldest]
        for _, file in doomed:
            file.unlink(missing_ok=True)

    def _parts(self) -> list[tuple[float, Path]]:
        """Return (when it was closed, file) of every older part."""
        pattern = re.compile(rf"{re.escape(self._path.stem)}-(\d{{4}}-\d\d-\d\dT\d\d-\d\d-\d\d)\.(\d{{3}}){re.escape(self._path.suffix)}")
        found: list[tuple[float, Path]] = []
        for file in self._path.parent.iterdir():
            match = pattern.fullmatch(file.name)
            if match is not None:
                seconds = datetime.strptime(match[1], _STAMP).replace(tzinfo=UTC).timestamp()
                found.append((seconds + int(match[2]) / 1000, file))
        return found
