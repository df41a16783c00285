"""`korch down` leaves nothing behind, and `korch status` never says ready when it is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Cluster, run_cluster

PODS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: left}
spec:
  replicas: 2
  selector: {matchLabels: {app: left}}
  template:
    metadata: {labels: {app: left}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: main
          image: docker.io/library/busybox:latest
          imagePullPolicy: IfNotPresent
          command: [sleep, "100000"]
          volumeMounts: [{name: memory, mountPath: /memory}]
      volumes: [{name: memory, emptyDir: {medium: Memory}}]
---
apiVersion: v1
kind: Service
metadata: {name: left}
spec: {selector: {app: left}, ports: [{port: 80}]}
"""


def command(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def machine() -> dict[str, set[str]]:
    """What korch could leave on a machine: mounts, links, namespaces, rules, routes, sysctls, cgroups, processes."""
    cgroups = [str(path) for path in Path("/sys/fs/cgroup").rglob("korch*")]
    processes = [line for line in command("ps", "-eo", "args").splitlines() if "containerd" in line or "korch" in line]
    return {
        "mounts": {line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()},
        "links": {link["ifname"] for link in json.loads(command("ip", "-json", "link") or "[]")},
        "namespaces": set(command("ip", "netns", "list").split()),
        "rules": set(command("nft", "list", "tables").splitlines()),
        "routes": set(command("ip", "route").splitlines()),
        "forwarding": {Path("/proc/sys/net/ipv4/ip_forward").read_text()},
        "cgroups": set(cgroups),
        "processes": {line for line in processes if "pytest" not in line},
        "run": {str(path) for path in Path("/run").glob("*")} | {str(path) for path in Path("/var/lib").glob("*")},
        "cni": {str(path) for path in Path("/etc/cni").rglob("*")} if Path("/etc/cni").exists() else set(),
    }


def zombies() -> set[str]:
    """Return the processes that have ended and that nobody has taken note of, by id."""
    rows = (line.split() for line in command("ps", "-eo", "pid,stat").splitlines()[1:])
    return {pid for pid, state in rows if state.startswith("Z")}


@pytest.mark.parametrize("nodes", ["1", "2"])
@pytest.mark.parametrize("is_supervisor_killed", [False, True])
def test_down_leaves_nothing_behind(images: Path, nodes: str, is_supervisor_killed: bool) -> None:
    before, others = machine(), zombies()
    for cluster in run_cluster(images, "--nodes", nodes):
        cluster.apply(PODS)
        cluster.wait_for_pods("app=left", 2)
        if is_supervisor_killed:
            os.kill(cluster.status()["supervisor"]["pid"], signal.SIGKILL)
        cluster.down()
        # Orphans that have ended are the machine's init's to reap, which may take it a moment.
        cluster.eventually(lambda: zombies() <= others, "reaped orphans", 30)
        assert {name: found - before[name] for name, found in machine().items()} == {name: set() for name in before}
        assert cluster.status()["state"] == "stopped"


def test_status_is_not_ready_while_the_server_is_dead_and_ready_again_after_its_restart(simulated: Cluster) -> None:
    before = simulated.status()
    assert before["ready"] and before["state"] == "ready"
    os.kill(before["server"]["pid"], signal.SIGSTOP)
    simulated.eventually(lambda: not simulated.status()["ready"], "not ready with a server that does not answer")
    os.kill(before["server"]["pid"], signal.SIGKILL)
    after = simulated.eventually(lambda: (state := simulated.status())["ready"] and state, "ready again")
    assert after["server"]["pid"] != before["server"]["pid"]
    assert next(one for one in after["components"] if one["name"] == "server")["restarts"] == 1


def test_a_second_cluster_in_the_same_directory_is_refused(simulated: Cluster) -> None:
    refused = simulated.korch("up", "--detach", "--sim-nodes", "1", "--bind", "127.0.0.1:1", check=False)
    assert refused.returncode != 0
    assert "a cluster already runs in" in refused.stderr
    assert simulated.status()["ready"]


def test_objects_survive_down_and_up(simulated: Cluster) -> None:
    simulated.kubectl("create", "configmap", "kept", "--from-literal=a=b")
    simulated.down()
    simulated.up("--nodes", "0", "--sim-nodes", "3")
    assert simulated.get("configmap", "kept")["data"] == {"a": "b"}
