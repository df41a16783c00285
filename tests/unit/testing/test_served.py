"""Real servers in a test run: many side by side, and nothing left of them, also when the run is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from korch.testing.served import ServedCluster

CLUSTERS = 8
# A run of its own: it says which servers it has, and stays until it is ended.
RUN = f"""
import json, pathlib, sys, time

def test_side_by_side(serve_cluster):
    clusters = [serve_cluster(sim_nodes=2) for _ in range({CLUSTERS})]
    for one in clusters:
        one.wait_ready(240)
    told = [{{"pid": one.process.pid, "data": str(one.data_dir), "url": one.url}} for one in clusters]
    draft = pathlib.Path("told.draft")
    draft.write_text(json.dumps(told))
    draft.rename("told.json")
    time.sleep(600)
"""


def eventually(probe: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 250
    while not probe():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def processes_with(text: str) -> list[str]:
    """Return the command lines of this machine that hold `text`."""
    found: list[str] = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if text in line:
            found.append(line)
    return found


def network_namespaces() -> list[str]:
    return sorted(one.name for one in Path("/run/netns").glob("*"))


@pytest.mark.timeout(600)
def test_eight_clusters_side_by_side_leave_nothing_when_their_run_is_killed(tmp_path: Path) -> None:
    (tmp_path / "test_run.py").write_text(RUN)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    before = network_namespaces()
    command = [sys.executable, "-m", "pytest", "-p", "korch.testing.plugin", "-p", "no:cacheprovider", "-p", "no:schemathesis"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with (tmp_path / "run.log").open("wb") as log:
        run = subprocess.Popen([*command, f"--basetemp={tmp_path}/base"], cwd=tmp_path, env=environment, stdout=log, stderr=log)
    try:
        told = tmp_path / "told.json"
        eventually(lambda: told.exists() or run.poll() is not None, "all ready")
        assert told.exists(), (tmp_path / "run.log").read_text()
        clusters = json.loads(told.read_text())
        servers = [line for line in processes_with(f"{tmp_path}/base") if "korch.testing.tether" in line]
        assert len({one["url"] for one in clusters}) == len(servers) == CLUSTERS
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait()
    eventually(lambda: processes_with(str(tmp_path)) == [], "no process of theirs")
    assert network_namespaces() == before
    # The store of a killed server belongs to nobody: the next one opens it and finds what was there.
    again = ServedCluster(Path(clusters[0]["data"]), sim_nodes=2)
    try:
        again.wait_ready()
    finally:
        again.stop()
    assert again.process.returncode == 0


def test_a_server_that_cannot_start_says_why(serve_cluster: Callable[..., ServedCluster]) -> None:
    cluster = serve_cluster(options=("--no-such-option",))
    with pytest.raises(RuntimeError, match=r"No such option.*--no-such-option"):
        cluster.wait_ready()
