"""Checking a body does to it what a round trip through Go's typed decoder would do."""

import orjson
import pytest

from korch._core import native
from korch.resources import openapi

POD = "io.k8s.api.core.v1.Pod"
DEPLOYMENT = "io.k8s.api.apps.v1.Deployment"
CRD = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition"


def check(schema: native.Schema, definition: str, body: object) -> tuple[dict, list[str], list[str], list[tuple[str, str]]]:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    pruned, unknown, duplicate, errors = schema.check(definition, raw)
    return orjson.loads(pruned), unknown, duplicate, errors


def test_every_definition_compiles_and_only_extensions_of_openapi_remain(schema):
    definitions = openapi.definitions()
    assert len(definitions) > 850
    assert all(schema.has(name) for name in definitions)
    assert definitions["io.k8s.api.core.v1.ConfigMap"]["properties"]["kind"]["type"] == "string"
    assert definitions[CRD.replace("CustomResourceDefinition", "JSONSchemaProps")]["properties"]["$ref"] == {"type": "string"}
    assert b'"null"' not in orjson.dumps(definitions)


def test_resources_name_scope_verbs_and_subresources(schema):
    by_name = {(one["group"], one["version"], one["plural"]): one for one in openapi.resources()}
    pods = by_name["", "v1", "pods"]
    assert pods["namespaced"]
    assert pods["verbs"] == ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    assert {"name": "eviction", "group": "policy", "version": "v1", "kind": "Eviction", "verbs": ["create"]} in pods["subresources"]
    assert not by_name["", "v1", "nodes"]["namespaced"]
    assert by_name["authorization.k8s.io", "v1", "subjectaccessreviews"]["verbs"] == ["create"]


def test_a_good_body_comes_back_compact_and_in_its_own_order(schema):
    body = b'{ "kind": "Pod", "apiVersion": "v1",\n "metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]} }'
    pruned, unknown, duplicate, errors = schema.check(POD, body)
    assert pruned == b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"},"spec":{"containers":[{"name":"c","image":"i"}]}}'
    assert (unknown, duplicate, errors) == ([], [], [])


def test_unknown_fields_are_pruned_and_reported_by_path(schema):
    body = {
        "spec": {"foo": 1, "containers": [{"name": "a"}, {"name": "b", "imagePullPolice": "x", "env": [{"nome": {"x": [1]}}]}]},
        "bar": {},
    }
    pruned, unknown, duplicate, errors = check(schema, POD, body)
    assert pruned == {"spec": {"containers": [{"name": "a"}, {"name": "b", "env": [{}]}]}}
    assert unknown == ["spec.foo", "spec.containers[1].imagePullPolice", "spec.containers[1].env[0].nome", "bar"]
    assert (duplicate, errors) == ([], [])


def test_of_duplicate_fields_the_last_wins(schema):
    body = b'{"spec":{"replicas":1,"replicas":2,"paused":true},"metadata":{"labels":{"a":"1","a":"2"}},"spec":{"replicas":3}}'
    pruned, unknown, duplicate, errors = check(schema, DEPLOYMENT, body)
    assert pruned == {"spec": {"replicas": 3}, "metadata": {"labels": {"a": "2"}}}
    assert duplicate == ["spec.replicas", "metadata.labels.a", "spec"]
    assert (unknown, errors) == ([], [])


# ruff: noqa: E501 - a table row is one line
TYPE_ERRORS = [
    (
        DEPLOYMENT,
        {"spec": {"replicas": "3"}},
        "spec.replicas",
        "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
    ),
    (
        DEPLOYMENT,
        {"spec": {"replicas": 1.5}},
        "spec.replicas",
        "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
    ),
    (
        DEPLOYMENT,
        {"spec": {"replicas": 2**31}},
        "spec.replicas",
        f"json: cannot unmarshal number {2**31} into Go struct field DeploymentSpec.spec.replicas of type int32",
    ),
    (DEPLOYMENT, {"spec": []}, "spec", "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec"),
    (
        POD,
        {"metadata": {"labels": {"a": 1}}},
        "metadata.labels.a",
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
    ),
    (
        POD,
        {"spec": {"containers": {"name": "a"}}},
        "spec.containers",
        "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
    ),
    (
        POD,
        {"spec": {"hostNetwork": "yes"}},
        "spec.hostNetwork",
        "json: cannot unmarshal string into Go struct field PodSpec.spec.hostNetwork of type bool",
    ),
    (POD, [], "", "json: cannot unmarshal array into Go value of type v1.Pod"),
    (
        POD,
        {"spec": {"containers": [{"resources": {"limits": {"cpu": "1core"}}}]}},
        "spec.containers[0].resources.limits.cpu",
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    ),
    (
        POD,
        {"metadata": {"creationTimestamp": "now"}},
        "metadata.creationTimestamp",
        'parsing time "now" as "2006-01-02T15:04:05Z07:00": cannot parse "now" as "2006"',
    ),
    ("io.k8s.api.core.v1.Secret", {"data": {"a": "!!"}}, "data.a", "illegal base64 data at input byte 0"),
    (
        POD,
        {"spec": {"containers": [{"livenessProbe": {"httpGet": {"port": True}}}]}},
        "spec.containers[0].livenessProbe.httpGet.port",
        "json: cannot unmarshal bool into Go value of type int32",
    ),
]


@pytest.mark.parametrize(("definition", "body", "path", "message"), TYPE_ERRORS)
def test_type_errors_read_as_gos(schema, definition, body, path, message):
    _, _, _, errors = check(schema, definition, body)
    assert errors == [(path, message)]


CANONICAL = [
    ({"spec": {"containers": [{"resources": {"limits": {"cpu": "1000m", "memory": "1.5Gi", "example.com/gpu": 2}}}]}},
     {"spec": {"containers": [{"resources": {"limits": {"cpu": "1", "memory": "1536Mi", "example.com/gpu": "2"}}}]}}),
    ({"metadata": {"creationTimestamp": "2024-01-01T02:00:00.5+02:00"}}, {"metadata": {"creationTimestamp": "2024-01-01T00:00:00Z"}}),
    ({"metadata": {"creationTimestamp": None, "labels": None}, "spec": {"nodeName": None}}, {"metadata": {}, "spec": {}}),
    ({"metadata": {"labels": {"a": None}, "finalizers": [None, "x"]}}, {"metadata": {"labels": {"a": ""}, "finalizers": ["", "x"]}}),
    ({"metadata": {"managedFields": [{"fieldsV1": {"f:a": {".": {}}}}]}}, {"metadata": {"managedFields": [{"fieldsV1": {"f:a": {".": {}}}}]}}),
    ({"spec": {"containers": [{"livenessProbe": {"httpGet": {"port": "http"}}}]}}, {"spec": {"containers": [{"livenessProbe": {"httpGet": {"port": "http"}}}]}}),
    (None, {}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "stored"), CANONICAL)
def test_values_take_the_form_that_upstream_stores(schema, body, stored):
    pruned, unknown, duplicate, errors = check(schema, POD, body)
    assert pruned == stored
    assert (unknown, duplicate, errors) == ([], [], [])


def test_micro_times_keep_six_decimals(schema):
    pruned, *_ = check(schema, "io.k8s.api.coordination.v1.Lease", {"spec": {"renewTime": "2024-01-01T00:00:00.1Z"}})
    assert pruned == {"spec": {"renewTime": "2024-01-01T00:00:00.100000Z"}}


def test_schemas_inside_a_custom_resource_definition_keep_their_keywords(schema):
    properties = {
        "type": {"type": "string", "$ref": "#/x", "enum": ["a", None, 1]},
        "list": {"type": "array", "items": {"type": "string", "nope": 1}},
        "open": {"type": "object", "additionalProperties": True, "x-kubernetes-preserve-unknown-fields": True},
        "with": {"default": {"any": [{"thing": None}]}, "x-kubernetes-validations": [{"rule": "self > 0", "wrong": 1}]},
    }
    body = {"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}}]}}
    pruned, unknown, _, errors = check(schema, CRD, body)
    kept = pruned["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    assert kept["type"] == properties["type"]
    assert kept["list"] == {"type": "array", "items": {"type": "string"}}
    assert kept["open"] == properties["open"]
    assert kept["with"] == {"default": {"any": [{"thing": None}]}, "x-kubernetes-validations": [{"rule": "self > 0"}]}
    assert unknown == ["spec.versions[0].schema.openAPIV3Schema.properties.with.x-kubernetes-validations[0].wrong"]
    assert errors == []


def test_a_custom_kind_is_checked_by_its_own_schema():
    custom = native.Schema(orjson.dumps({
        "example.com/v1.Widget": {
            "type": "object",
            "x-kubernetes-embedded-resource": True,
            "properties": {
                "spec": {
                    "type": "object",
                    "properties": {
                        "size": {"type": "integer"},
                        "port": {"x-kubernetes-int-or-string": True},
                        "note": {"type": "string", "nullable": True},
                        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"n": {"type": "integer"}}},
                    },
                }
            },
        }
    }))  # fmt: skip
    body = {
        "apiVersion": "example.com/v1",
        "kind": "Widget",
        "metadata": {"name": "w"},
        "spec": {"size": 1, "port": "http", "note": None, "free": {"n": 1, "x": {"y": None}}, "extra": 1},
    }
    pruned, unknown, duplicate, errors = check(custom, "example.com/v1.Widget", body)
    del body["spec"]["extra"]
    assert pruned == body
    assert (unknown, duplicate, errors) == (["spec.extra"], [], [])


def test_no_json_is_a_value_error_with_gos_message(schema):
    with pytest.raises(ValueError, match=r"^invalid character 'k' looking for beginning of value$"):
        schema.check(POD, b"kind: Pod")
    with pytest.raises(ValueError, match=r"^unexpected end of JSON input$"):
        schema.check(POD, b'{"kind":')
    with pytest.raises(ValueError, match=r"^exceeded max depth$"):
        schema.check(POD, b'{"x":' * 100_000)
    with pytest.raises(KeyError):
        schema.check("io.k8s.api.core.v1.Nope", b"{}")
