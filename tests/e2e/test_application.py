"""A user's application on one real node: applied, reached, rolled out, scaled, healed, looked into."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import BIN, Cluster

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: docker.io/library/busybox:latest
          imagePullPolicy: IfNotPresent
          command: [sh, -c, "mkdir -p /www && hostname > /www/index.html && echo serving && exec httpd -f -p 8080 -h /www"]
          readinessProbe: {httpGet: {path: /index.html, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: shell
      image: docker.io/library/busybox:latest
      imagePullPolicy: IfNotPresent
      command: [sleep, "100000"]
"""


@pytest.fixture(scope="module")
def web(one_node: Cluster) -> Iterator[Cluster]:
    """The application, applied from a file of the user's and ready."""
    one_node.apply(WEB)
    one_node.wait_for_pods("app=web", 3)
    one_node.wait_for_pods("app=client", 1)
    yield one_node


def service(cluster: Cluster) -> tuple[str, int]:
    spec = cluster.get("service", "web")["spec"]
    return spec["clusterIP"], spec["ports"][0]["nodePort"]


def fetch(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:
            return answer.read().decode().strip()
    except OSError:
        return ""


def names(cluster: Cluster) -> set[str]:
    return {pod["metadata"]["name"] for pod in cluster.ready_pods("app=web")}


def all_names(cluster: Cluster) -> set[str]:
    """Return all pods of the application: one that answered a moment ago may have missed a probe on a busy machine since."""
    return {pod["metadata"]["name"] for pod in cluster.get("pods", "-l", "app=web")["items"]}


def test_the_service_is_reached_from_the_machine_through_every_endpoint(web: Cluster) -> None:
    address, _ = service(web)
    seen: set[str] = set()

    def all_seen() -> bool:
        seen.add(fetch(f"http://{address}/"))
        return names(web) <= seen

    web.eventually(all_seen, "an answer from each pod")


def test_the_service_is_reached_from_a_pod_by_address_and_by_name(web: Cluster) -> None:
    address, _ = service(web)
    for host in (address, "web", "web.default.svc.cluster.local"):
        request = f"printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc {host} 80"
        answer = web.eventually(lambda r=request: web.kubectl("exec", "client", "--", "sh", "-c", r, check=False), f"an answer from {host}")
        assert answer.strip().splitlines()[-1] in all_names(web)


def test_the_node_port_answers_on_the_nodes_address(web: Cluster) -> None:
    _, port = service(web)
    address = next(one["address"] for one in web.get("nodes")["items"][0]["status"]["addresses"] if one["type"] == "InternalIP")
    assert web.eventually(lambda: fetch(f"http://{address}:{port}/"), "an answer on the node port") in names(web)


def test_a_deleted_pod_is_replaced(web: Cluster) -> None:
    victim = sorted(names(web))[0]
    web.kubectl("delete", "pod", victim)
    web.wait_for_pods("app=web", 3)
    assert victim not in names(web)


def test_scaling_up_and_down_reaches_the_wanted_number(web: Cluster) -> None:
    for replicas in (10, 2, 3):
        web.kubectl("scale", "deployment/web", f"--replicas={replicas}")
        web.wait_for_pods("app=web", replicas)
        ready = web.eventually(
            lambda n=replicas: (
                len(web.get("endpointslices", "-l", "kubernetes.io/service-name=web")["items"][0].get("endpoints") or []) == n
            ),
            f"{replicas} endpoints",
        )
        assert ready


def test_a_new_image_rolls_out_and_undo_brings_the_old_one_back(web: Cluster) -> None:
    old = web.get("deployment", "web")["spec"]["template"]["spec"]["containers"][0]["image"]
    web.kubectl("set", "image", "deployment/web", "web=docker.io/library/busybox:next")
    web.kubectl("rollout", "status", "deployment/web", "--timeout=110s")
    pods = web.wait_for_pods("app=web", 3)
    assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {"docker.io/library/busybox:next"}
    web.kubectl("rollout", "undo", "deployment/web")
    web.kubectl("rollout", "status", "deployment/web", "--timeout=110s")
    pods = web.wait_for_pods("app=web", 3)
    assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {old}
    assert "revision" in web.kubectl("rollout", "history", "deployment/web").lower()


def test_an_image_that_does_not_exist_stops_the_rollout_and_old_pods_stay(web: Cluster) -> None:
    before = names(web)
    web.kubectl("set", "image", "deployment/web", "web=docker.io/library/absent:1")
    web.eventually(
        lambda: any(
            (state.get("state", {}).get("waiting") or {}).get("reason") in ("ErrImagePull", "ImagePullBackOff")
            for pod in web.get("pods", "-l", "app=web")["items"]
            for state in pod.get("status", {}).get("containerStatuses", [])
        ),
        "ErrImagePull or ImagePullBackOff",
    )
    assert len(names(web) & before) >= 2
    web.kubectl("rollout", "undo", "deployment/web")
    web.kubectl("rollout", "status", "deployment/web", "--timeout=110s")
    web.wait_for_pods("app=web", 3)


def test_logs_show_what_a_container_printed(web: Cluster) -> None:
    pod = sorted(names(web))[0]
    assert web.kubectl("logs", pod) == "serving\n"
    assert web.kubectl("logs", "deployment/web", "--tail=1").endswith("serving\n")


def test_exec_runs_a_command_with_input_output_and_exit_code(web: Cluster) -> None:
    assert web.kubectl("exec", "client", "--", "hostname") == "client\n"
    assert web.kubectl("exec", "-i", "client", "--", "cat", text="through and back") == "through and back"
    failed = web.try_kubectl("exec", "client", "--", "sh", "-c", "echo no >&2; exit 7")
    assert failed.returncode == 7
    assert failed.stderr.startswith("no\n")


def test_port_forward_carries_a_request(web: Cluster) -> None:
    pod = sorted(names(web))[0]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = {**os.environ, "KUBECONFIG": str(web.data_dir / "kubeconfig")}
    forward = subprocess.Popen([BIN / "kubectl", "port-forward", f"pod/{pod}", f"{port}:8080"], env=environment, stdout=subprocess.DEVNULL)
    try:
        assert web.eventually(lambda: fetch(f"http://127.0.0.1:{port}/"), "an answer through the forward") == pod
    finally:
        forward.terminate()
        forward.wait()


def test_restarting_the_agent_restarts_no_container(web: Cluster) -> None:
    def containers() -> dict[str, tuple[str, int]]:
        pods = web.ready_pods("app=web")
        return {pod["metadata"]["name"]: (s["containerID"], s["restartCount"]) for pod in pods for s in pod["status"]["containerStatuses"]}

    before = containers()
    agent = next(node["agent"]["pid"] for node in web.status()["nodes"])
    os.kill(agent, signal.SIGKILL)
    web.eventually(lambda: web.status()["nodes"][0]["agent"]["pid"] not in (0, agent), "a new agent")
    web.eventually(lambda: web.status()["ready"], "a ready cluster")
    assert containers() == before


def test_a_killed_server_comes_back_with_every_object(web: Cluster) -> None:
    everything = ("deployments,replicasets,services,pods,namespaces,nodes,secrets,configmaps,serviceaccounts", "-A", "-o", "name")
    for index in range(30):
        web.kubectl("create", "configmap", f"kept-{index}", f"--from-literal=index={index}")
    before = set(web.kubectl("get", *everything).split())
    old = web.status()["server"]["pid"]
    os.kill(old, signal.SIGKILL)
    web.eventually(lambda: web.status()["server"]["pid"] not in (0, old) and web.status()["ready"], "a new server")
    assert before <= set(web.kubectl("get", *everything).split())
    assert web.get("configmap", "kept-29")["data"] == {"index": "29"}
    web.kubectl("scale", "deployment/web", "--replicas=4")
    web.wait_for_pods("app=web", 4)
    web.kubectl("scale", "deployment/web", "--replicas=3")
    web.wait_for_pods("app=web", 3)
