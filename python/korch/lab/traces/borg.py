"""Google's Borg trace of 2019: the table instance_events, exported as CSV or as one JSON object a line.

Fields read: time (microseconds), type, collection_id, instance_index, and resource_request.cpus, resource_request.memory (shares of
the largest machine), priority, missing_type, collection_type, alloc_collection_id where they are there. In CSV the nested names may
be written with `.` or `_`. Types are numbers or names: SUBMIT 0, SCHEDULE 3, EVICT 4, FAIL 5, FINISH 6, KILL 7, LOST 8; others pass.
Source: https://github.com/google/cluster-data/blob/master/clusterdata_trace_format_v3.proto

A task is an instance of a job: alloc sets (collection_type 1) count as what they reserve, and tasks inside one (alloc_collection_id not
0) are left out, because their room is reserved already. It comes at its first SUBMIT and runs as long as its longest run from SCHEDULE
to an end lasted, forever when it had not ended. Events whose missing_type is not 0 were made up by the publishers; they, an instance
that was never submitted, and one that was never scheduled, are gaps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from korch.lab.source import BadInput, Place, Row, first_row, read_text, table
from korch.lab.traces.scale import Machine
from korch.lab.workload import FOREVER, Workload

NEEDED = ("time", "type", "collection_id", "instance_index", "resource_request_cpus", "resource_request_memory")
TYPES = ("SUBMIT", "QUEUE", "ENABLE", "SCHEDULE", "EVICT", "FAIL", "FINISH", "KILL", "LOST", "UPDATE_PENDING", "UPDATE_RUNNING")
ENDS = frozenset({"EVICT", "FAIL", "FINISH", "KILL", "LOST"})
# Times 0 and 2^63 - 1 stand for before and after the trace.
TIME_MAX_US = (1 << 63) - 1


@dataclass(slots=True)
class _Instance:
    place: Place
    submitted_s: float | None = None
    scheduled_s: float | None = None
    longest_s: float | None = None
    gap: str = ""
    requests: dict[str, str] = field(default_factory=dict)
    priority: int = 0


def read(path: Path, machine: Machine, skips_gaps: bool) -> Workload:
    """Return the tasks of a file. Raises BadInput."""
    instances: dict[tuple[str, str], _Instance] = {}
    skipped = 0
    for row in _rows(path):
        try:
            _take(row, machine, instances)
        except BadInput:
            if not skips_gaps:
                raise
            skipped += 1
    workload = Workload(skipped=skipped)
    for (collection, index), one in instances.items():
        gap = one.gap or _gap(one)
        if gap:
            if not skips_gaps:
                raise BadInput(one.place, f"instance {index} of collection {collection} {gap}")
            workload.skipped += 1
            continue
        still_runs = one.scheduled_s is not None
        duration = FOREVER if still_runs or one.longest_s is None else one.longest_s
        template = workload.sized(one.requests, priority=one.priority)
        workload.add(f"{collection}-{index}", template, one.submitted_s or 0.0, duration)
    return workload


def _gap(instance: _Instance) -> str:
    if instance.submitted_s is None:
        return "was never submitted"
    if instance.scheduled_s is None and instance.longest_s is None:
        return "was never scheduled, so that nobody knows how long it runs"
    return "" if instance.requests else "never says what it asks for"


def _take(row: Row, machine: Machine, instances: dict[tuple[str, str], _Instance]) -> None:
    if row.text("alloc_collection_id", "0") not in ("0", ""):
        return
    kind = row.text("type")
    if kind.isdigit() and int(kind) < len(TYPES):
        kind = TYPES[int(kind)]
    if kind not in TYPES:
        raise BadInput(row.place, f"type is {kind!r}: unknown")
    key = (row.text("collection_id"), row.text("instance_index"))
    instance = instances.setdefault(key, _Instance(row.place))
    if row.text("missing_type", "0") not in ("0", "MISSING_TYPE_NONE"):
        instance.gap = instance.gap or f"has an event that was made up (missing_type {row.text('missing_type')})"
    time_s = min(row.number("time"), TIME_MAX_US) / 1e6
    if row.text("resource_request_cpus", "") and not instance.requests:
        instance.requests = machine.requests(row.number("resource_request_cpus"), row.number("resource_request_memory"))
    if kind == "SUBMIT" and instance.submitted_s is None:
        instance.submitted_s, instance.priority = time_s, row.whole("priority", 0)
    elif kind == "SCHEDULE":
        instance.scheduled_s = time_s
    elif kind in ENDS and instance.scheduled_s is not None:
        ran_s = time_s - instance.scheduled_s
        if ran_s < 0:
            raise BadInput(row.place, f"{kind} at {time_s:g} s is before SCHEDULE at {instance.scheduled_s:g} s: a negative duration")
        instance.longest_s, instance.scheduled_s = max(ran_s, instance.longest_s or 0.0), None


def _rows(path: Path) -> Iterator[Row]:
    if path.name.removesuffix(".gz").endswith((".json", ".jsonl", ".ndjson")):
        return _json_rows(path)
    names = [one.replace(".", "_") for one in first_row(path)]
    return _renamed(table(path, needed=()), path, names)


def _renamed(rows: Iterator[Row], path: Path, names: list[str]) -> Iterator[Row]:
    columns = _checked(Place(str(path), 1), names)
    for row in rows:
        yield Row(row.place, row.cells, columns)


def _json_rows(path: Path) -> Iterator[Row]:
    columns: dict[str, int] = {}
    for line, text in enumerate(read_text(path).splitlines(), 1):
        if not text.strip():
            continue
        place = Place(str(path), line)
        try:
            read: Any = json.loads(text)
        except ValueError as error:
            raise BadInput(place, f"not JSON: {error}") from error
        if not isinstance(read, dict):
            raise BadInput(place, "not a JSON object")
        request = read.pop("resource_request", None) or {}
        cells = read | {f"resource_request_{name}": value for name, value in request.items()}
        missing = [one for one in NEEDED[:4] if one not in cells]
        if missing:
            raise BadInput(place, f"no field {', '.join(missing)}")
        columns = {name: index for index, name in enumerate(cells)}
        yield Row(place, ["" if one is None else str(one) for one in cells.values()], columns)


def _checked(place: Place, names: list[str]) -> dict[str, int]:
    missing = [one for one in NEEDED if one not in names]
    if missing:
        raise BadInput(place, f"no column {', '.join(missing)}; there are {', '.join(names)}")
    return {name: index for index, name in enumerate(names)}
