"""What a share of a machine is in cores and bytes, for traces that give no absolute sizes."""

from __future__ import annotations

from dataclasses import dataclass

from korch.api import quantity
from korch.lab.machines import read_shape

MEBI = 1 << 20


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine whose shares a trace counts in; the default is a guess, because the publishers tell no sizes."""

    milli_cpu: int = 64_000
    memory_bytes: int = 256 << 30

    @classmethod
    def of(cls, shape: str) -> Machine:
        """Return the machine of a node shape such as `64cpu,256Gi`. Raises BadInput."""
        resources = read_shape(shape).resources
        return cls(quantity.milli(resources["cpu"]), quantity.value(resources["memory"]))

    def requests(self, cpu_share: float, memory_share: float) -> dict[str, str]:
        """Return what these shares (1.0 is the whole machine) are: whole millis of CPU, whole Mi of memory, at least one of each."""
        return requests(cpu_share * self.milli_cpu, memory_share * self.memory_bytes)


def requests(milli_cpu: float, memory_bytes: float) -> dict[str, str]:
    """Return requests for so much, rounded to whole millis and Mi so that equal tasks stay equal; at least one of each."""
    return {"cpu": f"{max(1, round(milli_cpu))}m", "memory": f"{max(1, round(memory_bytes / MEBI))}Mi"}
