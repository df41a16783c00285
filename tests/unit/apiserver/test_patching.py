"""The three patches, on objects and on subresources, and what a patch cannot do."""

from __future__ import annotations

import asyncio

from api_exchange import Api, config_map, deployment, on_server, pod


@on_server
async def test_each_patch_changes_what_it_names_and_nothing_else(api: Api) -> None:
    path = await api.namespace()
    await api.made(f"{path}/configmaps", config_map("a", x="1", y="2"))
    target = f"{path}/configmaps/a"
    assert (await api.patch(target, {"data": {"x": None, "z": "3"}})).json["data"] == {"y": "2", "z": "3"}
    json_patch = [{"op": "test", "path": "/data/y", "value": "2"}, {"op": "replace", "path": "/data/y", "value": "4"}]
    assert (await api.patch(target, json_patch, "json-patch")).json["data"] == {"y": "4", "z": "3"}


@on_server
async def test_a_strategic_merge_patch_finds_list_items_by_their_key(api: Api) -> None:
    await api.namespace()
    path = "/apis/apps/v1/namespaces/d/deployments"
    await api.made(path, deployment("web"))
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "side:1"}]}}}}
    answer = await api.patch(f"{path}/web", patch, "strategic-merge-patch")
    names = [one["name"] for one in answer.json["spec"]["template"]["spec"]["containers"]]
    assert sorted(names) == ["c", "side"]


@on_server
async def test_a_json_patch_whose_test_fails_changes_nothing(api: Api) -> None:
    path = await api.namespace()
    await api.made(f"{path}/configmaps", config_map("a", x="1"))
    patch = [{"op": "test", "path": "/data/x", "value": "other"}, {"op": "remove", "path": "/data/x"}]
    assert (await api.patch(f"{path}/configmaps/a", patch, "json-patch")).code == 422
    assert (await api.get(f"{path}/configmaps/a")).json["data"] == {"x": "1"}


@on_server
async def test_other_patch_types_are_unsupported(api: Api) -> None:
    path = await api.namespace()
    await api.made(f"{path}/configmaps", config_map("a"))
    says = (await api.call("PATCH", f"{path}/configmaps/a", {}, content_type="application/apply-patch+cbor")).says
    assert says == (
        415,
        "UnsupportedMediaType",
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, "
        "application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
    )


@on_server
async def test_a_patch_that_breaks_the_schema_is_invalid(api: Api) -> None:
    await api.namespace()
    path = "/apis/apps/v1/namespaces/d/deployments"
    await api.made(path, deployment("web"))
    code, reason, message = (await api.patch(f"{path}/web", {"spec": {"replicas": "many"}})).says
    assert (code, reason) == (422, "Invalid") and "cannot unmarshal string" in message
    says = (await api.patch(f"{path}/web", {"spec": {"foo": 1}}, fieldValidation="Strict")).says
    assert says[0] == 422 and 'strict decoding error: unknown field "spec.foo"' in says[2]


@on_server
async def test_a_patch_may_name_the_version_it_was_made_from(api: Api) -> None:
    path = await api.namespace()
    made = await api.made(f"{path}/configmaps", config_map("a", x="1"))
    await api.patch(f"{path}/configmaps/a", {"data": {"x": "2"}})
    stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"x": "3"}}
    assert (await api.patch(f"{path}/configmaps/a", stale)).says[:2] == (409, "Conflict")


@on_server
async def test_patches_in_flight_together_all_happen(api: Api) -> None:
    path = await api.namespace()
    await api.made(f"{path}/configmaps", config_map("a"))
    keys = [f"k{number}" for number in range(20)]
    answers = await asyncio.gather(*(api.patch(f"{path}/configmaps/a", {"data": {key: "1"}}) for key in keys))
    assert {answer.code for answer in answers} == {200}
    assert sorted((await api.get(f"{path}/configmaps/a")).json["data"]) == sorted(keys)


@on_server
async def test_a_patch_of_status_touches_status_and_annotations_only(api: Api) -> None:
    path = await api.namespace()
    await api.made(f"{path}/pods", pod("p"))
    patch = {"metadata": {"annotations": {"a": "b"}}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}}
    patched = (await api.patch(f"{path}/pods/p/status", patch, "strategic-merge-patch")).json
    assert patched["status"]["phase"] == "Running" and "nodeName" not in patched["spec"]
    assert patched["metadata"]["annotations"] == {"a": "b"}


@on_server
async def test_a_patch_of_nothing_is_not_found(api: Api) -> None:
    path = await api.namespace()
    assert (await api.patch(f"{path}/configmaps/a", {})).says == (404, "NotFound", 'configmaps "a" not found')


@on_server
async def test_what_is_no_patch_is_a_bad_request(api: Api) -> None:
    path = await api.namespace()
    await api.made(f"{path}/configmaps", config_map("a"))
    for kind, body in (("merge-patch", b"["), ("json-patch", b"{}"), ("strategic-merge-patch", b"nope")):
        assert (await api.patch(f"{path}/configmaps/a", body, kind)).says[:2] == (400, "BadRequest")


@on_server
async def test_a_json_patch_of_too_many_operations_is_too_large(api: Api) -> None:
    path = await api.namespace()
    await api.made(f"{path}/configmaps", config_map("a"))
    long = [{"op": "add", "path": "/data", "value": {}}] * 10_001
    says = (await api.patch(f"{path}/configmaps/a", long, "json-patch")).says
    assert says == (413, "RequestEntityTooLarge", "The allowed maximum operations in a JSON patch is 10000, got 10001")


@on_server
async def test_deep_bodies_and_odd_numbers_are_bad_requests(api: Api) -> None:
    path = await api.namespace()
    await api.made(f"{path}/configmaps", config_map("a"))
    deep = b'{"data":' * 5_000 + b"1" + b"}" * 5_000
    assert (await api.post(f"{path}/configmaps", deep)).says == (400, "BadRequest", "exceeded max depth")
    code, reason, message = (await api.get(f"{path}/configmaps", limit="99999999999999999999")).says
    assert (code, reason) == (400, "BadRequest") and message.endswith('parsing "99999999999999999999": value out of range')
    code, reason, _ = (await api.delete(f"{path}/configmaps/a", {"kind": "DeleteOptions", "preconditions": []})).says
    assert (code, reason) == (400, "BadRequest")
    assert (await api.get(f"{path}/configmaps/a")).code == 200
