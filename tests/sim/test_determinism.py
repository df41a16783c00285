"""The same seed gives the same simulation, call for call: in another process, with other hash seeds and other memory."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

STORY = """
import logging, sys
logging.getLogger("korch").setLevel(logging.CRITICAL)
clutter = [object() for _ in range(int(sys.argv[2]))]
from korch.testing.cluster import SimCluster, SimConfig
from korch.testing.objects import deployment, service

async def story(cluster):
    cluster.nodes(3)
    await cluster.apply(deployment("web", replicas=10, toleration_s=5), service("web"))
    await cluster.run_for("40s")
    cluster.lose("n1")
    cluster.restart("controllers")
    await cluster.run_for("2m")
    cluster.heal_all()
    await cluster.run_for("1m")

cluster = SimCluster(int(sys.argv[1]), SimConfig(faults=None, clock_skew_s=0.3))
cluster.run(story)
print(cluster.network.trace.digest(), cluster.network.trace.calls, cluster.auditor.revision, cluster.loop.steps)
"""


def simulate(seed: int, hash_seed: str, clutter: int) -> str:
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", STORY, str(seed), str(clutter)], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("seed", [7, 8])
def test_two_processes_with_different_hash_seeds_make_the_same_calls(seed: int) -> None:
    first = simulate(seed, "0", 0)
    assert first.split()[0]
    assert simulate(seed, "1", 100_000) == first


def test_another_seed_makes_other_calls() -> None:
    assert simulate(7, "0", 0) != simulate(8, "0", 0)
