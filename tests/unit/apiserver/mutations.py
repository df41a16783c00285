"""Wrong requests made from right ones, the same for the same seed.

A value of another type deep inside, a key twice, a body cut short, a header or parameter that means nothing.
"""

from __future__ import annotations

import random
from typing import Any

import orjson
from api_exchange import Answer, config_map, deployment, pod, service

DEPTH = 2_000
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**63,
    1.5,
    "",
    "\x00",
    "é" * 300,
    "a/b",
    "..",
    [],
    {},
    [[]],
    [None],
    {"": None},
    [{}],
    {"a": {}},
)
ODD_TEXT = (
    "",
    "0",
    "-1",
    "true",
    "nope",
    "\x00",
    "%",
    "a=b",
    "a in (",
    "!",
    ",",
    "=",
    "99999999999999999999",
    "é",
    "a" * 300,
    "../..",
    "null",
)
QUERIES = (
    "dryRun",
    "fieldManager",
    "fieldValidation",
    "force",
    "labelSelector",
    "fieldSelector",
    "limit",
    "continue",
    "resourceVersion",
    "resourceVersionMatch",
    "timeoutSeconds",
    "gracePeriodSeconds",
    "propagationPolicy",
    "orphanDependents",
    "sendInitialEvents",
    "includeObject",
    "pretty",
    "container",
)
CONTENT_TYPES = (
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "text/plain",
    "application/json; charset=utf-8",
    "",
    ";",
    "*/*",
)
ACCEPTS = (
    "",
    "*/*",
    "application/json",
    "application/yaml",
    "text/html",
    "application/vnd.kubernetes.protobuf",
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    ";;q=x,=",
    "application/json;q=0",
)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD")
PATCH_TYPES = tuple(one for one in CONTENT_TYPES if "patch" in one)
SPEC = {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}
EVENT = {"metadata": {"name": "x"}, "eventTime": "2026-01-01T00:00:00.000000Z", "reason": "r", "action": "a", "type": "Normal"}
SLICE = {"metadata": {"name": "x"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 1}]}
ACCESS = {"spec": {"user": "u", "resourceAttributes": {"verb": "get", "resource": "pods"}}}
# What may be sent to each path.
PATHS: dict[str, Any] = {
    "/api/v1/namespaces/d/configmaps": config_map("x", k="v"),
    "/api/v1/namespaces/d/pods": pod("x"),
    "/api/v1/namespaces/d/services": service("x"),
    "/api/v1/namespaces/d/secrets": {"metadata": {"name": "x"}, "data": {"k": "dg=="}},
    "/api/v1/namespaces": {"metadata": {"name": "x"}},
    "/api/v1/nodes": {"metadata": {"name": "x"}, "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}},
    "/apis/apps/v1/namespaces/d/deployments": deployment("x"),
    "/apis/batch/v1/namespaces/d/jobs": {"metadata": {"name": "x"}, "spec": {"template": {"spec": SPEC}}},
    "/apis/coordination.k8s.io/v1/namespaces/d/leases": {"metadata": {"name": "x"}, "spec": {"holderIdentity": "h"}},
    "/apis/events.k8s.io/v1/namespaces/d/events": EVENT,
    "/apis/discovery.k8s.io/v1/namespaces/d/endpointslices": SLICE,
    "/apis/authorization.k8s.io/v1/subjectaccessreviews": ACCESS,
    "/apis/authentication.k8s.io/v1/tokenreviews": {"spec": {"token": "t"}},
}
SUBRESOURCES = ("/status", "/scale", "/binding", "/eviction", "/finalize", "/log", "/nope", "/ephemeralcontainers", "/token")
OTHER_PATHS = (
    "/",
    "/api",
    "/apis/",
    "/apis/nope/v1",
    "/openapi/v2",
    "/openapi/v3/x",
    "/version",
    "/healthz/x",
    "/metrics",
    "//",
    "/api/v1//pods",
)


class Mutations:
    """Wrong requests, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def one_of(self, choices: Any) -> Any:
        return self._random.choice(choices)

    def happens(self, probability: float) -> bool:
        return self._random.random() < probability

    def right(self, path: str) -> Any:
        """A body for the path, or one that is right somewhere else."""
        if path and self.happens(0.7):
            return PATHS[path]
        status = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "status": {"replicas": 1}}
        scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "x"}, "spec": {"replicas": 2}}
        patch = [{"op": "replace", "path": "/metadata/labels", "value": {"a": "b"}}, {"op": "test", "path": "/data/k", "value": "v"}]
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "u"}, "propagationPolicy": "Foreground"}
        managed = [
            {"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:k": {}}}}
        ]
        owned = config_map("x", k="v") | {"metadata": {"name": "x", "managedFields": managed, "finalizers": ["a/b"]}}
        lists = {"spec": {"$setElementOrder/containers": [{"name": "c"}], "containers": [{"name": "c", "$patch": "delete"}]}}
        binding = {"metadata": {"name": "x"}, "target": {"kind": "Node", "name": "n"}}
        return self.one_of([status, scale, patch, options, owned, lists, binding, {"metadata": {}}])

    def body(self, path: str) -> bytes:
        value = self.right(path)
        for _ in range(self.one_of((0, 0, 1, 1, 2, 3))):
            value = self.changed(value)
        raw = orjson.dumps(value)
        if self.happens(0.05):
            raw = raw[: self._random.randint(0, len(raw))]
        if self.happens(0.05):
            at = self._random.randint(0, len(raw))
            raw = raw[:at] + self.one_of((b"\xff", b"\x00", b'"', b"{", b"]", b"\\u", b"1e9999", b"//")) + raw[at:]
        if self.happens(0.05):
            raw = self.one_of(
                (b"[" * DEPTH, b'{"a":' * DEPTH + b"1" + b"}" * DEPTH, b"- " * DEPTH, b"k8s\x00" + raw, b"&a [*a,*a]", b"a: 1\na: 2")
            )
        if self.happens(0.05):
            raw = raw.replace(b'"metadata"', b'"metadata":{},"metadata"', 1)
        return raw

    def changed(self, value: Any) -> Any:
        """The value with something of another type somewhere in it."""
        if isinstance(value, dict) and value and self.happens(0.85):
            key = self.one_of(sorted(value))
            return value | {key: self.changed(value[key])}
        if isinstance(value, list) and value and self.happens(0.85):
            at = self._random.randrange(len(value))
            return [*value[:at], self.changed(value[at]), *value[at + 1 :]]
        return self.one_of(ODD_VALUES)

    def target(self) -> tuple[str, str, str, bytes]:
        """A method, a path, the content type of the body, and the body, which mostly go together."""
        if self.happens(0.05):
            return self.one_of(METHODS), self.one_of(OTHER_PATHS), "", self.body("")
        path = self.one_of(sorted(PATHS))
        body = self.body(path)
        if self.happens(0.05):
            path = path.replace("/d/", "/nope/")
        method, kind = self.one_of(("GET", "POST", "POST", "DELETE")), "application/json"
        if self.happens(0.75):
            path += "/" + (self.one_of(("é", "%2e", "X_Y", " ")) if self.happens(0.1) else "x")
            path += self.one_of(SUBRESOURCES) if self.happens(0.2) else ""
            method = self.one_of(("GET", "PUT", "PATCH", "PATCH", "PATCH", "DELETE", "POST"))
            kind = self.one_of(PATCH_TYPES) if method == "PATCH" else kind
        if self.happens(0.08):
            method = self.one_of(METHODS)
        if self.happens(0.08):
            kind = self.one_of(CONTENT_TYPES)
        return method, path, kind, body

    def query(self) -> dict[str, str]:
        count = self.one_of((0, 0, 0, 1, 2))
        return {
            self.one_of(QUERIES): self.one_of((*ODD_TEXT, "All", "Strict", "Exact", "Foreground", "Metadata", "m")) for _ in range(count)
        }

    def headers(self) -> dict[str, str]:
        if self.happens(0.9):
            return {}
        return {
            self.one_of(
                ("user-agent", "if-none-match", "accept-encoding", "content-length", "impersonate-user", "authorization")
            ): self.one_of(("", "x", "*", "gzip", "-1", "\x7f", "Bearer", "Bearer x.y.z", "9" * 30))
        }


def fits(path: str, answer: Answer) -> bool:
    """Whether an answer is one that a client can live with."""
    if answer.code < 400 or not path.startswith(("/api/v1/", "/apis/")):
        return answer.code != 500
    status = answer.json
    assert (status["kind"], status["status"], status["code"]) == ("Status", "Failure", answer.code), status
    assert status["message"]
    return answer.code != 500 or status["message"].startswith("failed to create typed patch object")
