"""What a new object starts with: status, labels, selectors that the server decides."""

from __future__ import annotations

from typing import Any

import pytest

Object = dict[str, Any]


def pod(**resources: Any) -> Object:
    return {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "i", "resources": resources}]}}


@pytest.mark.parametrize(
    ("resources", "qos"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "0"}}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
        ({"limits": {"example.com/gpu": "1"}}, "BestEffort"),
    ],
)
def test_a_pod_starts_pending_with_the_quality_that_its_resources_give(kind: Any, resources: Object, qos: str) -> None:
    given = pod(**resources) | {"status": {"phase": "Running", "podIP": "10.0.0.1"}}
    assert kind("Pod").create(given)[0]["status"] == {"phase": "Pending", "qosClass": qos}


def test_a_gated_pod_says_that_it_is_held_back(kind: Any) -> None:
    gated = pod()
    gated["spec"]["schedulingGates"] = [{"name": "example.com/wait"}]
    conditions = kind("Pod").create(gated)[0]["status"]["conditions"]
    assert conditions == [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }
    ]


def test_a_namespace_starts_active_named_by_a_label_and_held_by_the_finalizer(kind: Any) -> None:
    stored, problems = kind("Namespace").create({"metadata": {"name": "team", "labels": {"a": "b"}}, "status": {"phase": "Terminating"}})
    assert problems == []
    assert stored["metadata"]["labels"] == {"a": "b", "kubernetes.io/metadata.name": "team"}
    assert stored["spec"] == {"finalizers": ["kubernetes"]}
    assert stored["status"] == {"phase": "Active"}


def test_an_update_cannot_take_a_namespaces_finalizer_away(kind: Any) -> None:
    old = kind("Namespace").create({"metadata": {"name": "team"}})[0]
    assert kind("Namespace").update({"metadata": {"name": "team"}, "spec": {}}, old)[0]["spec"] == {"finalizers": ["kubernetes"]}


JOB: Object = {
    "metadata": {"name": "j"},
    "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "i"}]}}},
}
JOB_LABELS = {
    "controller-uid": "uid-1",
    "job-name": "j",
    "batch.kubernetes.io/controller-uid": "uid-1",
    "batch.kubernetes.io/job-name": "j",
}


def test_a_job_gets_labels_and_a_selector_of_its_own(kind: Any) -> None:
    stored, problems = kind("Job", "batch").create(JOB)
    assert problems == []
    assert stored["spec"]["template"]["metadata"]["labels"] == JOB_LABELS
    assert stored["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "uid-1"}}


def test_a_job_may_select_for_itself(kind: Any) -> None:
    template = JOB["spec"]["template"] | {"metadata": {"labels": {"mine": "yes"}}}
    spec = {"manualSelector": True, "selector": {"matchLabels": {"mine": "yes"}}, "template": template}
    stored, problems = kind("Job", "batch").create({"metadata": {"name": "j"}, "spec": spec})
    assert problems == []
    assert stored["spec"]["template"]["metadata"]["labels"] == {"mine": "yes"}


def test_a_job_refuses_labels_of_another(kind: Any) -> None:
    template = JOB["spec"]["template"] | {"metadata": {"labels": {"controller-uid": "other"}}}
    problems = kind("Job", "batch").problems({"metadata": {"name": "j"}, "spec": {"template": template}})
    assert any("spec.template.metadata.labels[controller-uid]" in line and "must be 'uid-1'" in line for line in problems)


def test_a_service_starts_without_a_balancer(kind: Any) -> None:
    stored, _ = kind("Service").create({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}, "status": {"loadBalancer": {"x": 1}}})
    assert stored["status"] == {"loadBalancer": {}}


@pytest.mark.parametrize(
    ("node", "phase", "at_once"), [("", "Pending", True), ("n1", "Running", False), ("n1", "Succeeded", True), ("n1", "Failed", True)]
)
def test_only_a_pod_that_may_be_running_is_deleted_gracefully(kind: Any, node: str, phase: str, at_once: bool) -> None:
    strategy = kind("Pod").strategy
    assert strategy.is_deleted_at_once is not None
    assert strategy.is_deleted_at_once({"spec": {"nodeName": node}, "status": {"phase": phase}}) is at_once


def test_the_grace_period_is_the_pods(kind: Any) -> None:
    grace = kind("Pod").strategy.default_grace_period_s
    assert grace is not None
    assert [grace({"spec": spec}) for spec in ({}, {"terminationGracePeriodSeconds": 0}, {"terminationGracePeriodSeconds": 7})] == [
        30,
        0,
        7,
    ]
