"""The asyncio client: many calls at once over few connections, watches beside them, and a custom kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from kubernetes_asyncio import client, config, dynamic, watch
from kubernetes_asyncio.client.exceptions import ApiException


@pytest_asyncio.fixture
async def api(kubeconfig: Path) -> AsyncIterator[client.ApiClient]:
    async with await config.new_client_from_config(str(kubeconfig)) as made:
        yield made


async def test_a_hundred_objects_are_created_at_once_and_all_are_watched(api: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(api)
    before = await core.list_namespaced_config_map(namespace)
    names = {f"one-{number}" for number in range(100)}

    async def watched() -> set[str]:
        seen: set[str] = set()
        async with watch.Watch().stream(
            core.list_namespaced_config_map, namespace, resource_version=before.metadata.resource_version
        ) as events:
            async for event in events:
                seen.add(event["object"].metadata.name)
                if names <= seen:
                    return seen
        return seen

    async with asyncio.TaskGroup() as group:
        seen = group.create_task(watched())
        for name in names:
            metadata = client.V1ObjectMeta(name=name)
            group.create_task(core.create_namespaced_config_map(namespace, client.V1ConfigMap(metadata=metadata, data={"k": name})))
    assert names <= seen.result()
    listed = await core.list_namespaced_config_map(namespace)
    assert {one.metadata.name: one.data for one in listed.items if one.metadata.name in names} == {name: {"k": name} for name in names}


async def test_a_job_runs_to_its_end(api: client.ApiClient, namespace: str) -> None:
    batch = client.BatchV1Api(api)
    pod = client.V1PodSpec(restart_policy="Never", containers=[client.V1Container(name="c", image="i")])
    spec = client.V1JobSpec(completions=2, parallelism=2, template=client.V1PodTemplateSpec(spec=pod))
    await batch.create_namespaced_job(namespace, client.V1Job(metadata=client.V1ObjectMeta(name="j"), spec=spec))
    async with watch.Watch().stream(batch.list_namespaced_job, namespace, field_selector="metadata.name=j") as events:
        async for event in events:
            if event["object"].status.succeeded == 2:
                break
    pods = await client.CoreV1Api(api).list_namespaced_pod(namespace, label_selector="job-name=j")
    assert [one.status.phase for one in pods.items] == ["Succeeded", "Succeeded"]


async def test_an_old_revision_is_gone_in_the_words_that_the_client_understands(api: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(api)
    with pytest.raises(ApiException) as refused:
        await core.list_namespaced_pod(namespace, _continue="nonsense")
    assert refused.value.status == 400
    assert "continue key is not valid" in str(refused.value.body)
    with pytest.raises(ApiException) as future:
        await core.list_namespaced_pod(namespace, resource_version="99999999", resource_version_match="NotOlderThan")
    assert future.value.status == 504
    assert "Too large resource version" in str(future.value.body)


async def test_the_dynamic_client_applies(api: client.ApiClient, namespace: str) -> None:
    found = await dynamic.DynamicClient(api)
    services = await found.resources.get(api_version="v1", kind="Service")
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}}
    made = await services.server_side_apply(body=body, namespace=namespace, field_manager="test")
    assert made.spec.clusterIP.startswith("10.96.")
    assert [one.manager for one in made.metadata.managedFields] == ["test"]
