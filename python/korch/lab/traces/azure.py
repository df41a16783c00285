"""Azure's virtual machine traces.

`vmtable.csv` of AzurePublicDatasetV2, without a header: vmid, subscriptionid, deploymentid, vmcreated, vmdeleted (seconds), maxcpu,
avgcpu, p95maxcpu, vmcategory, vmcorecountbucket, vmmemorybucket (GB). The last bucket has no upper end (`>24` cores, `>64` GB); it is
read as the notebook of its publishers reads it, 30 and 70.
Source: https://github.com/Azure/AzurePublicDataset/blob/master/AzurePublicDatasetV2.md and the notebook in its directory `analysis`.

The packing trace of 2020, an SQLite file with the tables vm (vmId, tenantId, vmTypeId, priority, starttime, endtime in days) and vmType
(id, vmTypeId, machineId, core, memory, hdd, ssd, nic as shares of a machine), or the two tables as `vm.csv` and `vmType.csv` in one
directory. A type is taken with its size on the first machine that it is listed for. Priority 0 is the high one there; here it becomes
1000. A VM that was there before the begin (a negative starttime) comes at second 0 and runs until its endtime, one without an
endtime forever.
Source: https://github.com/Azure/AzurePublicDataset/blob/master/AzureTracesForPacking2020.md
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from korch.lab.source import BadInput, Place, Row, first_row, kept, table
from korch.lab.traces.scale import Machine, requests
from korch.lab.workload import FOREVER, Workload

VM_TABLE = (
    "vmid", "subscriptionid", "deploymentid", "vmcreated", "vmdeleted", "maxcpu", "avgcpu", "p95maxcpu", "vmcategory",
    "vmcorecountbucket", "vmmemorybucket",
)  # fmt: skip
VM = ("vmId", "tenantId", "vmTypeId", "priority", "starttime", "endtime")
VM_TYPE = ("vmTypeId", "machineId", "core", "memory")
OPEN_BUCKETS = {"vmcorecountbucket": (">24", 30.0), "vmmemorybucket": (">64", 70.0)}
DAY_S = 86_400.0
HIGH_PRIORITY = 1000
SQLITE = b"SQLite format 3\x00"


def read(path: Path, machine: Machine, skips_gaps: bool) -> Workload:
    """Return the VMs of any of these files as tasks. Raises BadInput."""
    workload = Workload()
    if _is_sqlite(path):
        types, rows = _sqlite(path, "vmType", VM_TYPE), _sqlite(path, "vm", VM)
    elif set(VM) <= set(first_row(path)):
        types, rows = table(path.with_name("vmType.csv"), needed=VM_TYPE), table(path, needed=VM)
    else:
        rows = table(path, needed=VM_TABLE, order=VM_TABLE)
        workload.skipped = kept(rows, lambda row: _take_vm(workload, row), skips_gaps=skips_gaps)
        return workload
    sizes: dict[str, dict[str, str]] = {}
    for row in types:
        sizes.setdefault(row.text("vmTypeId"), machine.requests(row.number("core"), row.number("memory")))
    workload.skipped = kept(rows, lambda row: _take_packed(workload, sizes, row), skips_gaps=skips_gaps)
    return workload


def _is_sqlite(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(SQLITE)) == SQLITE
    except OSError as error:
        raise BadInput(Place(str(path)), error.strerror or str(error)) from error


def _sqlite(path: Path, name: str, needed: tuple[str, ...]) -> Iterator[Row]:
    """Yield the rows of a table; the line of a row is its rowid."""
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            cursor = connection.execute(f"SELECT rowid, * FROM {name} ORDER BY rowid")
            columns = {column[0]: index for index, column in enumerate(cursor.description[1:])}
            missing = [one for one in needed if one not in columns]
            if missing:
                raise BadInput(Place(f"{path}, table {name}"), f"no column {', '.join(missing)}; there are {', '.join(columns)}")
            for rowid, *cells in cursor:
                yield Row(Place(f"{path}, table {name}", rowid), ["" if one is None else str(one) for one in cells], columns)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise BadInput(Place(f"{path}, table {name}"), str(error)) from error


def _bucket(row: Row, column: str) -> float:
    text, value = OPEN_BUCKETS[column]
    return value if row.text(column) == text else row.number(column)


def _take_vm(workload: Workload, row: Row) -> None:
    template = workload.sized(requests(_bucket(row, "vmcorecountbucket") * 1000, _bucket(row, "vmmemorybucket") * 1e9))
    created, deleted = row.number("vmcreated"), row.number("vmdeleted")
    if deleted < created:
        raise BadInput(row.place, f"vmdeleted {deleted:g} is before vmcreated {created:g}: a negative duration")
    workload.add(row.text("vmid"), template, created, deleted - created)


def _take_packed(workload: Workload, sizes: dict[str, dict[str, str]], row: Row) -> None:
    kind = row.text("vmTypeId")
    if kind not in sizes:
        raise BadInput(row.place, f"vmTypeId {kind} has no size in vmType")
    began, ended = row.signed("starttime"), row.signed("endtime", FOREVER)
    if ended < began:
        raise BadInput(row.place, f"endtime {ended:g} is before starttime {began:g}: a negative duration")
    arrival = max(0.0, began) * DAY_S
    template = workload.sized(sizes[kind], priority=HIGH_PRIORITY if row.whole("priority") == 0 else 0)
    if ended > 0:
        workload.add(f"vm-{row.text('vmId')}", template, arrival, ended * DAY_S - arrival)
