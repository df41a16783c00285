"""Patches: RFC 7386, RFC 6902, and strategic merge with its directives."""

import orjson
import pytest

from korch.api import patch

POD = "io.k8s.api.core.v1.Pod"
DEPLOYMENT = "io.k8s.api.apps.v1.Deployment"


@pytest.mark.parametrize(
    ("target", "change", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c"], ["c"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches_follow_the_rfc(target, change, result):
    assert orjson.loads(patch.merge_patch(orjson.dumps(target), orjson.dumps(change))) == result


def containers(*items: dict) -> dict:
    return {"spec": {"containers": list(items)}}


A = {"name": "a", "image": "a:1"}
B = {"name": "b", "image": "b:1"}
PORTS = [{"containerPort": 80}, {"containerPort": 443}]

# ruff: noqa: E501 - a table row is one line
STRATEGIC = {
    "objects merge and null deletes": (
        {"metadata": {"labels": {"x": "1", "y": "2"}}},
        {"metadata": {"labels": {"x": None, "z": "3"}}},
        {"metadata": {"labels": {"y": "2", "z": "3"}}},
    ),
    "list elements merge by key": (containers(A, B), containers({"name": "b", "image": "b:2"}), containers(A, {"name": "b", "image": "b:2"})),
    "a new element comes first, as upstream orders it": (containers(A, B), containers({"name": "c"}), containers({"name": "c"}, A, B)),
    "an element is deleted by its key": (containers(A, B), containers({"name": "a", "$patch": "delete"}), containers(B)),
    "a list is replaced": (containers(A, B), containers({"$patch": "replace"}, {"name": "c"}), containers({"name": "c"})),
    "an object is replaced": (
        {"metadata": {"labels": {"x": "1"}, "name": "n"}},
        {"metadata": {"labels": {"$patch": "replace", "y": "2"}}},
        {"metadata": {"labels": {"y": "2"}, "name": "n"}},
    ),
    "an object is deleted": ({"spec": {"securityContext": {"runAsUser": 1}}}, {"spec": {"securityContext": {"$patch": "delete"}}}, {"spec": {"securityContext": {}}}),
    "nested lists merge by their own key": (
        containers({**A, "ports": PORTS}),
        containers({"name": "a", "ports": [{"containerPort": 443, "name": "tls"}]}),
        containers({**A, "ports": [{"containerPort": 80}, {"containerPort": 443, "name": "tls"}]}),
    ),
    "a list without a strategy is replaced": (
        containers({**A, "args": ["x", "y"]}),
        containers({"name": "a", "args": ["z"]}),
        containers({**A, "args": ["z"]}),
    ),
    "scalars merge as a set": (
        {"metadata": {"finalizers": ["a", "b"]}},
        {"metadata": {"finalizers": ["b", "c"]}},
        {"metadata": {"finalizers": ["a", "b", "c"]}},
    ),
    "scalars are deleted from a list": (
        {"metadata": {"finalizers": ["a", "b", "c"]}},
        {"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"]}},
        {"metadata": {"finalizers": ["a", "c"]}},
    ),
    "scalars are deleted and ordered at once": (
        {"metadata": {"finalizers": ["a", "b", "c"]}},
        {"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"], "finalizers": ["d"], "$setElementOrder/finalizers": ["d", "c", "a"]}},
        {"metadata": {"finalizers": ["d", "c", "a"]}},
    ),
    "order is set": (
        containers(A, B),
        {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}},
        containers(B, A),
    ),
    "order is set and the server's own element keeps its place": (
        containers(A, {"name": "sidecar"}, B),
        {"spec": {"$setElementOrder/containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}], "containers": [{"name": "c"}]}},
        containers(A, {"name": "sidecar"}, B, {"name": "c"}),
    ),
    "order comes with a deletion": (
        containers(A, B),
        {"spec": {"$setElementOrder/containers": [{"name": "b"}], "containers": [{"$patch": "delete", "name": "a"}]}},
        containers(B),
    ),
    "retained keys drop the others": (
        {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}},
        {"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}},
        {"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}},
    ),
    "what is new loses its directives and nulls": (
        {"metadata": {}},
        {"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a", "image": None, "$retainKeys": ["name"]}], "nodeName": None}},
        {"metadata": {}, "spec": {"containers": [{"name": "a"}]}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", STRATEGIC)
def test_strategic_merge(schema, case):
    target, change, result = STRATEGIC[case]
    assert orjson.loads(patch.strategic_merge_patch(orjson.dumps(target), orjson.dumps(change), POD, schema)) == result


def test_a_deployment_changes_its_strategy_with_retained_keys(schema):
    target = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    change = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    result = patch.strategic_merge_patch(orjson.dumps(target), orjson.dumps(change), DEPLOYMENT, schema)
    assert orjson.loads(result) == {"spec": {"strategy": {"type": "Recreate"}}}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (b"{", patch.MalformedPatch),
        (b"[]", patch.MalformedPatch),
        (b'{"metadata":{"$patch":"grow"}}', patch.MalformedPatch),
        (b'{"spec":{"$retainKeys":["x"],"nodeName":"n"}}', patch.MalformedPatch),
        (
            b'{"spec":{"$setElementOrder/containers":[{"name":"b"},{"name":"a"}],"containers":[{"name":"a"},{"name":"b"}]}}',
            patch.MalformedPatch,
        ),
        (b'{"spec":{"containers":[{"image":"x"}]}}', patch.UnprocessablePatch),
        (b'{"spec":{"containers":["x"]}}', patch.UnprocessablePatch),
    ],
)
def test_strategic_patches_that_cannot_be(schema, change, error):
    with pytest.raises(error):
        patch.strategic_merge_patch(orjson.dumps(containers(A) | {"metadata": {}}), change, POD, schema)


def test_json_patches_apply_all_operations():
    operations = [
        {"op": "test", "path": "/a", "value": 1},
        {"op": "add", "path": "/list/-", "value": "z"},
        {"op": "move", "from": "/a", "path": "/b~1c"},
        {"op": "remove", "path": "/gone"},
    ]
    result = patch.json_patch(orjson.dumps({"a": 1, "list": ["x"], "gone": None}), orjson.dumps(operations))
    assert orjson.loads(result) == {"list": ["x", "z"], "b/c": 1}


@pytest.mark.parametrize(
    ("operations", "error"),
    [
        ([{"op": "test", "path": "/a", "value": 2}], patch.UnprocessablePatch),
        ([{"op": "remove", "path": "/missing"}], patch.UnprocessablePatch),
        ([{"op": "replace", "path": "/missing/deeper", "value": 1}], patch.UnprocessablePatch),
        ([{"op": "add", "path": "/list/9", "value": 1}], patch.UnprocessablePatch),
        ([{"op": "frobnicate", "path": "/a"}], patch.MalformedPatch),
        ({"a": 1}, patch.MalformedPatch),
        ([1], patch.MalformedPatch),
        ([{"op": "test", "path": "/a", "value": 1}] * 10_001, patch.MalformedPatch),
    ],
)
def test_json_patches_that_cannot_be(operations, error):
    with pytest.raises(error):
        patch.json_patch(b'{"a":1,"list":[]}', orjson.dumps(operations))


def test_a_failed_test_is_told_in_upstreams_words():
    with pytest.raises(patch.UnprocessablePatch) as caught:
        patch.json_patch(b'{"a":1}', b'[{"op":"test","path":"/a","value":2}]')
    assert str(caught.value) == "the server rejected our request due to an error in our request"
