"""Gangs through the whole chain: gates on the command line, kinds that kubectl is told of, the scheduler in the server, simulated nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Cluster, condition, run_cluster

GROUP = """
apiVersion: scheduling.k8s.io/v1beta1
kind: PodGroup
metadata: {name: trainers}
spec: {schedulingPolicy: {gang: {minCount: 3}}}
"""


def trainer(number: int) -> str:
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: trainer-{number}, labels: {{app: trainer}}}}
spec:
  schedulingGroup: {{podGroupName: trainers}}
  containers: [{{name: c, image: registry.test/trainer:1}}]
"""


@pytest.fixture(scope="module")
def with_gangs(images: Path) -> Iterator[Cluster]:
    options = ("--feature-gates", "GenericWorkload=true", "--runtime-config", "scheduling.k8s.io/v1beta1=true")
    yield from run_cluster(images, "--nodes", "0", "--sim-nodes", "3", *options)


def pods(cluster: Cluster) -> list[dict[str, Any]]:
    return cluster.get("pods", "-l", "app=trainer")["items"]


def test_a_gang_runs_once_all_of_it_is_there(with_gangs: Cluster) -> None:
    assert "podgroups" in with_gangs.kubectl("api-resources", "--api-group=scheduling.k8s.io")
    with_gangs.apply(GROUP)
    for number in (1, 2):
        with_gangs.apply(trainer(number))
    # A pod of no group, created later, is placed while the gang waits.
    with_gangs.kubectl("run", "alone", "--image=registry.test/alone:1")
    with_gangs.kubectl("wait", "--for=condition=Ready", "pod/alone", "--timeout=60s")
    assert [pod["spec"].get("nodeName") for pod in pods(with_gangs)] == [None, None]
    with_gangs.apply(trainer(3))
    with_gangs.wait_for_pods("app=trainer", 3)
    group = with_gangs.eventually(lambda: scheduled(with_gangs), "a group that says it was scheduled")
    assert condition(group, "PodGroupInitiallyScheduled") == "True"


def scheduled(cluster: Cluster) -> dict[str, Any] | None:
    group = cluster.get("podgroup", "trainers")
    return group if condition(group, "PodGroupInitiallyScheduled") == "True" else None


def test_without_the_gate_there_are_no_groups(simulated: Cluster) -> None:
    assert "podgroups" not in simulated.kubectl("api-resources", "--api-group=scheduling.k8s.io")
    simulated.apply(trainer(1))
    # A field of a feature that is off is dropped.
    assert "schedulingGroup" not in simulated.get("pod", "trainer-1")["spec"]
    simulated.kubectl("wait", "--for=condition=Ready", "pod/trainer-1", "--timeout=60s")
