"""The pytest plugin: every seed is a test, and a failing one says how to run it again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

STORY = """
from korch.api.gvk import NODES

async def test_nodes_come(cluster):
    cluster.nodes(2)
    await cluster.run_for("5s")
    assert len(await cluster.list(NODES)) == 2

async def test_the_second_seed_is_unlucky(cluster):
    cluster.nodes(1)
    await cluster.run_for("90s")
    assert cluster.seed != 2
"""


def run(directory: Path, *arguments: str) -> str:
    (directory / "test_story.py").write_text(STORY)
    (directory / "pytest.ini").write_text("[pytest]\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "pytest", "-p", "korch.testing.plugin", "-p", "no:cacheprovider", "-v", *arguments]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False).stdout


def test_every_seed_is_a_test_of_its_own_and_a_failing_one_tells_its_story(tmp_path: Path) -> None:
    (tmp_path / "seeds.txt").write_text("# name seed story\ntest_nodes_come 77 a node came twice\n")
    out = run(tmp_path, "--sim-seeds", "2", "-k", "nodes_come or unlucky")
    assert "test_nodes_come[seed=77] PASSED" in out
    assert "test_nodes_come[seed=2] PASSED" in out
    assert "test_the_second_seed_is_unlucky[seed=1] PASSED" in out
    assert "test_the_second_seed_is_unlucky[seed=2] FAILED" in out
    assert "seed 2, 9" in out
    assert "n1             update   leases kube-node-lease/n1" in out
    assert "run it again: pytest test_story.py -k test_the_second_seed_is_unlucky --sim-seed 2" in out


def test_one_seed_can_be_chosen(tmp_path: Path) -> None:
    out = run(tmp_path, "--sim-seed", "5", "-k", "unlucky")
    assert "test_the_second_seed_is_unlucky[seed=5] PASSED" in out
    assert "1 passed" in out
