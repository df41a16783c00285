"""What Kubernetes' own Go client says to the server and makes of the answers, read from kubectl's log of its requests."""

from __future__ import annotations

import base64
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import BIN, PATIENCE_S, Cluster

PROGRAMS = {"1.37": BIN / "kubectl", "1.35": Path(sys.prefix) / "clients" / "kubectl-1.35"}
_LINE = re.compile(r'^I\d{4} .*?\] "(Request|Response)" (?:verb="(\w+)" url="https://[^/]+([^"]*)"|status="(\d+)[^"]*") headers=<$')


@dataclass(frozen=True)
class Exchange:
    """A request and its answer; `headers` are the answer's, in lower case."""

    verb: str
    path: str
    asked: dict[str, str]
    code: int
    headers: dict[str, str]


def exchanges(log: str) -> list[Exchange]:
    """Return what a log of level 8 tells, in order."""
    found: list[Exchange] = []
    request: tuple[str, str, dict[str, str]] | None = None
    lines = iter(log.splitlines())
    for line in lines:
        if match := _LINE.match(line):
            kind, verb, path, code = match.groups()
            headers: dict[str, str] = {}
            for inner in lines:
                if inner.startswith(" >"):
                    break
                name, _, value = inner.strip().partition(": ")
                headers[name.lower()] = value
            if kind == "Request":
                request = (verb, path, headers)
            elif request is not None:
                found.append(Exchange(*request, int(code), headers))
    return found


@dataclass(frozen=True)
class Kubectl:
    program: Path
    environment: dict[str, str]
    namespace: str

    def start(self, *arguments: str, **features: str) -> subprocess.Popen[str]:
        command = [self.program, "-v=8", "-n", self.namespace, *arguments]
        return subprocess.Popen(command, env=self.environment | features, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def log(self, *arguments: str, **features: str) -> str:
        """Run a command that must succeed and return its log."""
        process = self.start(*arguments, **features)
        output, log = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, output + log
        return log


@pytest.fixture(params=PROGRAMS)
def kubectl(request: pytest.FixtureRequest, kubeconfig: Path, namespace: str, tmp_path: Path) -> Kubectl:
    return Kubectl(PROGRAMS[request.param], {"HOME": str(tmp_path), "KUBECONFIG": str(kubeconfig)}, namespace)


def test_a_typed_body_is_sent_as_protobuf_and_answered_as_json(kubectl: Kubectl) -> None:
    [made] = exchanges(kubectl.log("create", "deployment", "w", "--image=i", "--replicas=2"))
    assert (made.verb, made.code) == ("POST", 201)
    assert made.asked["content-type"] == "application/vnd.kubernetes.protobuf"
    assert made.asked["accept"] == "application/vnd.kubernetes.protobuf,application/json"
    assert made.headers["content-type"] == "application/json"
    assert {"audit-id", "x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid"} <= made.headers.keys()
    assert made.headers["cache-control"] == "no-cache, private"


def test_a_client_that_would_rather_speak_cbor_is_understood(kubectl: Kubectl, served: Cluster) -> None:
    features = {"KUBE_FEATURE_ClientsAllowCBOR": "true", "KUBE_FEATURE_ClientsPreferCBOR": "true"}
    kubectl.log("create", "configmap", "c", "--from-literal=a=b", **features)
    patched = exchanges(kubectl.log("annotate", "configmap", "c", "note=x", **features))
    assert [one.code for one in patched if "/configmaps/c" in one.path] == [200, 200]
    assert served.get("configmap", "c", "-n", kubectl.namespace)["metadata"]["annotations"] == {"note": "x"}


def test_discovery_is_one_document_for_each_root_and_is_kept_until_it_changes(kubectl: Kubectl, served: Cluster) -> None:
    def not_modified() -> float:
        lines = [line for line in served.kubectl("get", "--raw", "/metrics").splitlines() if line.startswith("apiserver_request_total")]
        return sum(float(line.rpartition(" ")[2]) for line in lines if 'code="304"' in line)

    first = [one for one in exchanges(kubectl.log("api-resources")) if one.path.startswith(("/api?", "/apis?"))]
    assert [one.path.partition("?")[0] for one in first] == ["/api", "/apis"]
    for one in first:
        assert "as=APIGroupDiscoveryList" in one.headers["content-type"] and one.headers["vary"] == "Accept"
        assert one.headers["etag"].strip('"')
    before = not_modified()
    again = [one for one in exchanges(kubectl.log("api-resources")) if one.path.startswith(("/api?", "/apis?"))]
    assert [one.headers["etag"] for one in again] == [one.headers["etag"] for one in first]
    assert not_modified() >= before + 2


def test_waiting_lists_by_watching(kubectl: Kubectl) -> None:
    kubectl.log("create", "deployment", "w", "--image=i")
    log = kubectl.log("rollout", "status", "deployment/w")
    watched = [line for line in log.splitlines() if "sendInitialEvents=true" in line]
    assert watched and all("resourceVersionMatch=NotOlderThan" in line and "allowWatchBookmarks=true" in line for line in watched)
    assert "received the bookmark that marks the end of initial events stream" in log
    assert "Caches populated" in log and "falling back" not in log.lower()


# Nobody of this level goes beside another: one request is all that is ever on its way.
CLOSED = """
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: PriorityLevelConfiguration
metadata: {{name: {name}}}
spec:
  type: Limited
  limited: {{nominalConcurrencyShares: 0, lendablePercent: 0, borrowingLimitPercent: 0, limitResponse: {{type: Reject}}}}
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: {{name: {name}}}
spec:
  matchingPrecedence: 2
  priorityLevelConfiguration: {{name: {name}}}
  rules:
  - subjects: [{{kind: User, user: {{name: {name}}}}}]
    resourceRules: [{{verbs: ["*"], apiGroups: ["*"], resources: ["*"], namespaces: ["*"]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {name}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {name}}}]
"""


@contextmanager
def unfinished(kubeconfig: Path, user: str, namespace: str, scratch: Path) -> Iterator[None]:
    """Be in the middle of a request of `user` whose body does not end."""
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, admin = config["clusters"][0]["cluster"], config["users"][0]["user"]
    pem = scratch / "admin.pem"
    pem.write_bytes(b"".join(base64.b64decode(admin[f"client-{part}-data"]) for part in ("certificate", "key")))
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    context.load_cert_chain(pem)
    host, _, port = cluster["server"].removeprefix("https://").rpartition(":")
    head = f"POST /api/v1/namespaces/{namespace}/configmaps HTTP/1.1\r\nHost: x\r\nImpersonate-User: {user}\r\n"
    with context.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host) as connection:
        connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
        yield


def test_a_client_that_is_turned_away_comes_again_when_it_was_told_to(
    kubectl: Kubectl, served: Cluster, kubeconfig: Path, tmp_path: Path
) -> None:
    name = f"narrow-{kubectl.program.name}"
    served.apply(CLOSED.format(name=name))
    probe = ("get", "pods", "-n", kubectl.namespace, "--as", name)
    try:
        with unfinished(kubeconfig, name, kubectl.namespace, tmp_path):
            served.eventually(
                lambda: "Too Many Requests" in served.try_kubectl(*probe, "-v=8", "--request-timeout=1s").stderr, "a full level"
            )
            process = kubectl.start("get", "pods", "--as", name)
            assert process.stderr is not None
            log = ""
            while "Got a Retry-After" not in log:
                line = process.stderr.readline()
                assert line, log
                log += line
        output, rest = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, output + log + rest
        answers = [one for one in exchanges(log + rest) if "/pods" in one.path]
        assert (answers[0].code, answers[0].headers["retry-after"]) == (429, "1")
        assert answers[-1].code == 200
    finally:
        for kind in ("flowschema", "prioritylevelconfiguration", "clusterrolebinding"):
            served.kubectl("delete", kind, name)
