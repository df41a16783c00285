"""Which processes of a cluster run, kept in a file that outlives the supervisor.

Each is recorded with its start time, so that a pid that was given to another process since is never taken for one of ours.
"""

from __future__ import annotations

from pathlib import Path

import orjson


class ProcessRecord:
    """The file that names the living children, with start times so that a reused pid is never taken for one of them."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._entries: dict[str, dict[str, int]] = {}

    def add(self, name: str, pid: int) -> None:
        self._entries[name] = {"pid": pid, "startTime": start_time(pid)}
        self._write()

    def remove(self, name: str) -> None:
        if self._entries.pop(name, None) is not None:
            self._write()

    def _write(self) -> None:
        draft = self._file.with_suffix(".draft")
        draft.write_bytes(orjson.dumps(self._entries))
        draft.replace(self._file)


def recorded_processes(file: Path) -> dict[str, int]:
    """Return the pids in a record that are still the processes that were recorded."""
    try:
        entries = orjson.loads(file.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return {name: one["pid"] for name, one in entries.items() if one["startTime"] and start_time(one["pid"]) == one["startTime"]}


def start_time(pid: int) -> int:
    """Return the process's start time in clock ticks since boot, 0 when there is no such process or it is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = text.rpartition(")")[2].split()
    return 0 if fields[0] == "Z" else int(fields[19])
