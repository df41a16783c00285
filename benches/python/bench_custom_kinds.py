"""Custom kinds: memory of the server for each of 500 declarations, the time until each is served, and what one of their objects costs.

An object's cost is the server's CPU for one create, over TLS and durable, divided by the time of one `orjson.loads` of a 3 KB pod in
the same run ("decodes").
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
from cluster import running
from record import cpu_seconds, resident_mib, summary, write

from korch._core import native
from korch.api.errors import NotFound
from korch.api.gvk import ResourceRef
from korch.client.kubeconfig import client_from_kubeconfig
from korch.client.protocol import ListOptions

CRDS = ResourceRef("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False)
COUNT = 500
OBJECTS = 1000
FIELDS = 60
POD = orjson.dumps(
    {"kind": "Pod", "metadata": {"name": "p", "labels": {f"l{i}": "x" * 20 for i in range(20)}}, "spec": {"v": ["y" * 30] * 60}}
)


def declaration(number: int) -> dict[str, Any]:
    """Return a declaration of some 10 KB, as operators have them: nested objects, lists, descriptions, a rule."""
    fields: dict[str, Any] = {
        f"field{i}": {"type": "string", "description": f"what field {i} is for, at some length" * 2} for i in range(FIELDS)
    }
    fields["replicas"] = {"type": "integer", "minimum": 0, "default": 1}
    fields["parts"] = {"type": "array", "maxItems": 10, "items": {"type": "object", "properties": {"name": {"type": "string"}}}}
    spec = {"type": "object", "properties": fields, "x-kubernetes-validations": [{"rule": "self.replicas <= 100"}]}
    status = {"type": "object", "properties": {"phase": {"type": "string"}}}
    schema = {"type": "object", "properties": {"spec": spec, "status": status}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}}}
    names = {"plural": f"things{number}", "kind": f"Thing{number}"}
    spec = {"group": "bench.example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": CRDS.kind,
        "metadata": {"name": f"things{number}.bench.example.com"},
        "spec": spec,
    }


async def drive(kubeconfig: str, pid: int) -> dict[str, Any]:
    """Declare COUNT kinds, wait for each to be served, then create OBJECTS objects of one."""
    results: dict[str, Any] = {}
    async with client_from_kubeconfig(kubeconfig) as client:
        await asyncio.sleep(3)
        before = resident_mib(pid)
        served: list[float] = []
        for number in range(COUNT):
            kind = ResourceRef("bench.example.com", "v1", f"things{number}", f"Thing{number}", True)
            await client.create(CRDS, declaration(number))
            began = time.monotonic()
            while True:
                try:
                    await client.list(kind, ListOptions(namespace="default"))
                    break
                except NotFound:
                    await asyncio.sleep(0.001)
            served.append((time.monotonic() - began) * 1000)
        results["until_served_ms"] = summary(served, 1)
        results["resident_kib_each"] = round((resident_mib(pid) - before) * 1024 / COUNT, 1)
        results["declaration_bytes"] = len(orjson.dumps(declaration(0)))
        kind = ResourceRef("bench.example.com", "v1", "things0", "Thing0", True)
        spec = {f"field{i}": "value" for i in range(FIELDS)} | {"parts": [{"name": "a"}]}
        cpu = cpu_seconds([pid])
        for number in range(OBJECTS):
            body = {"apiVersion": "bench.example.com/v1", "kind": "Thing0", "metadata": {"name": f"o{number}"}, "spec": spec}
            await client.create(kind, body, namespace="default")
        results["create_cpu_us"] = round((cpu_seconds([pid]) - cpu) / OBJECTS * 1e6)
    return results


def decode_us() -> float:
    """Return the time of one decode of a 3 KB pod."""
    best = 1e9
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(200):
            orjson.loads(POD)
        best = min(best, (time.perf_counter() - began) / 200 * 1e6)
    return best


def rule_us() -> float:
    """Return the time of one evaluation of a CEL rule over a small object."""
    rule = native.CelExpression("o.replicas <= o.limit && o.name.startsWith('a') && o.parts.all(p, p.size() > 0)", ["o"])
    value = native.CelValue(orjson.dumps({"replicas": 3, "limit": 5, "name": "abc", "parts": ["a", "b", "c"]}))
    best = 1e9
    for _ in range(10):
        began = time.perf_counter()
        for _ in range(1000):
            rule.evaluate([("o", value)])
        best = min(best, (time.perf_counter() - began) / 1000 * 1e6)
    return best


def main() -> None:
    with running("--nodes", "0", "--sim-nodes", "1") as cluster:
        results = asyncio.run(drive(str(cluster.kubeconfig), cluster.status["server"]["pid"]))
    decode = decode_us()
    results |= {
        "decode_us": round(decode, 1),
        "create_decodes": round(results["create_cpu_us"] / decode, 1),
        "rule_us": round(rule_us(), 1),
    }
    write("custom_kinds", results)


if __name__ == "__main__":
    main()
