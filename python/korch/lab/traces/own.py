"""korch's own trace: a CSV file whose first row names the columns.

| column | meaning |
| --- | --- |
| `arrival_s` | when the task comes, in seconds from the begin |
| `cpu`, `memory` | what it asks for, as Kubernetes quantities: `500m`, `4Gi` |
| `duration_s` | how long it runs, in seconds; empty or no such column: until it is stopped |
| `name` | its name; `task-N` without the column |
| `count` | how many of it come together, one by default; they are called `NAME-0`, `NAME-1`, ... |
| `priority` | a whole number, 0 by default, below 0 allowed |
| `gpu` | how many of nvidia.com/gpu |
| `namespace` | `default` by default |
| `selector` | labels that its node must have: `disk=ssd;zone=a` |
| `labels` | its own labels, in the same form |

Times may have fractions. The first three columns are needed; unknown ones are refused, because a misspelt column would be ignored.
"""

from __future__ import annotations

from pathlib import Path

from korch.api.meta import Object
from korch.lab.source import BadInput, Row, kept, table
from korch.lab.traces.scale import Machine
from korch.lab.workload import FOREVER, GPU, Workload, sized_pod

NEEDED = ("arrival_s", "cpu", "memory")
COLUMNS = (*NEEDED, "duration_s", "name", "count", "priority", "gpu", "namespace", "selector", "labels")
PRIORITY_MAX = 1_000_000_000


def read(path: Path, machine: Machine, skips_gaps: bool) -> Workload:
    """Return the tasks of a file. `machine` is not needed. Raises BadInput."""
    del machine
    workload = Workload()
    templates: dict[tuple[str, ...], int] = {}
    names: set[str] = set()
    looks = COLUMNS[1:3] + COLUMNS[6:]

    def take(row: Row) -> None:
        arrival, duration = row.number("arrival_s"), row.number("duration_s", FOREVER)
        count, name = row.whole("count", 1), row.text("name", f"task-{len(workload)}")
        look = tuple(row.text(column, "") for column in looks)
        template = templates.get(look)
        if template is None:
            template = templates[look] = workload.template(_pod(row))
        for number in range(count):
            one = f"{name}-{number}" if count > 1 else name
            key = f"{look[4]}/{one}"
            if key in names:
                raise BadInput(row.place, f"a second task named {one}")
            names.add(key)
            workload.add(one, template, arrival, duration)

    workload.skipped = kept(table(path, needed=NEEDED, known=COLUMNS), take, skips_gaps=skips_gaps)
    return workload


def _pod(row: Row) -> Object:
    requests = {"cpu": row.quantity("cpu"), "memory": row.quantity("memory")}
    if gpus := row.whole("gpu", 0):
        requests[GPU] = str(gpus)
    priority = row.signed("priority", 0)
    if priority != int(priority) or abs(priority) > PRIORITY_MAX:
        raise BadInput(row.place, f"priority is {priority:g}: must be a whole number of at most {PRIORITY_MAX:,}")
    pod = sized_pod(requests, priority=int(priority))
    metadata: Object = {"namespace": row.text("namespace", "default")}
    if labels := _labels(row, "labels"):
        metadata["labels"] = labels
    pod["metadata"] = metadata
    if selector := _labels(row, "selector"):
        pod["spec"]["nodeSelector"] = selector
    return pod


def _labels(row: Row, column: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    for part in filter(None, row.text(column, "").split(";")):
        key, has_value, value = part.partition("=")
        if not key or not has_value:
            raise BadInput(row.place, f"{column} is {row.text(column)!r}: must be key=value;key=value")
        labels[key.strip()] = value.strip()
    return labels
