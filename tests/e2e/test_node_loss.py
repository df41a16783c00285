"""Three real nodes, each with its own containerd in its own network namespace; one of them dies."""

from __future__ import annotations

from tests.e2e.conftest import Cluster, condition

SPREAD = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: spread}
spec:
  replicas: 6
  selector: {matchLabels: {app: spread}}
  template:
    metadata: {labels: {app: spread}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations:
        - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 2}
        - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 2}
      containers:
        - name: web
          image: docker.io/library/busybox:latest
          imagePullPolicy: IfNotPresent
          command: [sh, -c, "mkdir -p /www && hostname > /www/index.html && exec httpd -f -p 8080 -h /www"]
          readinessProbe: {httpGet: {path: /index.html, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: spread}
spec:
  selector: {app: spread}
  ports: [{port: 80, targetPort: 8080}]
"""


def nodes_of(pods: list[dict]) -> set[str]:
    return {pod["spec"]["nodeName"] for pod in pods}


def test_pods_of_a_dead_node_move_and_its_endpoints_are_withdrawn(three_nodes: Cluster) -> None:
    three_nodes.apply(SPREAD)
    pods = three_nodes.wait_for_pods("app=spread", 6)
    assert nodes_of(pods) == {"n1", "n2", "n3"}

    reached_across_nodes(three_nodes, pods)

    three_nodes.korch("node", "stop", "n2")
    three_nodes.eventually(lambda: condition(three_nodes.get("node", "n2"), "Ready") == "Unknown", "node n2 NotReady")
    taints = three_nodes.eventually(lambda: three_nodes.get("node", "n2")["spec"].get("taints"), "taints on n2")
    assert {taint["key"] for taint in taints} >= {"node.kubernetes.io/unreachable"}

    def moved() -> bool:
        ready = three_nodes.ready_pods("app=spread")
        return len(ready) == 6 and "n2" not in nodes_of(ready)

    three_nodes.eventually(moved, "six ready pods elsewhere")

    def withdrawn() -> bool:
        slices = three_nodes.get("endpointslices", "-l", "kubernetes.io/service-name=spread")["items"]
        endpoints = [one for part in slices for one in part.get("endpoints") or []]
        return all(one["nodeName"] != "n2" or one["conditions"]["ready"] is False for one in endpoints)

    three_nodes.eventually(withdrawn, "no ready endpoint on n2")

    three_nodes.korch("node", "start", "n2")
    three_nodes.eventually(lambda: condition(three_nodes.get("node", "n2"), "Ready") == "True", "node n2 back")
    three_nodes.eventually(lambda: not three_nodes.get("node", "n2")["spec"].get("taints"), "taints gone")


def reached_across_nodes(cluster: Cluster, pods: list[dict]) -> None:
    """From a pod of one node, every other pod is reached by its own address, and the Service by its name."""
    source = pods[0]["metadata"]["name"]
    for target in pods[1:]:
        request = f"printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {target['status']['podIP']} 8080"
        said = cluster.eventually(lambda r=request: cluster.kubectl("exec", source, "--", "sh", "-c", r, check=False), "an answer of a pod")
        assert said.strip().splitlines()[-1] == target["metadata"]["name"]
    request = "printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc -w 3 spread 80"
    said = cluster.eventually(lambda: cluster.kubectl("exec", source, "--", "sh", "-c", request, check=False), "an answer from the service")
    assert said.strip().splitlines()[-1] in {pod["metadata"]["name"] for pod in pods}
