"""Bindings of many pods are one commit, and each pod gets the answer that its own Binding would have got."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from korch.api.errors import ApiError
from korch.api.gvk import NAMESPACES, PODS, ResourceRef
from korch.apiserver.local import LocalClient
from korch.apiserver.server import ApiServer, ServerConfig
from korch.client.protocol import Binder, PodBinding
from korch.resources import catalogue
from korch.runtime.context import Runtime
from korch.storage import Storage

Object = dict[str, Any]
GROUP = "admissionregistration.k8s.io"
POLICIES = ResourceRef(GROUP, "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False)
POLICY_BINDINGS = ResourceRef(GROUP, "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", namespaced=False)


@pytest.fixture
async def client() -> AsyncIterator[LocalClient]:
    runtime = Runtime()
    server = ApiServer(runtime, Storage.open(None, runtime), catalogue(), ServerConfig(disabled_admission=frozenset({"ServiceAccount"})))
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(server.run())
        made = server.client()
        await made.create(NAMESPACES, {"metadata": {"name": "d"}})
        yield made
        running.cancel()


async def add(client: LocalClient, name: str, **spec: Any) -> PodBinding:
    body = {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "app"}], **spec}}
    made = orjson.loads(await client.create(PODS, body, namespace="d"))
    return PodBinding("d", name, made["metadata"]["uid"], "n1")


async def pod(client: LocalClient, name: str) -> Object:
    return orjson.loads(await client.get(PODS, name, namespace="d"))


def said(answers: list[ApiError | None]) -> list[str]:
    return ["" if one is None else f"{one.code} {one.message}" for one in answers]


async def test_all_are_bound_in_one_revision(client: LocalClient) -> None:
    assert isinstance(client, Binder)
    assert said(await client.bind_pods([await add(client, f"p{at}") for at in range(3)])) == ["", "", ""]
    bound = [await pod(client, f"p{at}") for at in range(3)]
    assert {one["spec"]["nodeName"] for one in bound} == {"n1"}
    assert len({one["metadata"]["resourceVersion"] for one in bound}) == 1
    (condition,) = bound[0]["status"]["conditions"]
    assert (condition["type"], condition["status"]) == ("PodScheduled", "True")


async def test_each_is_refused_for_its_own_reason(client: LocalClient) -> None:
    good, taken, gated = (
        await add(client, "good"),
        await add(client, "taken"),
        await add(client, "gated", schedulingGates=[{"name": "x/y"}]),
    )
    await client.bind_pods([taken])
    other = PodBinding("d", "good", "another", "n2")
    answers = said(await client.bind_pods([PodBinding("d", "gone", "", "n1"), other, good, taken, gated]))
    assert answers[0] == '404 pods "gone" not found'
    assert answers[1].startswith("409 ") and "Precondition failed: UID in precondition: another" in answers[1]
    assert answers[2] == ""
    assert answers[3].endswith('pod taken is already assigned to node "n1"')
    assert answers[4].endswith("pod gated has non-empty .spec.schedulingGates")
    assert (await pod(client, "good"))["spec"]["nodeName"] == "n1"


async def test_a_pod_named_twice_is_bound_once(client: LocalClient) -> None:
    one, two = await add(client, "one"), await add(client, "two")
    answers = said(await client.bind_pods([one, two, PodBinding("d", "one", one.uid, "n2")]))
    assert answers[:2] == ["", ""] and answers[2].endswith('pod one is already assigned to node "n1"')


async def test_a_policy_is_asked_about_each(client: LocalClient) -> None:
    bad, good = await add(client, "bad"), await add(client, "good")
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/binding"], "operations": ["CREATE", "UPDATE"]}]
    policy = {
        "metadata": {"name": "p"},
        "spec": {
            "matchConstraints": {"resourceRules": rules},
            "validations": [{"expression": "object.metadata.name != 'bad'", "message": "not this one"}],
        },
    }
    await client.create(POLICIES, policy)
    await client.create(POLICY_BINDINGS, {"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}})
    answers = said(await client.bind_pods([bad, good]))
    assert "not this one" in answers[0] and answers[1] == ""
    assert "nodeName" not in (await pod(client, "bad"))["spec"]
