"""Group-versions that other servers serve are reached through this one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
from api_exchange import Api, on_server, service

from korch.apiserver.discovery import AGGREGATED

Object = dict[str, Any]
SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
ROWS = [
    {"name": "flunders", "singularName": "flunder", "namespaced": True, "kind": "Flunder", "verbs": ["get", "list"], "shortNames": ["fl"]},
    {"name": "flunders/status", "singularName": "", "namespaced": True, "kind": "Flunder", "verbs": ["get"]},
]


class FarServer:
    """A connector that answers from a table instead of the network."""

    def __init__(self, api: Api) -> None:
        self.requests: list[tuple[str, str, str]] = []
        self.is_up = True
        api.server.aggregated.connector = self  # type: ignore[assignment]

    async def fetch(self, _backend: Any, _address: Any, path: str) -> tuple[int, bytes]:
        if not self.is_up:
            raise ConnectionRefusedError("refused")
        return 200, orjson.dumps({"kind": "APIResourceList", "groupVersion": path.removeprefix("/apis/"), "resources": ROWS})

    def open(self, backend: Any, address: Any, method: str, path: str, _headers: Any, body: bytes, user: Any, **_: Any) -> FarServer:
        self.requests.append((method, path, user.name))
        self.address, self.server_name, self.sent = address, backend.server_name, body
        return self

    status = 200
    headers = (("content-type", "application/json"),)

    async def __aenter__(self) -> FarServer:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def chunks(self) -> AsyncIterator[bytes]:
        yield b'{"kind":"Flunder",'
        yield b'"metadata":{"name":"f"}}'


def registration(**spec: Any) -> Object:
    given = {
        "group": "far.example.com",
        "version": "v1",
        "groupPriorityMinimum": 2000,
        "versionPriority": 10,
        "insecureSkipTLSVerify": True,
    }
    reference = {"namespace": "d", "name": "far"}
    return {"metadata": {"name": "v1.far.example.com"}, "spec": given | {"service": reference} | spec}


async def condition(api: Api) -> tuple[str, str, str]:
    await asyncio.sleep(6)
    (one,) = (await api.get(f"{SERVICES}/v1.far.example.com")).json["status"]["conditions"]
    return one["status"], one["reason"], one["message"]


async def reachable(api: Api) -> FarServer:
    """Register a server that answers behind a Service with one endpoint."""
    path = await api.namespace()
    far = FarServer(api)
    await api.made(f"{path}/services", service("far", ports=[{"port": 443, "targetPort": 9443}]))
    piece = {
        "metadata": {"name": "far-1", "labels": {"kubernetes.io/service-name": "far"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 9443}],
        "endpoints": [{"addresses": ["10.9.9.9"], "conditions": {"ready": True}}],
    }
    await api.made("/apis/discovery.k8s.io/v1/namespaces/d/endpointslices", piece)
    await api.made(SERVICES, registration())
    await asyncio.sleep(1)
    return far


@on_server
async def test_every_group_version_of_this_server_has_a_local_registration(api: Api) -> None:
    await asyncio.sleep(1)
    found = {one["metadata"]["name"]: one for one in (await api.get(SERVICES)).json["items"]}
    assert {"v1.", "v1.apps", "v1.apiextensions.k8s.io"} <= found.keys()
    (one,) = found["v1.apps"]["status"]["conditions"]
    assert (one["type"], one["status"], one["reason"]) == ("Available", "True", "Local")


@on_server
async def test_the_condition_says_why_a_server_cannot_be_reached(api: Api) -> None:
    path = await api.namespace()
    FarServer(api)
    await api.made(SERVICES, registration())
    assert await condition(api) == ("False", "ServiceNotFound", 'service/far in "d" is not present')
    await api.made(f"{path}/services", service("far", ports=[{"port": 443}]))
    assert await condition(api) == ("False", "MissingEndpoints", 'endpoints for service/far in "d" have no addresses')
    assert (await api.get("/apis/far.example.com/v1/namespaces/d/flunders")).says == (503, "ServiceUnavailable", "service unavailable")


@on_server
async def test_requests_are_handed_on_with_the_user(api: Api) -> None:
    far = await reachable(api)
    assert await condition(api) == ("True", "Passed", "all checks passed")
    answer = await api.get("/apis/far.example.com/v1/namespaces/d/flunders/f", labelSelector="a=b")
    assert answer.json == {"kind": "Flunder", "metadata": {"name": "f"}}
    assert far.requests[-1][:2] == ("GET", "/apis/far.example.com/v1/namespaces/d/flunders/f?labelSelector=a%3Db")
    assert (far.address, far.server_name) == (("10.9.9.9", 9443), "far.d.svc")
    await api.post("/apis/far.example.com/v1/namespaces/d/flunders", {"kind": "Flunder"})
    assert far.sent == b'{"kind":"Flunder"}'


@on_server
async def test_discovery_shows_what_other_servers_serve(api: Api) -> None:
    far = await reachable(api)
    groups = [one["name"] for one in (await api.get("/apis")).json["groups"]]
    assert "far.example.com" in groups
    found = (await api.get("/apis", accept=AGGREGATED)).json["items"]
    (group,) = [one for one in found if one["metadata"]["name"] == "far.example.com"]
    (row,) = group["versions"][0]["resources"]
    assert (row["resource"], row["scope"], row["shortNames"]) == ("flunders", "Namespaced", ["fl"])
    assert [one["subresource"] for one in row["subresources"]] == ["status"]
    assert "apis/far.example.com/v1" in (await api.get("/openapi/v3")).json["paths"]
    far.is_up = False
    await asyncio.sleep(6)
    assert "far.example.com" not in [one["name"] for one in (await api.get("/apis")).json["groups"]]


@on_server
async def test_registrations_are_checked(api: Api) -> None:
    wrong = registration(groupPriorityMinimum=0, caBundle="eA==", service={"namespace": "d"})
    wrong["metadata"]["name"] = "other"
    answer = await api.post(SERVICES, wrong)
    causes = {one["field"]: one["message"] for one in answer.json["details"]["causes"]}
    assert causes["metadata.name"] == 'Invalid value: "other": must be `spec.version+"."+spec.group`: "v1.far.example.com"'
    assert causes["spec.groupPriorityMinimum"] == "Invalid value: 0: must be positive and less than 20000"
    assert causes["spec.service.name"] == "Required value"
    assert causes["spec.insecureSkipTLSVerify"] == "Invalid value: true: may not be true if caBundle is present"
