"""PodGroups and Workloads: served only when gate and version are on, and held to upstream's rules in its words."""

from __future__ import annotations

from typing import Any

import pytest

from korch.api.errors import Cause
from korch.api.features import Features, read_features
from korch.apiserver.authz.policy import default_policy
from korch.resources import catalogue
from korch.resources.core import pod
from korch.resources.resource import Context
from korch.resources.scheduling import podgroup, workload

Object = dict[str, Any]
ON = read_features(["GenericWorkload=true"], ["scheduling.k8s.io/v1beta1=true"])
GANG: Object = {"gang": {"minCount": 2}}


def group(**spec: Any) -> Object:
    return {"metadata": {"name": "g"}, "spec": {"schedulingPolicy": GANG, "disruptionMode": {"single": {}}, **spec}}


def templates(*given: Object) -> Object:
    return {"metadata": {"name": "w"}, "spec": {"podGroupTemplates": list(given)}}


def template(name: str, **more: Any) -> Object:
    return {"name": name, "schedulingPolicy": GANG, **more}


def words(causes: list[Cause]) -> list[str]:
    return [f"{one.field}: {one.message}" for one in causes]


def test_kinds_and_the_pods_field_are_there_only_when_they_are_switched_on() -> None:
    served = [bool(catalogue(one).get("scheduling.k8s.io", "v1beta1", "podgroups")) for one in (Features(), ON)]
    assert served == [False, True]
    for features, is_kept in ((Features(), False), (ON, True)):
        kind = catalogue(features).get("", "v1", "pods")
        assert kind is not None
        made: Object = {"metadata": {"name": "p"}, "spec": {"containers": [], "schedulingGroup": {"podGroupName": "g"}}}
        kind.strategy.prepare_create(made, Context(now=0.0))
        assert ("schedulingGroup" in made["spec"]) is is_kept
    assert pod.RESOURCE.plural == "pods"


def test_roles_know_the_kinds_only_when_they_are_switched_on() -> None:
    def may(features: Features, role: str) -> bool:
        found = next(obj for _, obj in default_policy(features) if obj["kind"] == "ClusterRole" and obj["metadata"]["name"] == role)
        return any("podgroups" in rule.get("resources", ()) for rule in found.get("rules") or ())

    for role in ("system:kube-scheduler", "system:aggregate-to-view", "system:aggregate-to-edit"):
        assert (may(Features(), role), may(ON, role)) == (False, True)
    assert may(ON, "system:controller:podgroup-protection-controller")


def test_fields_of_other_gates_are_dropped() -> None:
    made = group(schedulingConstraints={"topology": [{"key": "rack"}]}, preemptionPolicy="Never", parentCompositePodGroupName="c")
    podgroup.prepare_create(made, Context(now=0.0))
    assert set(made["spec"]) == {"schedulingPolicy", "disruptionMode"}
    of = templates(template("a", resourceClaims=[{"name": "x"}])) | {}
    of["spec"]["compositePodGroupTemplates"] = []
    workload.prepare_create(of, Context(now=0.0))
    assert of["spec"] == {"podGroupTemplates": [template("a")]}


@pytest.mark.parametrize(
    ("made", "wrong"),
    [
        (group(), []),
        (group(schedulingPolicy={"basic": {}}), []),
        (group(schedulingPolicy={}), ['spec.schedulingPolicy: Invalid value: "": must specify one of: `basic`, `gang`']),
        (
            group(schedulingPolicy={"basic": {}, **GANG}),
            ['spec.schedulingPolicy: Invalid value: "{basic, gang}": must specify exactly one of: `basic`, `gang`'],
        ),
        (group(schedulingPolicy={"gang": {}}), ["spec.schedulingPolicy.gang.minCount: Required value"]),
        (
            group(schedulingPolicy={"gang": {"minCount": -1}}),
            ["spec.schedulingPolicy.gang.minCount: Invalid value: -1: must be greater than or equal to 1"],
        ),
        (group(disruptionMode={}), ['spec.disruptionMode: Invalid value: "": must specify one of: `single`, `all`']),
        (group(workloadRef={"workloadName": "w"}), ["spec.workloadRef.templateName: Required value"]),
        (group(priority=2_000_000_000), ["spec.priority: Invalid value: 2000000000: must be less than or equal to 1000000000"]),
    ],
)
def test_what_is_wrong_with_a_group(made: Object, wrong: list[str]) -> None:
    assert words(podgroup.validate(made)) == wrong


@pytest.mark.parametrize(
    ("new", "wrong"),
    [
        (group(schedulingPolicy={"gang": {"minCount": 5}}), []),
        (group(schedulingPolicy={"gang": {}}), ["spec.schedulingPolicy.gang.minCount: Required value"]),
        (group(disruptionMode={"all": {}}), ['spec.disruptionMode: Invalid value: {"all":{}}: field is immutable']),
        (group(priorityClassName="high"), ['spec.priorityClassName: Invalid value: "high": field is immutable']),
        (group(schedulingPolicy={}), ["spec.schedulingPolicy.gang: Invalid value: null: field cannot be cleared once set"]),
    ],
)
def test_an_update_changes_the_size_of_a_gang_and_nothing_else(new: Object, wrong: list[str]) -> None:
    assert [one for one in words(podgroup.validate_update(new, group())) if "must specify" not in one] == wrong


@pytest.mark.parametrize(
    ("made", "wrong"),
    [
        (templates(template("a"), template("b")), []),
        (templates(), ['spec: Invalid value: "": must specify one of: `podGroupTemplates`, `compositePodGroupTemplates`']),
        (templates(template("a"), template("a")), ['spec.podGroupTemplates[1]: Duplicate value: "a"']),
        (templates(*(template(f"t{at}") for at in range(9))), ["spec.podGroupTemplates: Too many: 9: must have at most 8 items"]),
        (templates(template("a"), template("b", priority=5)), ["spec: Invalid value: null: detected multiple priority configurations"]),
        (
            {"spec": {"podGroupTemplates": [template("a")], "controllerRef": {"kind": "Job"}}},
            ["spec.controllerRef.name: Required value"],
        ),
    ],
)
def test_what_is_wrong_with_a_workload(made: Object, wrong: list[str]) -> None:
    assert words(workload.validate(made)) == wrong


def test_templates_neither_come_nor_go() -> None:
    old = templates(template("a"), template("b"))
    wrong = words(workload.validate_update(templates(template("a"), template("c")), old))
    assert wrong == [
        "spec.podGroupTemplates[1]: Forbidden: item may not be added",
        "spec.podGroupTemplates: Forbidden: item may not be removed",
    ]
    larger = templates(template("a", schedulingPolicy={"gang": {"minCount": 7}}), template("b"))
    assert workload.validate_update(larger, old) == []


@pytest.mark.parametrize(
    ("conditions", "shown"),
    [
        ([], "Pending"),
        ([{"type": "PodGroupInitiallyScheduled", "status": "False"}], "Unschedulable"),
        ([{"type": "PodGroupInitiallyScheduled", "status": "True"}], "Scheduled"),
        ([{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}], "PreemptionByScheduler"),
    ],
)
def test_the_columns_of_a_group(conditions: list[Object], shown: str) -> None:
    made = group(workloadRef={"workloadName": "w", "templateName": "t"}) | {"status": {"conditions": conditions}}
    cells = [column.value(made, 0.0) for column in podgroup.RESOURCE.columns[1:4]]
    assert cells == ["Gang", "w", shown]
