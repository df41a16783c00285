"""Alibaba's cluster traces. Which of three files it is shows in its first row.

`batch_task.csv` of cluster-trace-v2018, nine columns without a header: task_name, instance_num, job_name, task_type, status,
start_time, end_time (seconds), plan_cpu (100 is one core), plan_mem (0 to 100, a share of the largest machine).
Source: https://github.com/alibaba/clusterdata/blob/master/cluster-trace-v2018/schema.txt

`pai_task_table.csv` of cluster-trace-gpu-v2020, ten columns without a header: job_name, task_name, inst_num, status, start_time,
end_time (seconds), plan_cpu (100 is one core), plan_mem (GB), plan_gpu (100 is one GPU), gpu_type.
Source: https://github.com/alibaba/clusterdata/blob/master/cluster-trace-gpu-v2020/README.md

`openb_pod_list_*.csv` of cluster-trace-gpu-v2023, with a header: name, cpu_milli, memory_mib, num_gpu, gpu_milli, gpu_spec, qos,
pod_phase, creation_time, deletion_time (seconds), scheduled_time. gpu_spec lists the models that will do, `A|B`.
Source: https://github.com/alibaba/clusterdata/blob/master/cluster-trace-gpu-v2023/README.md

A row of the first two stands for as many pods as it has instances, which run from start to end. Parts of GPUs are thousandths of the
resource korch.dev/gpu-milli, added up over a node: which device a part comes from is not modelled.
"""

from __future__ import annotations

from pathlib import Path

from korch.lab.machines import GPU_MILLI
from korch.lab.source import BadInput, Row, first_row, kept, table
from korch.lab.traces.scale import MEBI, Machine, requests
from korch.lab.workload import FOREVER, Workload

BATCH_TASK = ("task_name", "instance_num", "job_name", "task_type", "status", "start_time", "end_time", "plan_cpu", "plan_mem")
PAI_TASK = (
    "job_name", "task_name", "inst_num", "status", "start_time", "end_time", "plan_cpu", "plan_mem", "plan_gpu", "gpu_type",
)  # fmt: skip
OPENB_POD = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec", "creation_time", "deletion_time")
# Pods of the 2023 trace by quality of service: latency sensitive ones come first.
QOS_PRIORITY = {"LS": 200, "Guaranteed": 200, "Burstable": 100, "BE": 0}


def read(path: Path, machine: Machine, skips_gaps: bool) -> Workload:
    """Return the tasks of any of the three files. Raises BadInput."""
    first = first_row(path)
    workload = Workload()
    if "cpu_milli" in first:
        rows, reader = table(path, needed=OPENB_POD), _Openb(workload).take
    elif len(first) == len(BATCH_TASK):
        rows, reader = table(path, needed=BATCH_TASK, order=BATCH_TASK), _Batch(workload, machine).take
    elif len(first) == len(PAI_TASK):
        rows, reader = table(path, needed=PAI_TASK, order=PAI_TASK), _Pai(workload).take
    else:
        # Neither: say what is missing by the reader of the file that has a header.
        rows, reader = table(path, needed=OPENB_POD), _Openb(workload).take
    workload.skipped = kept(rows, reader, skips_gaps=skips_gaps)
    return workload


def _duration(row: Row, start: str, end: str, status: str) -> float:
    """Return how long a row's pods ran: forever for those that the trace shows running at its end."""
    began = row.number(start)
    if status == "Running" and row.number(end, 0) <= began:
        return FOREVER
    ended = row.number(end)
    if ended < began:
        raise BadInput(row.place, f"{end} {ended:g} is before {start} {began:g}: a negative duration")
    return ended - began


class _Batch:
    def __init__(self, workload: Workload, machine: Machine) -> None:
        self._workload = workload
        self._machine = machine

    def take(self, row: Row) -> None:
        duration = _duration(row, "start_time", "end_time", row.text("status"))
        cpu = row.number("plan_cpu") / 100 * 1000
        memory = row.number("plan_mem") / 100 * self._machine.memory_bytes
        template = self._workload.sized(requests(cpu, memory))
        _add_instances(self._workload, row, "instance_num", template, duration)


class _Pai:
    def __init__(self, workload: Workload) -> None:
        self._workload = workload

    def take(self, row: Row) -> None:
        duration = _duration(row, "start_time", "end_time", row.text("status"))
        wanted = requests(row.number("plan_cpu") / 100 * 1000, row.number("plan_mem") * 1e9)
        if gpu := row.number("plan_gpu", 0):
            wanted[GPU_MILLI] = str(max(1, round(gpu * 10)))
        _add_instances(self._workload, row, "inst_num", self._workload.sized(wanted), duration)


class _Openb:
    def __init__(self, workload: Workload) -> None:
        self._workload = workload

    def take(self, row: Row) -> None:
        wanted = requests(row.whole("cpu_milli"), row.whole("memory_mib") * MEBI)
        gpus = row.whole("num_gpu")
        if gpus:
            wanted[GPU_MILLI] = str(gpus * row.whole("gpu_milli") if gpus == 1 else gpus * 1000)
        spec = row.text("gpu_spec", "")
        models = spec.split("|") if spec not in ("", "nan") else []
        priority = QOS_PRIORITY.get(row.text("qos", ""), 0)
        template = self._workload.sized(wanted, priority=priority, gpu_models=models)
        duration = _duration(row, "creation_time", "deletion_time", "")
        self._workload.add(row.text("name"), template, row.number("creation_time"), duration)


def _add_instances(workload: Workload, row: Row, column: str, template: int, duration: float) -> None:
    name, arrival = f"{row.text('job_name')}.{row.text('task_name')}", row.number("start_time")
    for number in range(row.whole(column)):
        # The line makes names differ where a trace names a task twice.
        workload.add(f"{name}.{row.place.line}-{number}", template, arrival, duration)
