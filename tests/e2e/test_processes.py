"""The components as processes of their own: a server alone, then a scheduler, controllers and a node that join it by URL and token."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import BIN, Cluster, condition


class Processes(Cluster):
    """A cluster whose components this test starts one by one."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.running: list[subprocess.Popen[bytes]] = []
        (self.data_dir / "logs").mkdir(parents=True)

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.data_dir / "logs" / f"{name}.log").open("ab") as output:
            process = subprocess.Popen([BIN / arguments[0], *arguments[1:]], stdout=output, stderr=output, start_new_session=True)
        self.running.append(process)
        return process

    def token(self) -> str:
        file = self.data_dir / "token"
        self.eventually(file.exists, "a join token")
        return file.read_text().strip()

    def end(self) -> None:
        for process in reversed(self.running):
            process.terminate()
        for process in self.running:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    root = Path(tempfile.mkdtemp(prefix="korch-e2e-"))
    cluster = Processes(root)
    try:
        cluster.start(
            "server", "korch", "server", "--data-dir", str(cluster.data_dir), "--bind", cluster.bind, "--sim-nodes", "2",
            "--without-controllers", "--without-scheduler",
        )  # fmt: skip
        cluster.token()
        cluster.eventually(lambda: cluster.try_kubectl("get", "--raw", "/readyz").returncode == 0, "a ready server")
        yield cluster
    finally:
        cluster.end()


def test_controllers_and_scheduler_join_by_url_and_token_and_do_their_work(processes: Processes) -> None:
    url, token = f"https://{processes.bind}", processes.token()
    processes.kubectl("create", "deployment", "apart", "--image=web", "--replicas=2")
    time.sleep(1)
    assert processes.get("pods")["items"] == []
    processes.start(
        "controllers", "korch", "controller-manager", "--server", url, "--token", token, "--data-dir", str(processes.root / "cm")
    )
    pods = processes.eventually(lambda: len(found := processes.get("pods")["items"]) == 2 and found, "pods made by controllers")
    assert all("nodeName" not in pod["spec"] for pod in pods)
    processes.start("scheduler", "korch", "scheduler", "--server", url, "--token", token, "--data-dir", str(processes.root / "sched"))
    processes.wait_for_pods("app=apart", 2)
    holders = {
        lease["metadata"]["name"]: lease["spec"]["holderIdentity"] for lease in processes.get("leases", "-n", "kube-system")["items"]
    }
    assert holders.keys() >= {"kube-controller-manager", "kube-scheduler"}


def test_a_second_scheduler_waits_and_takes_over_when_the_first_dies(processes: Processes) -> None:
    def holder() -> str:
        return processes.get("lease", "kube-scheduler", "-n", "kube-system")["spec"]["holderIdentity"]

    first = holder()
    url, token = f"https://{processes.bind}", processes.token()
    processes.start("second", "korch", "scheduler", "--server", url, "--token", token, "--data-dir", str(processes.root / "second"))
    os.kill(processes.running[2].pid, signal.SIGKILL)
    processes.eventually(lambda: holder() not in ("", first), "another leader")
    processes.kubectl("scale", "deployment/apart", "--replicas=3")
    processes.wait_for_pods("app=apart", 3)


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("korch1." + "0" * 64 + ".guess", "shows another CA certificate than the token names"),
        ("nonsense", "not a join token"),
    ],
)
def test_a_wrong_token_joins_nothing(processes: Processes, token: str, words: str) -> None:
    joined = subprocess.run(
        [
            BIN / "korch",
            "scheduler",
            "--server",
            f"https://{processes.bind}",
            "--token",
            token,
            "--data-dir",
            str(processes.root / "wrong"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert joined.returncode != 0
    assert words in joined.stderr


def test_a_guessed_secret_is_refused(processes: Processes) -> None:
    pin = processes.token().split(".")[1]
    joined = subprocess.run(
        [
            BIN / "korch", "scheduler", "--server", f"https://{processes.bind}", "--token", f"korch1.{pin}.guess",
            "--data-dir", str(processes.root / "guess"),
        ],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert joined.returncode != 0
    assert "Unauthorized" in joined.stderr


def test_simulated_nodes_are_ready_without_anybody_else(processes: Processes) -> None:
    nodes = processes.get("nodes")["items"]
    assert [node["metadata"]["name"] for node in nodes] == ["sim-1", "sim-2"]
    assert json.dumps([condition(node, "Ready") for node in nodes]) == '["True", "True"]'
