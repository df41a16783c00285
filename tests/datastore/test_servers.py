"""Two `korch server` processes on one cluster of etcd: both serve, one leads, and when it is killed the other does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.datastore.members import PATIENCE_S, EtcdCluster, free_ports

BIN = Path(sys.executable).parent
T = TypeVar("T")
pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("servers")]
ELECTION = ["--leader-elect-lease-duration=4", "--leader-elect-renew-deadline=3", "--leader-elect-retry-period=1"]


def until(look: Callable[[], T | None], what: str) -> T:
    deadline = time.monotonic() + 2 * PATIENCE_S
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


class Server:
    """One `korch server` with a data directory of its own."""

    def __init__(self, root: Path, name: str, datastore: list[str]) -> None:
        self.root = root / name
        self.root.mkdir()
        self.bind = f"127.0.0.1:{free_ports(1)[0]}"
        self.log = root / f"{name}.log"
        self._datastore = datastore
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> Server:
        arguments = ["server", "--data-dir", str(self.root), "--bind", self.bind, *self._datastore, *ELECTION, *options]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen([BIN / "korch", *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        until(self.is_ready, f"{self.root.name} is not ready")
        return self

    def is_ready(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self.log.read_text()[-3000:]
        return (self.root / "kubeconfig").exists() and self.try_kubectl("get", "--raw", "/readyz").stdout == "ok"

    @property
    def token(self) -> str:
        return (self.root / "token").read_text().strip()

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def try_kubectl(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "KUBECONFIG": str(self.root / "kubeconfig"), "HOME": str(self.root)}
        return subprocess.run(
            [BIN / "kubectl", *arguments], env=environment, input=text, capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )

    def kubectl(self, *arguments: str, text: str = "") -> str:
        done = self.try_kubectl(*arguments, text=text)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}\n{self.log.read_text()[-3000:]}"
        return done.stdout

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    (tmp_path / "etcd").mkdir()
    with EtcdCluster(tmp_path / "etcd", tls=True) as etcd:
        files = [f"--etcd-cafile={etcd.ca_file}", f"--etcd-certfile={etcd.cert_file}", f"--etcd-keyfile={etcd.key_file}"]
        datastore = ["--datastore", etcd.datastore, *files]
        first, second = (Server(tmp_path, name, datastore) for name in ("first", "second"))
        try:
            first.start("--sim-nodes=2")
            refused = subprocess.run(
                [BIN / "korch", "server", "--data-dir", str(tmp_path / "x"), "--bind", second.bind, *datastore],
                capture_output=True,
                text=True,
                check=False,
            )
            assert refused.returncode == 1 and "--token" in refused.stderr
            second.start("--token", first.token, "--sim-nodes=2")
            yield first, second
        finally:
            first.stop()
            second.stop()


def holder(server: Server, name: str) -> str:
    return server.get("lease", "-n", "kube-system", name)["spec"].get("holderIdentity") or ""


def test_two_servers_are_one_cluster_and_survive_the_death_of_the_leader(servers: tuple[Server, Server]) -> None:
    first, second = servers
    assert first.token == second.token
    assert (first.root / "pki" / "ca.crt").read_bytes() == (second.root / "pki" / "ca.crt").read_bytes()

    # What one answers the other knows at once, and reads, conflicts and deletions are decided by the newest state.
    for round_number in range(10):
        writer, reader = servers if round_number % 2 else reversed(servers)
        name = f"map-{round_number}"
        writer.kubectl("create", "configmap", name, f"--from-literal=round={round_number}")
        assert reader.get("configmap", name)["data"] == {"round": str(round_number)}
        reader.kubectl("label", "configmap", name, "seen=yes")
        assert writer.get("configmaps", "-l", "seen=yes")["items"][-1]["metadata"]["name"] == name
        writer.kubectl("delete", "configmap", name)
        assert "NotFound" in reader.try_kubectl("get", "configmap", name).stderr

    # A token made by one is believed by the other.
    token = first.kubectl("create", "token", "default").strip()
    asked = second.try_kubectl(
        "auth", "whoami", "--token", token, "--kubeconfig=/dev/null", f"--server=https://{second.bind}", "--insecure-skip-tls-verify"
    )
    assert "system:serviceaccount:default:default" in asked.stdout, asked.stderr

    # Of Services made at both at once none shares an address or a node port.
    def service(number: int) -> str:
        spec = {"type": "NodePort", "ports": [{"port": 80}], "selector": {"app": "x"}}
        return json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"s{number}"}, "spec": spec})

    bundles = [json.dumps({"apiVersion": "v1", "kind": "List", "items": [json.loads(service(n)) for n in range(k, 40, 2)]}) for k in (0, 1)]
    environments = [{**os.environ, "KUBECONFIG": str(one.root / "kubeconfig")} for one in servers]
    makers = [
        subprocess.Popen([BIN / "kubectl", "create", "-f", "-"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        for environment in environments
    ]
    for maker, bundle in zip(makers, bundles, strict=True):
        assert maker.stdin is not None
        maker.stdin.write(bundle.encode())
        maker.stdin.close()
    assert [maker.wait() for maker in makers] == [0, 0]
    specs = [one["spec"] for one in second.get("services")["items"]]
    assert len({spec["clusterIP"] for spec in specs}) == len(specs) == 41
    ports = [port["nodePort"] for spec in specs for port in spec["ports"] if port.get("nodePort")]
    assert len(set(ports)) == len(ports) == 40

    # One leads; a deployment runs; the leader dies without a word; the other leads and goes on.
    leader = until(lambda: holder(second, "kube-controller-manager"), "nobody leads")
    scheduling = until(lambda: holder(second, "kube-scheduler"), "nobody schedules")
    first.kubectl("create", "deployment", "web", "--image=web", "--replicas=2")
    until(lambda: second.get("deployment", "web")["status"].get("readyReplicas") == 2, "the deployment is not ready")
    assert f"_{first.pid}_" in leader or f"_{second.pid}_" in leader
    dying, other = (first, second) if f"_{first.pid}_" in leader else (second, first)
    dying.kill()
    until(lambda: f"_{other.pid}_" in holder(other, "kube-controller-manager"), "nobody took over the controllers")
    until(lambda: f"_{other.pid}_" in holder(other, "kube-scheduler"), f"nobody took over from {scheduling}")
    other.kubectl("scale", "deployment", "web", "--replicas=5")
    until(lambda: other.get("deployment", "web")["status"].get("readyReplicas") == 5, "the deployment did not grow")
    dying.start("--sim-nodes=2")
    assert dying.get("deployment", "web")["status"]["readyReplicas"] == 5
