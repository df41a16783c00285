"""Reading metadata, owners and conditions of plain objects."""

from __future__ import annotations

from typing import Any

import pytest

from korch.api.conditions import condition_status, is_condition_true, remove_condition, set_condition
from korch.api.meta import at, controller_of, is_controlled_by, key_of, labels_of, object_reference, owner_reference, split_key
from korch.api.names import is_dns_1035_label, is_dns_subdomain, is_label_value, is_port_name, is_qualified_name, of_prefix
from korch.api.validation import validate_object_meta, validate_object_meta_update

Object = dict[str, Any]

OWNER: Object = {"metadata": {"name": "web", "namespace": "d", "uid": "u1"}}


def test_a_missing_a_null_and_a_wrong_step_read_alike() -> None:
    assert [at({"a": {"b": 1}}, "a", "b"), at({"a": None}, "a", "b"), at({}, "a", "b"), at({"a": 3}, "a", "b")] == [1, None, None, None]
    assert labels_of({"metadata": {"labels": None}}) == {}


def test_keys_go_both_ways() -> None:
    assert key_of(OWNER) == "d/web"
    assert key_of({"metadata": {"name": "n1"}}) == "n1"
    assert [split_key("d/web"), split_key("n1")] == [("d", "web"), ("", "n1")]


def test_the_controller_is_the_owner_that_says_so() -> None:
    reference = owner_reference(OWNER, "ReplicaSet", "apps/v1")
    assert reference == {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": "web",
        "uid": "u1",
        "controller": True,
        "blockOwnerDeletion": True,
    }
    pod = {"metadata": {"ownerReferences": [{"uid": "other"}, reference]}}
    assert controller_of(pod) == reference
    assert is_controlled_by(pod, OWNER)
    assert not is_controlled_by(pod, {"metadata": {"uid": "u2"}})
    assert controller_of({"metadata": {"ownerReferences": [{"uid": "u1"}]}}) is None


def test_an_event_refers_to_what_it_is_about() -> None:
    assert object_reference({"metadata": {"name": "n1", "uid": "u"}}, "Node", "v1") == {
        "kind": "Node",
        "apiVersion": "v1",
        "name": "n1",
        "uid": "u",
    }


def test_a_conditions_time_moves_only_with_its_status() -> None:
    status: Object = {}
    assert set_condition(status, "Ready", "False", now=1_800_000_000, reason="Starting")
    assert set_condition(status, "Ready", "False", now=1_800_000_060, reason="Pulling", message="image")
    assert status["conditions"] == [
        {"type": "Ready", "status": "False", "reason": "Pulling", "message": "image", "lastTransitionTime": "2027-01-15T08:00:00Z"}
    ]
    assert set_condition(status, "Ready", "True", now=1_800_000_120)
    assert status["conditions"] == [{"type": "Ready", "status": "True", "lastTransitionTime": "2027-01-15T08:02:00Z"}]


def test_setting_a_condition_again_is_no_change() -> None:
    status: Object = {}
    set_condition(status, "Ready", "True", now=1_800_000_000, lastProbeTime=None)
    assert not set_condition(status, "Ready", "True", now=1_800_000_060, lastHeartbeatTime="2027-01-15T08:01:00Z")
    obj = {"status": status}
    assert is_condition_true(obj, "Ready")
    assert condition_status(obj, "Other") == ""
    assert remove_condition(status, "Ready")
    assert not remove_condition(status, "Ready")


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (is_dns_subdomain, ["a", "a.b-c", "1.2"], ["", "A", "a_b", "-a", "a..b", "a" * 254]),
        (is_dns_1035_label, ["a", "a-1"], ["1a", "a.b", "a" * 64]),
        (is_qualified_name, ["app", "example.com/App_1", "A.b"], ["", "/a", "a/", "a/b/c", "Example.com/a", "a" * 64]),
        (is_label_value, ["", "a", "A_b.c-1"], ["-a", "a b", "a" * 64]),
        (is_port_name, ["http", "a1-b"], ["80", "a--b", "-a", "Http", "a" * 16]),
    ],
)
def test_names(check: Any, good: list[str], bad: list[str]) -> None:
    assert [value for value in good if check(value)] == []
    assert [value for value in bad if not check(value)] == []


def test_a_prefix_may_end_with_a_dash() -> None:
    assert of_prefix(is_dns_subdomain, "web-") == []
    assert of_prefix(is_dns_subdomain, "Web-") != []


def lines(metadata: Object, *, namespaced: bool = True) -> list[str]:
    return [cause.line() for cause in validate_object_meta({"metadata": metadata}, namespaced=namespaced)]


def test_metadata_of_a_plain_object_is_fine() -> None:
    reference = owner_reference(OWNER, "ReplicaSet", "apps/v1")
    plain = {"name": "a", "namespace": "d", "labels": {"a": ""}, "annotations": {"Example.com/A": "x" * 999}}
    assert lines(plain | {"ownerReferences": [reference], "finalizers": ["example.com/wait", "orphan"]}) == []


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"namespace": "d"}, ["metadata.name: Required value: name or generateName is required"]),
        ({"name": "a"}, ["metadata.namespace: Required value"]),
        (
            {"name": "a", "namespace": "d", "annotations": {"a": "x" * 262144}},
            ["metadata.annotations: Too long: may not be more than 262144 bytes"],
        ),
        (
            {"name": "a", "namespace": "d", "finalizers": ["mine"]},
            ['metadata.finalizers[0]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified'],
        ),
        (
            {"name": "a", "namespace": "d", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]},
            ["metadata.ownerReferences[0].uid: Required value: must not be empty"],
        ),
        (
            {"name": "a", "namespace": "d", "ownerReferences": [{"apiVersion": "a/b/c", "kind": "Pod", "name": "p", "uid": "1"}]},
            ['metadata.ownerReferences[0].apiVersion: Invalid value: "a/b/c": must be <group>/<version> or <version>'],
        ),
        ({"name": "a", "namespace": "a.b"}, ['metadata.namespace: Invalid value: "a.b": must not contain dots']),
        ({"name": "a", "namespace": "d", "generation": -1}, ["metadata.generation: Invalid value: -1: must be greater than or equal to 0"]),
    ],
)
def test_metadata_is_refused_with_upstreams_words(metadata: Object, expected: list[str]) -> None:
    assert lines(metadata) == expected


def test_a_cluster_scoped_object_has_no_namespace() -> None:
    assert lines({"name": "a", "namespace": "d"}, namespaced=False) == ["metadata.namespace: Forbidden: not allowed on this type"]


def test_identity_does_not_change_and_an_ending_object_takes_no_finalizers() -> None:
    old = {"metadata": {"name": "a", "uid": "1", "generation": 2, "deletionTimestamp": "t"}}
    new = {"metadata": {"name": "a", "uid": "2", "generation": 1, "deletionTimestamp": "t", "finalizers": ["example.com/x"]}}
    assert [cause.line() for cause in validate_object_meta_update(new, old)] == [
        'metadata.uid: Invalid value: "2": field is immutable',
        "metadata.generation: Invalid value: 1: must not be decremented",
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers "
        '[]string{"example.com/x"}',
    ]
