"""The published schema: what kubectl reads from it, and how it is sent."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from korch.apiserver.openapi import OpenAPI
from korch.resources import catalogue, openapi
from korch.resources.resource import Catalogue, Resource


@pytest.fixture(scope="module")
def served() -> OpenAPI:
    if not openapi.SCHEMA_PATH.exists():
        from korch.resources import build_schema

        build_schema.build()
    return OpenAPI(catalogue())


def get(served: OpenAPI, path: str, **request: str) -> Any:
    answer = served.answer(path, **request)
    assert answer is not None
    assert answer.status == 200, answer
    return orjson.loads(answer.body)


def references(value: Any) -> set[str]:
    """Return every $ref below `value`; a property that is named $ref holds a map, never text."""
    if isinstance(value, list):
        return set().union(*(references(one) for one in value)) if value else set()
    if not isinstance(value, dict):
        return set()
    own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
    return own.union(*(references(one) for one in value.values()))


def test_the_root_names_a_document_for_every_group_version(served: OpenAPI) -> None:
    paths = get(served, "/openapi/v3")["paths"]
    assert set(paths) == {one.ref.path().strip("/").rpartition("/")[0] for one in catalogue().all()}
    assert all(one["serverRelativeURL"].startswith(f"/openapi/v3/{name}?hash=") for name, one in paths.items())


@pytest.mark.parametrize(
    "group_version", ["api/v1", "apis/apps/v1", "apis/batch/v1", "apis/events.k8s.io/v1", "apis/authorization.k8s.io/v1"]
)
def test_a_document_refers_only_to_schemas_that_it_holds(served: OpenAPI, group_version: str) -> None:
    document = get(served, f"/openapi/v3/{group_version}")
    held = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= held
    assert references(document["paths"]) != set()


def test_a_reference_stands_alone_or_in_all_of(served: OpenAPI) -> None:
    pod = get(served, "/openapi/v3/api/v1")["components"]["schemas"]["io.k8s.api.core.v1.Pod"]
    assert pod["properties"]["spec"]["allOf"] == [{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}]
    assert pod["x-kubernetes-group-version-kind"] == [{"group": "", "kind": "Pod", "version": "v1"}]


def test_merge_keys_carry_their_defaults(served: OpenAPI) -> None:
    schemas = get(served, "/openapi/v3/api/v1")["components"]["schemas"]
    assert schemas["io.k8s.api.core.v1.ContainerPort"]["properties"]["protocol"]["default"] == "TCP"
    containers = schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]
    assert (containers["x-kubernetes-patch-merge-key"], containers["x-kubernetes-patch-strategy"]) == ("name", "merge")
    assert schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["oneOf"] == [{"type": "integer"}, {"type": "string"}]


def test_patch_says_what_kubectl_looks_for(served: OpenAPI) -> None:
    path = get(served, "/openapi/v3/apis/apps/v1")["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]
    patch = path["patch"]
    assert patch["x-kubernetes-group-version-kind"] == {"group": "apps", "kind": "Deployment", "version": "v1"}
    assert patch["x-kubernetes-action"] == "patch"
    assert {"application/apply-patch+yaml", "application/strategic-merge-patch+json"} <= set(patch["requestBody"]["content"])
    assert {"dryRun", "fieldManager", "fieldValidation", "force"} == {one["name"] for one in patch["parameters"]}
    assert [one["name"] for one in path["parameters"]] == ["name", "namespace", "pretty"]


@pytest.mark.parametrize(
    ("path", "method", "operation"),
    [
        ("/api/v1/namespaces/{namespace}/pods", "get", "listCoreV1NamespacedPod"),
        ("/api/v1/pods", "get", "listCoreV1PodForAllNamespaces"),
        ("/api/v1/namespaces/{namespace}/pods", "delete", "deleteCoreV1CollectionNamespacedPod"),
        ("/api/v1/namespaces/{namespace}/pods/{name}", "put", "replaceCoreV1NamespacedPod"),
        ("/api/v1/namespaces/{namespace}/pods/{name}/status", "patch", "patchCoreV1NamespacedPodStatus"),
        ("/api/v1/namespaces/{namespace}/pods/{name}/exec", "post", "connectCreateCoreV1NamespacedPodExec"),
        ("/api/v1/nodes/{name}", "get", "readCoreV1Node"),
    ],
)
def test_operations_have_names(served: OpenAPI, path: str, method: str, operation: str) -> None:
    assert get(served, "/openapi/v3/api/v1")["paths"][path][method]["operationId"] == operation


def test_operation_names_are_unique(served: OpenAPI) -> None:
    paths = get(served, "/openapi/v3/api/v1")["paths"]
    names = [operation["operationId"] for item in paths.values() for verb, operation in item.items() if verb != "parameters"]
    assert len(names) == len(set(names))


def test_a_subresource_has_the_kind_of_its_body(served: OpenAPI) -> None:
    paths = get(served, "/openapi/v3/api/v1")["paths"]
    eviction = paths["/api/v1/namespaces/{namespace}/pods/{name}/eviction"]["post"]
    assert eviction["x-kubernetes-group-version-kind"] == {"group": "policy", "kind": "Eviction", "version": "v1"}
    schema = eviction["requestBody"]["content"]["*/*"]["schema"]
    assert schema == {"$ref": "#/components/schemas/io.k8s.api.policy.v1.Eviction"}


def test_v2_holds_everything_in_its_own_form(served: OpenAPI) -> None:
    document = get(served, "/openapi/v2")
    assert document["swagger"] == "2.0"
    assert references(document) <= {f"#/definitions/{name}" for name in document["definitions"]}
    create = document["paths"]["/api/v1/namespaces/{namespace}/pods"]["post"]
    assert create["parameters"][-1] == {
        "name": "body",
        "in": "body",
        "required": True,
        "schema": {"$ref": "#/definitions/io.k8s.api.core.v1.Pod"},
    }
    assert create["responses"]["201"]["schema"] == {"$ref": "#/definitions/io.k8s.api.core.v1.Pod"}


def test_a_document_asked_for_by_its_hash_may_be_kept_for_ever(served: OpenAPI) -> None:
    url = get(served, "/openapi/v3")["paths"]["apis/apps/v1"]["serverRelativeURL"]
    path, _, query = url.partition("?")
    by_hash = served.answer(path, query=query)
    assert by_hash is not None
    assert "immutable" in by_hash.headers["Cache-Control"]
    stale = served.answer(path, query="hash=0")
    assert stale is not None
    assert (stale.status, stale.headers["Location"]) == (301, url)
    known = served.answer("/openapi/v2", if_none_match=(served.answer("/openapi/v2") or by_hash).headers["ETag"])
    assert known is not None
    assert known.status == 304


@pytest.mark.parametrize("path", ["/openapi/v2", "/openapi/v3", "/openapi/v3/api/v1"])
def test_what_is_not_served_is_refused(served: OpenAPI, path: str) -> None:
    refused = served.answer(path, accept="application/com.github.proto-openapi.spec.v3@v1.0+protobuf")
    assert refused is not None
    assert (refused.status, refused.body, refused.headers["Vary"]) == (406, b"406 Not Acceptable", "Accept")
    mixed = served.answer(path, accept="application/com.github.proto-openapi.spec.v3@v1.0+protobuf, application/json")
    assert mixed is not None
    assert (mixed.status, mixed.headers["Content-Type"]) == (200, "application/json")


def test_a_group_version_that_nobody_serves_is_not_found(served: OpenAPI) -> None:
    assert served.answer("/openapi/v3/apis/nowhere/v1") is None


def test_a_custom_kind_is_published_without_strategic_merge() -> None:
    name = "com.example.v1.Thing"
    definitions = openapi.definitions() | {name: {"type": "object", "properties": {"size": {"type": "integer"}}}}
    kinds = Catalogue([Resource(group="example.com", version="v1", kind="Thing", plural="things", schema=name)])
    served = OpenAPI(kinds, lambda: definitions)
    document = get(served, "/openapi/v3/apis/example.com/v1")
    patch = document["paths"]["/apis/example.com/v1/namespaces/{namespace}/things/{name}"]["patch"]
    assert "application/strategic-merge-patch+json" not in patch["requestBody"]["content"]
    assert document["components"]["schemas"][name]["properties"] == {"size": {"type": "integer"}}
    before = get(served, "/openapi/v3")
    definitions[name] = {"type": "object"}
    kinds.add(kinds.all()[0])
    assert get(served, "/openapi/v3") != before
