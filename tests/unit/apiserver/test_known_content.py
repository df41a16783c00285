"""What is known by its content is what it would be anew: pods of one spec, changes of metadata alone, custom objects of one spec."""

from __future__ import annotations

from typing import Any

import pytest
from api_exchange import Api, on_server, pod
from test_custom_kinds import declaration, declared, widget

Object = dict[str, Any]
PLURALS = "/apis/{}/v1/{}"
# Times enough for what was sent to be known.
TIMES = 4
SPECS: list[Object] = [
    {},
    {"priorityClassName": "system-node-critical", "tolerations": [{"operator": "Exists"}]},
    {"automountServiceAccountToken": False, "hostNetwork": True, "nodeName": "n"},
    {"schedulingGates": [{"name": "example.com/gate"}]},
    {"initContainers": [{"name": "i", "image": "i"}], "volumes": [{"name": "v", "emptyDir": {}}]},
]


def shown(obj: Object) -> Object:
    """What pods of one spec have in common."""
    metadata = {key: value for key, value in obj["metadata"].items() if key not in ("name", "uid", "resourceVersion", "labels")}
    volume = next((one["name"] for one in obj["spec"].get("volumes", ()) if one["name"].startswith("kube-api-access-")), "token")
    return eval(repr({**obj, "metadata": metadata}).replace(volume, "token"))


async def several(api: Api, path: str, **spec: Any) -> list[Object]:
    return [await api.made(f"{path}/pods", pod(f"p{number}", **spec)) for number in range(TIMES)]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_pods_of_one_spec_are_stored_alike(spec: Object) -> None:
    @on_server
    async def story(api: Api) -> None:
        path = await api.namespace()
        made = await several(api, path, **spec)
        first, *others = [shown(one) for one in made]
        assert others == [first] * (TIMES - 1)
        names = {volume["name"] for one in made for volume in one["spec"].get("volumes", ()) if volume["name"].startswith("kube-api")}
        assert len(names) == (0 if spec.get("automountServiceAccountToken") is False else TIMES)
        for label in ("spec.nodeName=n", "spec.schedulerName=default-scheduler", "status.phase=Pending"):
            found = (await api.get(f"{path}/pods", fieldSelector=label)).json["items"]
            assert len(found) == (0 if label == "spec.nodeName=n" and "nodeName" not in spec else TIMES)

    story()


@on_server
async def test_what_admission_rests_on_is_looked_at_for_every_pod(api: Api) -> None:
    path = await api.namespace()
    await several(api, path)
    limits = {"limits": [{"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m"}}]}
    await api.made(f"{path}/limitranges", {"metadata": {"name": "l"}, "spec": limits})
    limited = await api.made(f"{path}/pods", pod("limited"))
    assert limited["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}}
    assert limited["status"]["qosClass"] == "Burstable"
    await api.delete(f"{path}/limitranges/l")
    urgent = {"metadata": {"name": "urgent"}, "value": 7, "globalDefault": True}
    await api.made(PLURALS.format("scheduling.k8s.io", "priorityclasses"), urgent)
    assert (await api.made(f"{path}/pods", pod("urgent")))["spec"]["priority"] == 7
    await api.patch(f"{path}/serviceaccounts/default", {"automountServiceAccountToken": False})
    assert "volumes" not in (await api.made(f"{path}/pods", pod("without-token")))["spec"]
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}}
    await api.made(f"{path}/resourcequotas", quota)
    assert (await api.post(f"{path}/pods", pod("one-too-many"))).code == 403
    await api.delete(f"{path}/resourcequotas/q")
    await api.patch("/api/v1/namespaces/d", {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}})
    refused = await api.post(f"{path}/pods", pod("insecure"))
    assert refused.code == 403 and "violates PodSecurity" in refused.json["message"]
    await api.delete(f"{path}/serviceaccounts/default")
    await api.patch("/api/v1/namespaces/d", {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": None}}})
    missing = await api.post(f"{path}/pods", pod("nobody"))
    assert missing.code == 403 and 'serviceaccount "default" not found' in missing.json["message"]


@on_server
async def test_what_is_wrong_with_the_rest_of_a_pod_is_told_however_well_its_spec_is_known(api: Api) -> None:
    path = await api.namespace()
    await several(api, path)
    wrong = pod("p") | {"colour": "red"}
    wrong["metadata"]["labels"] = {"a": "not valid"}
    refused = await api.post(f"{path}/pods", wrong)
    assert refused.code == 422 and "metadata.labels" in refused.json["message"]
    strict = await api.post(f"{path}/pods", pod("q") | {"colour": "red"}, fieldValidation="Strict")
    assert strict.code == 400 and 'strict decoding error: unknown field "colour"' in strict.json["message"]
    taken = await api.post(f"{path}/pods", pod("p0"))
    assert taken.says == (409, "AlreadyExists", 'pods "p0" already exists')
    generated = pod("")
    generated["metadata"] = {"generateName": "web-"}
    names = {(await api.made(f"{path}/pods", generated))["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3


def managers(obj: Object) -> list[tuple[str, str, Object]]:
    return [(one["manager"], one["operation"], one["fieldsV1"]) for one in obj["metadata"]["managedFields"]]


def without_times(obj: Object) -> Object:
    metadata = {key: value for key, value in obj["metadata"].items() if key not in ("uid", "name", "resourceVersion", "managedFields")}
    return shown({**obj, "metadata": metadata})


@on_server
async def test_metadata_changes_alike_whether_or_not_the_rest_is_read(api: Api) -> None:
    path = await api.namespace()
    await several(api, path)
    changes: list[Object] = [
        {"labels": {"a": "1"}, "annotations": {"n": "x"}},
        {"labels": {"a": None, "b": "2"}, "finalizers": ["example.com/f"]},
        {"annotations": None},
    ]
    for change in changes:
        for kind in ("merge-patch", "strategic-merge-patch"):
            answers = [await api.patch(f"{path}/pods/p{n}", {"metadata": change}, kind, fieldManager="m") for n in range(TIMES)]
            assert [one.code for one in answers] == [200] * TIMES
            first, *others = [one.json for one in answers]
            assert [managers(one) for one in others] == [managers(first)] * (TIMES - 1)
            assert [without_times(one) for one in others] == [without_times(first)] * (TIMES - 1)
    assert {one["metadata"]["name"] for one in (await api.get(f"{path}/pods", labelSelector="b=2")).json["items"]} == {
        "p0",
        "p1",
        "p2",
        "p3",
    }
    wrong = await api.patch(f"{path}/pods/p3", {"metadata": {"labels": {"a": "not valid"}}})
    assert wrong.code == 422 and "metadata.labels" in wrong.json["message"]
    stale = await api.patch(f"{path}/pods/p3", {"metadata": {"resourceVersion": "1", "labels": {"c": "1"}}})
    assert stale.code == 409
    other = await api.patch(f"{path}/pods/p3", {"metadata": {"name": "q"}})
    assert other.code in (400, 422)
    await api.delete(f"{path}/pods/p3", gracePeriodSeconds="0")
    assert (await api.get(f"{path}/pods/p3")).json["metadata"]["deletionTimestamp"]
    await api.patch(f"{path}/pods/p3", {"metadata": {"finalizers": None}})
    assert (await api.get(f"{path}/pods/p3")).code == 404


@on_server
async def test_applying_is_the_same_whether_or_not_the_spec_is_read(api: Api) -> None:
    path = await api.namespace()
    await several(api, path)

    async def applied(note: str, **spec: Any) -> list[Object]:
        found: list[Object] = []
        for number in range(TIMES):
            config = pod(f"p{number}", **spec)
            config["metadata"]["annotations"] = {"note": note}
            answer = await api.apply(f"{path}/pods/p{number}", config, manager="one")
            assert answer.code == 200, answer.body
            found.append(answer.json)
        return found

    for note in ("x", "y", "y"):
        first, *others = await applied(note)
        assert [managers(one) for one in others] == [managers(first)] * (TIMES - 1)
        assert [without_times(one) for one in others] == [without_times(first)] * (TIMES - 1)
        assert "f:spec" in next(fields for name, _, fields in managers(first) if name == "one")
    config = pod("p0")
    config["metadata"]["annotations"] = {"note": "z"}
    disputed = await api.apply(f"{path}/pods/p0", config, manager="two")
    assert disputed.code == 409 and '"one"' in disputed.json["message"]
    changed = pod("p1")
    changed["spec"]["containers"][0]["image"] = "registry.test/c:2"
    answer = await api.apply(f"{path}/pods/p1", changed, manager="one", force="true")
    assert answer.json["spec"]["containers"][0]["image"] == "registry.test/c:2"
    assert "note" not in answer.json["metadata"].get("annotations", {})
    less = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p2"}}
    left = await api.apply(f"{path}/pods/p2", less, manager="one")
    assert left.code == 200 and not any(name == "one" for name, _, _ in managers(left.json))
    assert left.json["spec"]["containers"][0]["image"] == "registry.test/c:1"


@on_server
async def test_custom_objects_with_known_members_are_pruned_defaulted_and_judged_alike(api: Api) -> None:
    path = await declared(api)
    made = [await api.made(path, widget(f"w{number}")) for number in range(TIMES)]
    assert [one["spec"] for one in made] == [{"image": "a", "note": "none", "replicas": 1}] * TIMES
    strange = [(await api.post(path, widget(f"s{number}", colour="red"))) for number in range(TIMES)]
    assert [one.warnings for one in strange] == [['299 - "unknown field \\"spec.colour\\""']] * TIMES
    wrong = [(await api.post(path, widget(f"x{number}", image="A"))).json["message"] for number in range(TIMES)]
    assert len({message.replace(f'"x{number}"', "") for number, message in enumerate(wrong)}) == 1
    known = widget("w9") | {"colour": "red"}
    assert (await api.post(path, known)).warnings == ['299 - "unknown field \\"colour\\""']


@on_server
async def test_a_rule_about_the_metadata_is_asked_for_every_object(api: Api) -> None:
    crd = declaration()
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["x-kubernetes-validations"] = [{"rule": "self.metadata.name.startsWith('w')", "message": "must begin with w"}]
    path = await declared(api, crd)
    for number in range(TIMES):
        await api.made(path, widget(f"w{number}"))
    refused = await api.post(path, widget("x"))
    assert refused.code == 422 and "must begin with w" in refused.json["message"]
