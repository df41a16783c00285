"""Create, get, update and delete: what is stored, what is answered, and that a refused request leaves nothing behind."""

from __future__ import annotations

import pytest
from api_exchange import Api, config_map, deployment, on_server, pod, serve


@on_server
async def test_create_answers_the_object_with_its_identity(api: Api) -> None:
    path = await api.namespace()
    answer = await api.post(f"{path}/configmaps", config_map("a", x="1"))
    assert answer.code == 201
    metadata = answer.json["metadata"]
    assert metadata["namespace"] == "d" and metadata["uid"] and metadata["creationTimestamp"].endswith("Z")
    assert int(metadata["resourceVersion"]) > 0
    assert (await api.get(f"{path}/configmaps/a")).json == answer.json


@on_server
async def test_create_of_a_name_that_is_taken_is_already_exists(api: Api) -> None:
    path = await api.namespace()
    await api.made(f"{path}/configmaps", config_map("a"))
    assert (await api.post(f"{path}/configmaps", config_map("a"))).says == (409, "AlreadyExists", 'configmaps "a" already exists')


@on_server
async def test_generate_name_gives_every_object_its_own_name(api: Api) -> None:
    path = await api.namespace()
    names = set()
    for _ in range(20):
        made = await api.made(f"{path}/configmaps", {"metadata": {"generateName": "web-"}})
        names.add(made["metadata"]["name"])
    assert len(names) == 20 and all(name.startswith("web-") and len(name) == 9 for name in names)


@on_server
async def test_what_only_the_server_decides_is_taken_from_nobody(api: Api) -> None:
    path = await api.namespace()
    body = config_map("a") | {
        "metadata": {
            "name": "a",
            "uid": "mine",
            "creationTimestamp": "2001-01-01T00:00:00Z",
            "generation": 7,
            "deletionTimestamp": "2001-01-01T00:00:00Z",
            "managedFields": [{"manager": "me"}],
        }
    }
    metadata = (await api.made(f"{path}/configmaps", body))["metadata"]
    assert metadata["uid"] != "mine" and not metadata["creationTimestamp"].startswith("2001")
    assert not {"deletionTimestamp", "generation"} & set(metadata)
    assert [one["manager"] for one in metadata["managedFields"]] == ["unknown"]


REFUSED = {
    "no name": (
        {"metadata": {}},
        422,
        "Invalid",
        'ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required',
    ),
    "other namespace": (
        {"metadata": {"name": "a", "namespace": "other"}},
        400,
        "BadRequest",
        "the namespace of the provided object does not match the namespace sent on the request",
    ),
    "other version": (
        {"apiVersion": "v2", "kind": "ConfigMap", "metadata": {"name": "a"}},
        400,
        "BadRequest",
        "the API version in the data (v2) does not match the expected API version (v1)",
    ),
    "a version that a new object cannot have": (
        {"metadata": {"name": "a", "resourceVersion": "5"}},
        400,
        "BadRequest",
        "resourceVersion should not be set on objects to be created",
    ),
    "wrong type": (
        {"metadata": {"name": "a"}, "data": {"a": 1}},
        400,
        "BadRequest",
        'ConfigMap in version "v1" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct field '
        "ConfigMap.data of type string",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_body_gets_upstreams_status_and_stores_nothing(case: str) -> None:
    body, code, reason, message = REFUSED[case]

    async def story(api: Api) -> None:
        path = await api.namespace()
        before = api.storage.revision()
        assert (await api.post(f"{path}/configmaps", body)).says == (code, reason, message)
        assert api.storage.revision() == before

    serve(story)


@on_server
async def test_a_body_that_is_no_json_is_a_bad_request(api: Api) -> None:
    path = await api.namespace()
    for body in (b"{", b"[]", b'"x"', b"\xff"):
        code, reason, _ = (await api.post(f"{path}/configmaps", body)).says
        assert (code, reason) == (400, "BadRequest")


@on_server
async def test_nothing_is_created_in_a_namespace_that_does_not_exist(api: Api) -> None:
    answer = await api.post("/api/v1/namespaces/nope/configmaps", config_map("a"))
    assert answer.says == (404, "NotFound", 'namespaces "nope" not found')


@on_server
async def test_a_label_that_is_none_is_invalid_with_a_cause(api: Api) -> None:
    path = await api.namespace()
    answer = await api.post(f"{path}/configmaps", {"metadata": {"name": "a", "labels": {"k": "not valid"}}})
    assert answer.code == 422
    assert answer.json["details"]["causes"][0]["field"] == "metadata.labels"


@on_server
async def test_update_replaces_and_moves_the_version(api: Api) -> None:
    path = await api.namespace()
    made = await api.made(f"{path}/configmaps", config_map("a", x="1"))
    answer = await api.put(f"{path}/configmaps/a", made | {"data": {"x": "2"}})
    assert answer.code == 200 and answer.json["data"] == {"x": "2"}
    assert int(answer.json["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
    assert answer.json["metadata"]["uid"] == made["metadata"]["uid"]


@on_server
async def test_update_from_an_old_version_is_a_conflict(api: Api) -> None:
    path = await api.namespace()
    made = await api.made(f"{path}/configmaps", config_map("a", x="1"))
    await api.put(f"{path}/configmaps/a", made | {"data": {"x": "2"}})
    says = (await api.put(f"{path}/configmaps/a", made | {"data": {"x": "3"}})).says
    assert says == (
        409,
        "Conflict",
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest '
        "version and try again",
    )
    assert (await api.get(f"{path}/configmaps/a")).json["data"] == {"x": "2"}


@on_server
async def test_an_update_that_changes_nothing_writes_nothing(api: Api) -> None:
    path = await api.namespace()
    made = await api.made(f"{path}/configmaps", config_map("a", x="1"))
    before = api.storage.revision()
    answer = await api.put(f"{path}/configmaps/a", made)
    assert answer.json["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    assert api.storage.revision() == before


@on_server
async def test_update_without_a_version_overwrites(api: Api) -> None:
    path = await api.namespace()
    await api.made(f"{path}/configmaps", config_map("a", x="1"))
    assert (await api.put(f"{path}/configmaps/a", config_map("a", x="2"))).json["data"] == {"x": "2"}


@on_server
async def test_update_with_another_uid_is_a_conflict(api: Api) -> None:
    path = await api.namespace()
    await api.made(f"{path}/configmaps", config_map("a"))
    answer = await api.put(f"{path}/configmaps/a", {"metadata": {"name": "a", "uid": "other"}})
    assert answer.says[:2] == (409, "Conflict") and "Precondition failed: UID in precondition: other" in answer.json["message"]


@on_server
async def test_update_of_another_name_than_the_paths_is_a_bad_request(api: Api) -> None:
    path = await api.namespace()
    await api.made(f"{path}/configmaps", config_map("a"))
    says = (await api.put(f"{path}/configmaps/a", config_map("b"))).says
    assert says == (400, "BadRequest", "the name of the object (b) does not match the name on the URL (a)")


@on_server
async def test_generation_moves_with_the_spec_and_only_with_it(api: Api) -> None:
    await api.namespace()
    path = "/apis/apps/v1/namespaces/d/deployments"
    made = await api.made(path, deployment("web"))
    assert made["metadata"]["generation"] == 1
    labelled = (await api.patch(f"{path}/web", {"metadata": {"labels": {"a": "b"}}})).json
    assert labelled["metadata"]["generation"] == 1
    scaled = (await api.patch(f"{path}/web", {"spec": {"replicas": 5}})).json
    assert scaled["metadata"]["generation"] == 2


@on_server
async def test_status_is_written_through_its_subresource_only(api: Api) -> None:
    await api.namespace()
    path = "/apis/apps/v1/namespaces/d/deployments"
    made = await api.made(path, deployment("web") | {"status": {"replicas": 9}})
    assert made["status"].get("replicas", 0) == 0
    unchanged = (await api.put(f"{path}/web", made | {"status": {"replicas": 9}})).json
    assert unchanged["status"].get("replicas", 0) == 0
    body = unchanged | {"status": {"replicas": 3}, "spec": unchanged["spec"] | {"replicas": 77}}
    written = (await api.put(f"{path}/web/status", body)).json
    assert written["status"]["replicas"] == 3 and written["spec"]["replicas"] == 1
    assert written["metadata"]["generation"] == 1


@on_server
async def test_dry_run_answers_what_would_be_and_stores_nothing(api: Api) -> None:
    path = await api.namespace()
    before = api.storage.revision()
    answer = await api.post(f"{path}/configmaps", config_map("a"), dryRun="All")
    assert answer.code == 201 and answer.json["metadata"]["uid"]
    assert (await api.get(f"{path}/configmaps/a")).code == 404
    await api.made(f"{path}/configmaps", config_map("b", x="1"))
    before = api.storage.revision()
    assert (await api.put(f"{path}/configmaps/b", config_map("b", x="2"), dryRun="All")).json["data"] == {"x": "2"}
    assert (await api.delete(f"{path}/configmaps/b", dryRun="All")).code == 200
    assert api.storage.revision() == before
    assert (await api.post(f"{path}/configmaps", config_map("b"), dryRun="All")).code == 409
    assert (await api.post(f"{path}/configmaps", config_map("c"), dryRun="Some")).says[:2] == (422, "Invalid")


@on_server
async def test_unknown_fields_are_refused_told_or_ignored_as_the_request_says(api: Api) -> None:
    path = await api.namespace()
    body = pod("p", containerss=[])
    strict = await api.post(f"{path}/pods", body, fieldValidation="Strict")
    message = 'Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.containerss"'
    assert strict.says == (400, "BadRequest", message)
    warned = await api.post(f"{path}/pods", body, fieldValidation="Warn")
    assert warned.code == 201 and warned.warnings == ['299 - "unknown field \\"spec.containerss\\""']
    ignored = await api.post(f"{path}/pods", pod("q", containerss=[]), fieldValidation="Ignore")
    assert ignored.code == 201 and not ignored.warnings and "containerss" not in ignored.json["spec"]


@on_server
async def test_a_field_given_twice_is_refused_by_strict_validation(api: Api) -> None:
    path = await api.namespace()
    body = b'{"metadata":{"name":"a"},"data":{"x":"1"},"data":{"x":"2"}}'
    says = (await api.post(f"{path}/configmaps", body, fieldValidation="Strict")).says
    assert says[0] == 400 and 'strict decoding error: duplicate field "data"' in says[2]
    assert (await api.post(f"{path}/configmaps", body)).json["data"] == {"x": "2"}


@on_server
async def test_a_put_creates_where_the_kind_allows_it(api: Api) -> None:
    await api.namespace()
    path = "/apis/coordination.k8s.io/v1/namespaces/d/leases"
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}}
    assert (await api.put(f"{path}/l", lease)).code in (200, 201)
    assert (await api.get(f"{path}/l")).json["spec"]["holderIdentity"] == "me"
    assert (await api.put("/api/v1/namespaces/d/configmaps/x", config_map("x"))).code == 404


@on_server
async def test_two_faces_of_an_event_are_one_object(api: Api) -> None:
    path = await api.namespace()
    about = {"kind": "Pod", "namespace": "d", "name": "p"}
    await api.made(
        f"{path}/events", {"metadata": {"name": "e"}, "involvedObject": about, "message": "hello", "reason": "Why", "type": "Normal"}
    )
    other = (await api.get("/apis/events.k8s.io/v1/namespaces/d/events/e")).json
    assert (other["apiVersion"], other["note"], other["regarding"]["name"]) == ("events.k8s.io/v1", "hello", "p")
    found = (await api.get(f"{path}/events", fieldSelector="involvedObject.name=p,reason=Why")).json["items"]
    assert [one["message"] for one in found] == ["hello"]
