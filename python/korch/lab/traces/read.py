"""Choosing the reader of a trace by the name of its format, and what holds for all of them: order and begin."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from korch.lab.source import BadInput, Place
from korch.lab.traces import alibaba, azure, borg, own
from korch.lab.traces.scale import Machine
from korch.lab.workload import Workload

Reader = Callable[[Path, Machine, bool], Workload]


@dataclass(frozen=True, slots=True)
class _Format:
    read: Reader
    # The seconds of korch's own traces are those of the simulation; others count from some day of their own.
    starts_at_zero: bool


_FORMATS = {
    "korch": _Format(own.read, starts_at_zero=True),
    "alibaba": _Format(alibaba.read, starts_at_zero=False),
    "azure": _Format(azure.read, starts_at_zero=False),
    "borg": _Format(borg.read, starts_at_zero=False),
}
FORMATS = tuple(_FORMATS)


def read_trace(path: str | Path, trace_format: str = "korch", *, machine: Machine | None = None, skips_gaps: bool = False) -> Workload:
    """Return the tasks of a trace by arrival. Raises BadInput for the first row that cannot be used, or when no task is left."""
    known = _FORMATS.get(trace_format)
    if known is None:
        raise BadInput(Place(str(path)), f"unknown trace format {trace_format!r}; known are {', '.join(FORMATS)}")
    workload = _ordered(known.read(Path(path), machine or Machine(), skips_gaps))
    if not len(workload):
        raise BadInput(Place(str(path)), f"no task in it; {workload.skipped} rows have gaps")
    if not known.starts_at_zero:
        first = workload.arrivals_s[0]
        workload.arrivals_s = array("d", (one - first for one in workload.arrivals_s))
    return workload


def _ordered(workload: Workload) -> Workload:
    arrivals = workload.arrivals_s
    order = sorted(range(len(arrivals)), key=arrivals.__getitem__)
    workload.names = [workload.names[at] for at in order]
    workload.kinds = array("i", (workload.kinds[at] for at in order))
    workload.durations_s = array("d", (workload.durations_s[at] for at in order))
    workload.arrivals_s = array("d", (arrivals[at] for at in order))
    return workload
