"""Custom kinds, webhooks and aggregated servers, as kubectl and servers of others meet them."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from korch.apiserver.certificates import CertificateAuthority
from korch.runtime.clock import RealClock
from tests.e2e.conftest import Cluster

Object = dict[str, Any]

DECLARATION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab, shortNames: [ct]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns:
    - {name: Spec, type: string, jsonPath: .spec.cronSpec}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            description: what to run, and when
            required: [cronSpec]
            properties:
              cronSpec: {type: string, description: in the words of cron}
              replicas: {type: integer, default: 1, maximum: 5}
            x-kubernetes-validations:
            - {rule: "self.replicas != 4", message: never four}
"""
OBJECT = """
apiVersion: stable.example.com/v1
kind: CronTab
metadata: {name: mine}
spec: {cronSpec: "* * * * */5"}
"""


@contextmanager
def serving(root: Path, host: str, answer: Callable[[str, Object, Any], Object], *, client_ca: str = "") -> Iterator[tuple[int, str]]:
    """Serve HTTPS as `host`; yield the port and the CA (base64). `answer(path, headers, body)` returns JSON."""
    authority = CertificateAuthority.open(root / host, RealClock())
    authority.issue("serving", host, hosts=[host], is_server=True)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            raw = json.dumps(answer(self.path, dict(self.headers), body)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            return None

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(root / host / "serving.crt", root / host / "serving.key")
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=client_ca)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1], base64.b64encode(authority.certificate_pem).decode()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_kind_is_declared_explained_listed_and_ended(simulated: Cluster) -> None:
    simulated.kubectl("apply", "-f", "-", text=DECLARATION)
    simulated.kubectl("wait", "--for=condition=Established", "crd/crontabs.stable.example.com")
    # Declaration and object in one file, as charts have them.
    assert "crontab.stable.example.com/mine created" in simulated.kubectl("apply", "-f", "-", text=f"{DECLARATION}---{OBJECT}")
    table = [line.split(maxsplit=1) for line in simulated.kubectl("get", "ct").splitlines()]
    assert table == [["NAME", "SPEC          REPLICAS"], ["mine", "* * * * */5   1"]]
    explained = simulated.kubectl("explain", "crontab.spec")
    assert "what to run, and when" in explained and "cronSpec\t<string> -required-\n    in the words of cron" in explained
    refused = simulated.refused("patch", "ct", "mine", "--type=merge", "-p", '{"spec":{"replicas":4}}')
    assert refused == 'The CronTab "mine" is invalid: spec: Invalid value: never four\n'
    unknown = simulated.refused("create", "-f", "-", text=OBJECT.replace("mine", "other").replace("cronSpec:", "odd: 1, cronSpec:"))
    assert 'strict decoding error: unknown field "spec.odd"' in unknown
    simulated.kubectl("delete", "crd", "crontabs.stable.example.com")
    # kubectl remembers discovery for a while, and then says so itself.
    said = simulated.refused("get", "ct")
    assert "could not find the requested resource" in said or "doesn't have a resource type" in said


def test_a_webhook_is_asked_over_the_network(simulated: Cluster, tmp_path: Path) -> None:
    def answer(_path: str, _headers: Object, review: Any) -> Object:
        request = review["request"]
        patch = base64.b64encode(json.dumps([{"op": "add", "path": "/data/seen", "value": "yes"}]).encode()).decode()
        response: Object = {"uid": request["uid"], "allowed": True, "patchType": "JSONPatch", "patch": patch}
        if "bad" in request["name"]:
            response = {"uid": request["uid"], "allowed": False, "status": {"message": "bad name"}}
        return {**review, "response": response}

    with serving(tmp_path, "localhost", answer) as (port, ca_bundle):
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}
        webhook = {
            "name": "names.example.com",
            "clientConfig": {"url": f"https://localhost:{port}/names", "caBundle": ca_bundle},
            "rules": [rule],
            "objectSelector": {"matchLabels": {"hooked": "yes"}},
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }
        kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": "names"}}
        simulated.kubectl("create", "-f", "-", text=json.dumps(kind | {"webhooks": [webhook]}))
        made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "good", "labels": {"hooked": "yes"}}, "data": {"a": "b"}}
        simulated.kubectl("create", "-f", "-", text=json.dumps(made))
        assert simulated.get("configmap", "good")["data"] == {"a": "b", "seen": "yes"}
        made["metadata"]["name"] = "bad"
        refused = simulated.refused("create", "-f", "-", text=json.dumps(made))
        assert 'admission webhook "names.example.com" denied the request: bad name' in refused
    simulated.kubectl("delete", "mutatingwebhookconfiguration", "names")


def test_another_server_serves_a_group_through_this_one(simulated: Cluster, tmp_path: Path) -> None:
    seen: list[Object] = []
    row = {"name": "flunders", "singularName": "flunder", "namespaced": True, "kind": "Flunder", "verbs": ["get", "list"]}

    def answer(path: str, headers: Object, _body: Any) -> Object:
        if path == "/apis/far.example.com/v1":
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "far.example.com/v1", "resources": [row]}
        seen.append(headers)
        one = {"apiVersion": "far.example.com/v1", "kind": "Flunder", "metadata": {"name": "f", "namespace": "default"}}
        return {"kind": "FlunderList", "apiVersion": "far.example.com/v1", "metadata": {}, "items": [one]}

    name = ("configmap", "-n", "kube-system", "extension-apiserver-authentication")
    simulated.eventually(lambda: not simulated.try_kubectl("get", *name).returncode, "the ConfigMap of trust")
    trusted = simulated.get(*name)["data"]
    assert trusted["requestheader-allowed-names"] == '["front-proxy-client"]'
    with serving(tmp_path, "far.default.svc", answer, client_ca=trusted["requestheader-client-ca-file"]) as (port, ca_bundle):
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "far"}}
        service["spec"] = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}
        simulated.kubectl("create", "-f", "-", text=json.dumps(service))
        spec = {"group": "far.example.com", "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 10, "caBundle": ca_bundle}
        spec["service"] = {"namespace": "default", "name": "far", "port": port}
        registration = {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v1.far.example.com"},
            "spec": spec,
        }
        simulated.kubectl("create", "-f", "-", text=json.dumps(registration))
        simulated.kubectl("wait", "--for=condition=Available", "apiservice/v1.far.example.com", "--timeout=60s")
        assert simulated.kubectl("get", "flunders", "-o", "name") == "flunder.far.example.com/f\n"
        assert seen[-1]["X-Remote-User"] == "kubernetes-admin" and "Authorization" not in seen[-1]
        simulated.kubectl("delete", "apiservice", "v1.far.example.com")
