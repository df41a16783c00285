"""Writes that come again and again: whatever is remembered of them, the tenth is answered as the first one would be.

And no permission outlives its revocation.
"""

from __future__ import annotations

from typing import Any

import pytest
from access import RBAC, Access, As, with_access
from api_exchange import Api, on_server, pod
from test_custom_kinds import declared, widget

Object = dict[str, Any]
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
ROUNDS = 4


def common(made: Object) -> Object:
    """A pod without what no other pod has: names, times, and the name of its token volume."""
    text = dict(made, metadata={key: value for key, value in made["metadata"].items() if key not in ("name", "uid", "resourceVersion")})
    text["metadata"].pop("creationTimestamp")
    text["metadata"]["managedFields"] = [dict(one, time="") for one in text["metadata"]["managedFields"]]
    volumes = [one["name"] for one in made["spec"].get("volumes") or () if one["name"].startswith("kube-api-access-")]

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: renamed(one) for key, one in value.items()}
        if isinstance(value, list):
            return [renamed(one) for one in value]
        return "token" if value in volumes else value

    return renamed(text)


@on_server
async def test_every_pod_of_one_spec_is_stored_alike_and_has_a_token_volume_of_its_own(api: Api) -> None:
    path = await api.namespace()
    rich = {
        "containers": [
            {"name": "c", "image": "registry.test/c:1", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}}},
            {"name": "d", "image": "registry.test/d", "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
        ],
        "nodeName": "n1",
        "volumes": [{"name": "v", "emptyDir": {}}],
    }
    for spec in ({}, rich):
        made = [await api.made(f"{path}/pods", pod(f"p{number}-{len(spec)}", **spec)) for number in range(ROUNDS)]
        assert [common(one) for one in made] == [common(made[0])] * ROUNDS
        assert [one["metadata"]["name"] for one in made] == [f"p{number}-{len(spec)}" for number in range(ROUNDS)]
        volumes = {one["spec"]["volumes"][-1]["name"] for one in made}
        assert len(volumes) == ROUNDS
        for one in made:
            assert (await api.get(f"{path}/pods/{one['metadata']['name']}")).json == one
            assert one["metadata"]["generation"] == 1 and one["status"]["phase"] == "Pending"
    found = (await api.get(f"{path}/pods", fieldSelector="spec.nodeName=n1")).json["items"]
    assert len(found) == ROUNDS


@on_server
async def test_unknown_fields_are_told_of_or_refused_each_time(api: Api) -> None:
    path = await api.namespace()
    for ways in (("Ignore",) * 3, ("Warn",) * 3):
        for number, way in enumerate((*ways, "Warn", "Strict", "Ignore", "Strict", "Warn")):
            answer = await api.post(f"{path}/pods", pod(f"{way.lower()}{number}-{ways[0].lower()}", speling=1), fieldValidation=way)
            assert answer.code == (400 if way == "Strict" else 201), (way, answer.body)
            assert answer.warnings == (['299 - "unknown field \\"spec.speling\\""'] if way == "Warn" else [])


@on_server
async def test_a_spec_that_is_wrong_is_refused_each_time_and_a_head_that_is_wrong_too(api: Api) -> None:
    path = await api.namespace()
    for number in range(ROUNDS):
        answer = await api.post(f"{path}/pods", pod(f"p{number}", restartPolicy="Perhaps"))
        assert answer.says[:2] == (422, "Invalid")
        await api.made(f"{path}/pods", pod(f"q{number}"))
    assert (await api.post(f"{path}/pods", pod("Q"))).says[:2] == (422, "Invalid")
    assert (await api.post(f"{path}/pods", pod("q0"))).says[:2] == (409, "AlreadyExists")
    body = pod("r") | {"metadata": {"name": "r", "labels": {"a": "no label!"}}}
    assert (await api.post(f"{path}/pods", body)).says[:2] == (422, "Invalid")
    body = pod("r") | {"metadata": {"name": "r", "namespace": "other"}}
    assert (await api.post(f"{path}/pods", body)).code == 400
    assert (await api.post(f"{path}/pods", pod("r") | {"kind": "ConfigMap"})).code == 400
    generated = pod("x") | {"metadata": {"generateName": "g-"}}
    names = {(await api.made(f"{path}/pods", generated))["metadata"]["name"] for _ in range(ROUNDS)}
    assert len(names) == ROUNDS and all(name.startswith("g-") for name in names)


@on_server
async def test_an_object_without_a_whole_head_is_answered_alike_each_time(api: Api) -> None:
    widgets, pods = await declared(api), "/api/v1/namespaces/d/pods"
    spec = pod("")["spec"]
    heads: list[Object] = [
        {},
        {"metadata": {}},
        {"metadata": None},
        {"kind": "Other"},
        {"apiVersion": "v9"},
        {"metadata": {"generateName": "g-"}},
    ]
    for head in heads:
        for path, body in ((widgets, head | {"spec": {"image": "a"}}), (pods, head | {"spec": spec})):
            answers = [await api.post(path, body) for _ in range(2 * ROUNDS)]
            assert len({one.code for one in answers}) == 1
            assert answers[0].code == 201 or len({one.body for one in answers}) == 1
            assert answers[0].code in (201, 400, 422)


@on_server
async def test_unknown_fields_of_custom_kinds_are_told_of_or_refused_each_time(api: Api) -> None:
    path = await declared(api)
    for number, way in enumerate(("Ignore", "Ignore", "Warn", "Warn", "Warn", "Strict", "Ignore", "Warn", "Strict")):
        answer = await api.post(path, widget(f"w{number}", speling=1), fieldValidation=way)
        assert answer.code == (400 if way == "Strict" else 201), (way, answer.body)
        assert answer.warnings == (['299 - "unknown field \\"spec.speling\\""'] if way == "Warn" else [])
        if answer.code == 201:
            assert answer.json["spec"] == {"image": "a", "replicas": 1, "note": "none"}


async def settle(api: Api, path: str, name: str) -> None:
    for number in range(ROUNDS):
        await api.made(f"{path}/pods", pod(f"{name}{number}"))


@on_server
async def test_what_admission_looks_at_counts_from_the_next_pod_on(api: Api) -> None:
    path = await api.namespace()
    await settle(api, path, "a")
    await api.patch(f"{path}/serviceaccounts/default", {"imagePullSecrets": [{"name": "s"}]})
    assert (await api.made(f"{path}/pods", pod("b")))["spec"]["imagePullSecrets"] == [{"name": "s"}]
    await settle(api, path, "b")
    default = {"metadata": {"name": "usual"}, "value": 7, "globalDefault": True}
    await api.made("/apis/scheduling.k8s.io/v1/priorityclasses", default)
    assert (await api.made(f"{path}/pods", pod("c")))["spec"]["priority"] == 7
    await settle(api, path, "c")
    limits = {"limits": [{"type": "Container", "defaultRequest": {"cpu": "3"}}]}
    await api.made(f"{path}/limitranges", {"metadata": {"name": "l"}, "spec": limits})
    assert (await api.made(f"{path}/pods", pod("d")))["spec"]["containers"][0]["resources"] == {"requests": {"cpu": "3"}}
    await api.delete(f"{path}/limitranges/l")
    assert (await api.made(f"{path}/pods", pod("e")))["spec"]["containers"][0]["resources"] == {}
    await settle(api, path, "e")
    count = len((await api.get(f"{path}/pods")).json["items"])
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": str(count + 1)}}, "status": {}}
    await api.made(f"{path}/resourcequotas", quota)
    await api.patch(f"{path}/resourcequotas/q/status", {"status": {"hard": {"pods": str(count + 1)}, "used": {"pods": str(count)}}})
    await api.made(f"{path}/pods", pod("f"))
    assert (await api.post(f"{path}/pods", pod("g"))).says[:2] == (403, "Forbidden")
    await api.delete(f"{path}/resourcequotas/q")
    await settle(api, path, "h")
    await api.patch(path, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}})
    assert (await api.post(f"{path}/pods", pod("i"))).says[:2] == (403, "Forbidden")
    await api.patch(path, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": None}}})
    await api.made(f"{path}/pods", pod("i"))
    await api.delete(f"{path}/serviceaccounts/default")
    assert (await api.post(f"{path}/pods", pod("j"))).says[:2] == (403, "Forbidden")


@on_server
async def test_a_policy_counts_from_the_next_write_on(api: Api) -> None:
    path = await api.namespace()
    await settle(api, path, "a")
    for number in range(ROUNDS):
        assert (await api.patch(f"{path}/pods/a0", {"metadata": {"labels": {"n": str(number)}}})).code == 200
    rule = {"apiGroups": [""], "apiVersions": ["*"], "resources": ["pods"], "operations": ["CREATE", "UPDATE"]}
    spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "object.spec.hostNetwork", "message": "no"}]}
    await api.made(f"{ADMISSION}/validatingadmissionpolicies", {"metadata": {"name": "p"}, "spec": spec})
    binding = {"policyName": "p", "validationActions": ["Deny"]}
    await api.made(f"{ADMISSION}/validatingadmissionpolicybindings", {"metadata": {"name": "p"}, "spec": binding})
    assert (await api.post(f"{path}/pods", pod("b"))).code == 422
    assert (await api.patch(f"{path}/pods/a0", {"metadata": {"labels": {"n": "last"}}})).code == 422
    await api.delete(f"{ADMISSION}/validatingadmissionpolicybindings/p")
    await api.made(f"{path}/pods", pod("b"))
    assert (await api.patch(f"{path}/pods/a0", {"metadata": {"labels": {"n": "last"}}})).json["metadata"]["labels"] == {"n": "last"}


@on_server
async def test_patches_of_metadata_are_held_to_the_rules_each_time(api: Api) -> None:
    path = await api.namespace()
    made = await api.made(f"{path}/pods", pod("p", nodeName="n1"))
    for number in range(ROUNDS):
        found = (await api.patch(f"{path}/pods/p", {"metadata": {"annotations": {"n": str(number)}}})).json
        assert found["metadata"]["annotations"] == {"n": str(number)}
        assert (found["spec"], found["status"]) == (made["spec"], made["status"])
        assert found["metadata"]["generation"] == 1
    again = (await api.patch(f"{path}/pods/p", {"metadata": {"annotations": {"n": str(ROUNDS - 1)}}})).json
    versions = [one["metadata"]["resourceVersion"] for one in (found, again)]
    assert versions[0] == versions[1], "a change of nothing is not written"
    assert (await api.patch(f"{path}/pods/p", {"metadata": {"labels": {"a": "no label!"}}})).says[:2] == (422, "Invalid")
    assert (await api.patch(f"{path}/pods/p", {"metadata": {"labels": {"a": 1}}})).code in (400, 422)
    assert (await api.patch(f"{path}/pods/p", {"metadata": {"name": "q"}})).says[:2] == (400, "BadRequest")
    assert (await api.patch(f"{path}/pods/p", {"metadata": {"uid": "other"}})).says[:2] == (409, "Conflict")
    assert (await api.patch(f"{path}/pods/p", {"metadata": {"resourceVersion": "1"}})).says[:2] == (409, "Conflict")
    assert (await api.patch(f"{path}/pods/p", {"metadata": {"speling": 1}}, fieldValidation="Strict")).code in (400, 422)
    assert (await api.patch(f"{path}/pods/p", {"metadata": {"speling": 1}}, fieldValidation="Warn")).warnings
    owners = {(one["manager"], one["operation"]) for one in found["metadata"]["managedFields"]}
    assert len(owners) == 1
    labelled = (await api.patch(f"{path}/pods/p", {"metadata": {"labels": {"a": "b"}}})).json
    assert labelled["metadata"]["labels"] == {"a": "b"}
    assert [one["metadata"]["name"] for one in (await api.get(f"{path}/pods", labelSelector="a=b")).json["items"]] == ["p"]
    assert [one["metadata"]["name"] for one in (await api.get(f"{path}/pods", fieldSelector="spec.nodeName=n1")).json["items"]] == ["p"]


def rule(verbs: str, resources: str, **more: Any) -> Object:
    return {"verbs": verbs.split(","), "apiGroups": [""], "resources": resources.split(","), **more}


async def write(user: As, path: str, verb: str, number: int) -> int:
    """Do one write of a kind that has been done before; return its code."""
    match verb:
        case "create":
            return (await user.post(f"{path}/configmaps", {"metadata": {"name": f"new{number}"}})).code
        case "update":
            return (await user.call("PUT", f"{path}/configmaps/old", {"metadata": {"name": "old"}, "data": {"n": str(number)}})).code
        case "patch":
            options = {"content_type": "application/merge-patch+json"}
            return (await user.call("PATCH", f"{path}/configmaps/old", {"data": {"n": str(number)}}, **options)).code
        case _:
            return (await user.call("DELETE", f"{path}/configmaps/gone{number}")).code


@pytest.mark.parametrize("verb", ["create", "update", "patch", "delete"])
def test_no_write_slips_through_after_a_revocation(verb: str) -> None:
    @with_access
    async def story(access: Access) -> None:
        path = await access.namespace()
        root, jane = access.admin, access.user("jane")
        await root.made(f"{path}/configmaps", {"metadata": {"name": "old"}})
        for number in range(3 * ROUNDS):
            await root.made(f"{path}/configmaps", {"metadata": {"name": f"gone{number}"}})
        number = 0
        for turn in range(3):
            await root.grant("jane", f"writer{turn}", rule(verb, "configmaps"), namespace="d")
            for _ in range(ROUNDS):
                assert await write(jane, path, verb, number) in (200, 201)
                number += 1
            where = f"{RBAC}/namespaces/d"
            if turn % 2:
                body = {"metadata": {"name": f"writer{turn}"}, "rules": []}
                assert (await root.call("PUT", f"{where}/roles/writer{turn}", body)).code == 200
            else:
                assert (await root.call("DELETE", f"{where}/rolebindings/writer{turn}-jane")).code == 200
            assert await write(jane, path, verb, number - 1) == 403
            assert await write(root, path, verb, number - 1) in (200, 201, 404, 409)

    story()


@with_access
async def test_a_permission_for_one_name_or_one_user_is_nobody_elses(access: Access) -> None:
    path = await access.namespace()
    only = rule("patch,delete", "configmaps", resourceNames=["one"])
    await access.admin.grant("jane", "writer", only, namespace="d")
    for name in ("one", "two"):
        await access.admin.made(f"{path}/configmaps", {"metadata": {"name": name}})
    options = {"content_type": "application/merge-patch+json"}
    for number in range(ROUNDS):
        answer = await access.user("jane").call("PATCH", f"{path}/configmaps/one", {"data": {"n": str(number)}}, **options)
        assert answer.code == 200
        assert (await access.user("jane").call("PATCH", f"{path}/configmaps/two", {"data": {"n": "x"}}, **options)).code == 403
        assert (await access.user("bob").call("PATCH", f"{path}/configmaps/one", {"data": {"n": "x"}}, **options)).code == 403
    assert (await access.user("jane").call("DELETE", f"{path}/configmaps")).code == 403
    assert (await access.user("jane").call("DELETE", f"{path}/configmaps/two")).code == 403
    assert (await access.user("jane").call("DELETE", f"{path}/configmaps/one")).code == 200
