"""One suite for every way to see a cluster: in process, and over HTTP through a real socket. Both must behave the same."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import uvicorn

from korch.api.errors import AlreadyExists, ApiError, BadRequest, Conflict, Expired, Invalid, MethodNotAllowed, NotFound
from korch.api.gvk import CONFIG_MAPS, DEPLOYMENTS, EVENTS, NAMESPACES, PODS, SERVICE_ACCOUNTS, ResourceRef
from korch.apiserver.server import ApiServer
from korch.client.http import HttpClient
from korch.client.protocol import Client, DeleteOptions, ListOptions
from korch.resources import catalogue
from korch.runtime.context import Runtime
from korch.storage import Storage

Object = dict[str, Any]
NAMESPACE = "d"


@contextlib.asynccontextmanager
async def _served(server: ApiServer) -> AsyncIterator[str]:
    config = uvicorn.Config(server.app, host="127.0.0.1", port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=5)
    application = uvicorn.Server(config)
    task = asyncio.get_running_loop().create_task(application.serve())
    while not application.started:
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{application.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.close_streams()
        application.should_exit = True
        await task


@pytest.fixture(params=["local", "http"])
async def arm(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Client, Storage]]:
    """Give a client of a new, empty server with one namespace, and the server's store."""
    runtime = Runtime()
    storage = Storage.open(None, runtime)
    server = ApiServer(runtime, storage, catalogue())
    local = server.client()
    await local.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
    await local.create(SERVICE_ACCOUNTS, {"metadata": {"name": "default"}}, namespace=NAMESPACE)
    if request.param == "local":
        yield local, storage
    else:
        async with _served(server) as url, HttpClient(url) as client:
            yield client, storage
    await storage.close()


def _map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": NAMESPACE}, "data": data}


def _pod(name: str) -> Object:
    spec = {"containers": [{"name": "c", "image": "c"}], "nodeName": "n"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}


async def _make(client: Client, obj: Object, ref: ResourceRef = CONFIG_MAPS) -> Object:
    return orjson.loads(await client.create(ref, obj, namespace=NAMESPACE))


async def test_what_is_created_is_got_listed_updated_and_deleted(arm):
    client, _ = arm
    made = await _make(client, _map("a", x="1"))
    assert orjson.loads(await client.get(CONFIG_MAPS, "a", namespace=NAMESPACE)) == made
    made["data"] = {"x": "2"}
    updated = orjson.loads(await client.update(CONFIG_MAPS, made, name="a", namespace=NAMESPACE))
    assert updated["data"] == {"x": "2"}
    listed = await client.list(CONFIG_MAPS, ListOptions(namespace=NAMESPACE))
    assert [orjson.loads(item) for item in listed.items] == [updated]
    assert int(listed.resource_version) >= int(updated["metadata"]["resourceVersion"])
    status = orjson.loads(await client.delete(CONFIG_MAPS, "a", namespace=NAMESPACE))
    assert status["status"] == "Success"


async def test_outcomes_are_typed_errors(arm):
    client, _ = arm
    made = await _make(client, _map("a"))
    with pytest.raises(AlreadyExists):
        await _make(client, _map("a"))
    with pytest.raises(NotFound):
        await client.get(CONFIG_MAPS, "ghost", namespace=NAMESPACE)
    made["metadata"]["resourceVersion"] = "1"
    with pytest.raises(Conflict):
        await client.update(CONFIG_MAPS, made, name="a", namespace=NAMESPACE)
    with pytest.raises(Invalid) as invalid:
        await _make(client, _map("Not A Name"))
    assert invalid.value.details["causes"][0]["field"] == "metadata.name"
    with pytest.raises(BadRequest):
        await client.create(CONFIG_MAPS, {"metadata": {"name": "b"}, "data": {"a": 1}}, namespace=NAMESPACE)
    with pytest.raises(Conflict):
        await client.delete(CONFIG_MAPS, "a", namespace=NAMESPACE, options=DeleteOptions(uid="other"))
    with pytest.raises((MethodNotAllowed, NotFound)):
        await client.delete_collection(NAMESPACES)
    with pytest.raises(NotFound):
        await client.get(ResourceRef("example.com", "v1", "things", "Thing"), "a", namespace=NAMESPACE)


async def test_patches_and_subresources(arm):
    client, _ = arm
    await _make(client, _map("a", x="1"))
    merged = await client.patch(CONFIG_MAPS, "a", {"data": {"y": "2"}}, namespace=NAMESPACE)
    assert orjson.loads(merged)["data"] == {"x": "1", "y": "2"}
    operations = [{"op": "remove", "path": "/data/x"}]
    patched = await client.patch(CONFIG_MAPS, "a", operations, namespace=NAMESPACE, patch_type="json")
    assert orjson.loads(patched)["data"] == {"y": "2"}
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "c"}]}}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    await _make(client, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}, DEPLOYMENTS)
    scale = orjson.loads(await client.get(DEPLOYMENTS, "web", namespace=NAMESPACE, subresource="scale"))
    scale["spec"]["replicas"] = 7
    await client.update(DEPLOYMENTS, scale, name="web", namespace=NAMESPACE, subresource="scale")
    assert orjson.loads(await client.get(DEPLOYMENTS, "web", namespace=NAMESPACE))["spec"]["replicas"] == 7
    status = {"status": {"replicas": 3}}
    written = await client.patch(DEPLOYMENTS, "web", status, namespace=NAMESPACE, subresource="status", patch_type="strategic")
    assert orjson.loads(written)["status"]["replicas"] == 3


async def test_a_pod_is_bound_and_deleted_gracefully(arm):
    client, _ = arm
    pod = _pod("p")
    del pod["spec"]["nodeName"]
    await _make(client, pod, PODS)
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}}
    await client.create(PODS, binding, namespace=NAMESPACE, name="p", subresource="binding")
    marked = orjson.loads(await client.delete(PODS, "p", namespace=NAMESPACE))
    assert marked["spec"]["nodeName"] == "n" and marked["metadata"]["deletionGracePeriodSeconds"] == 30
    await client.delete(PODS, "p", namespace=NAMESPACE, options=DeleteOptions(grace_period_s=0))
    with pytest.raises(NotFound):
        await client.get(PODS, "p", namespace=NAMESPACE)


async def test_lists_select_and_page(arm):
    client, storage = arm
    for number in range(5):
        await _make(client, _map(f"m{number}") | {"metadata": {"name": f"m{number}", "labels": {"odd": str(number % 2)}}})
    odd = await client.list(CONFIG_MAPS, ListOptions(namespace=NAMESPACE, label_selector="odd=1"))
    assert [orjson.loads(one)["metadata"]["name"] for one in odd.items] == ["m1", "m3"]
    one = await client.list(CONFIG_MAPS, ListOptions(field_selector="metadata.name=m2"))
    assert len(one.items) == 1
    page = await client.list(CONFIG_MAPS, ListOptions(namespace=NAMESPACE, limit=2))
    assert page.remaining == 3 and len(page.items) == 2
    rest = await client.list(CONFIG_MAPS, ListOptions(namespace=NAMESPACE, continue_token=page.continue_token))
    assert len(rest.items) == 3 and rest.resource_version == page.resource_version
    await _make(client, _map("later"))
    await storage.compact(storage.revision())
    with pytest.raises(Expired):
        await client.list(CONFIG_MAPS, ListOptions(namespace=NAMESPACE, continue_token=page.continue_token))
    await client.delete_collection(CONFIG_MAPS, ListOptions(namespace=NAMESPACE, label_selector="odd=1"))
    left = await client.list(CONFIG_MAPS, ListOptions(namespace=NAMESPACE))
    assert [orjson.loads(one)["metadata"]["name"] for one in left.items] == ["later", "m0", "m2", "m4"]


async def _next(watch: Any) -> tuple[str, Object]:
    async with asyncio.timeout(10):
        event = await anext(watch)
    return event.type, orjson.loads(event.object)


async def test_a_watch_shows_the_present_the_mark_and_then_every_change(arm):
    client, _ = arm
    await _make(client, _map("a"))
    watch = client.watch(CONFIG_MAPS, ListOptions(namespace=NAMESPACE), send_initial_events=True)
    kind, obj = await _next(watch)
    assert (kind, obj["metadata"]["name"]) == ("ADDED", "a")
    kind, mark = await _next(watch)
    assert (kind, mark["metadata"]["annotations"]) == ("BOOKMARK", {"k8s.io/initial-events-end": "true"})
    await client.patch(CONFIG_MAPS, "a", {"data": {"x": "1"}}, namespace=NAMESPACE)
    await client.delete(CONFIG_MAPS, "a", namespace=NAMESPACE)
    kind, obj = await _next(watch)
    assert (kind, obj["data"], obj["kind"]) == ("MODIFIED", {"x": "1"}, "ConfigMap")
    changed = int(obj["metadata"]["resourceVersion"])
    kind, obj = await _next(watch)
    assert kind == "DELETED" and int(obj["metadata"]["resourceVersion"]) > changed
    await watch.aclose()


async def test_a_watch_below_the_history_is_expired(arm):
    client, storage = arm
    for number in range(3):
        await _make(client, _map(f"m{number}"))
    await storage.compact(storage.revision())
    with pytest.raises(Expired):
        await _next(client.watch(CONFIG_MAPS, ListOptions(resource_version="1")))


async def test_a_watch_ends_after_its_timeout(arm):
    client, storage = arm
    version = str(storage.revision())
    events = [event async for event in client.watch(EVENTS, ListOptions(resource_version=version), timeout_s=1)]
    assert [event.type for event in events if event.type != "BOOKMARK"] == []


async def test_other_paths_are_reached_raw(arm):
    client, _ = arm
    assert orjson.loads(await client.raw("GET", "/version"))["gitVersion"] == "v1.37.2"
    with pytest.raises(ApiError) as refused:
        await client.raw("GET", "/nowhere")
    assert refused.value.code == 404
    body = orjson.dumps(_map("raw"))
    made = await client.raw("POST", f"/api/v1/namespaces/{NAMESPACE}/configmaps", body=body)
    assert orjson.loads(made)["metadata"]["name"] == "raw"
