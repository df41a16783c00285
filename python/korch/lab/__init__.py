"""Scheduling benchmarks and what-if simulation.

from korch.lab import Machine, Options, load, read_nodes, read_policies, read_trace, simulate

run = simulate(load("snapshot.json"), read_trace("day.csv"), read_policies(["packed.yaml"])[0], Options(seed=7))
run.summary()  # figures
run.tasks()  # a pyarrow.Table, with the extra korch-cluster[lab]
"""

from korch.lab.cluster import Cluster, load
from korch.lab.drain import drain
from korch.lab.fit import fewest_nodes, place_all
from korch.lab.machines import read_nodes, read_shape
from korch.lab.manifests import read_workload
from korch.lab.policies import read_policies
from korch.lab.simulation import Options, simulate
from korch.lab.source import BadInput
from korch.lab.traces import Machine, read_trace
from korch.lab.workload import Workload

__all__ = [
    "BadInput",
    "Cluster",
    "Machine",
    "Options",
    "Workload",
    "drain",
    "fewest_nodes",
    "load",
    "place_all",
    "read_nodes",
    "read_policies",
    "read_shape",
    "read_trace",
    "read_workload",
    "simulate",
]
