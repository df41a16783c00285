"""What a field means when nobody wrote it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

Object = dict[str, Any]

CONTAINER = {"name": "a", "image": "nginx"}
DEFAULT_CONTAINER = {
    "name": "a",
    "image": "nginx",
    "imagePullPolicy": "Always",
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
    "resources": {},
}
DEFAULT_POD_SPEC = {
    "containers": [DEFAULT_CONTAINER],
    "restartPolicy": "Always",
    "dnsPolicy": "ClusterFirst",
    "schedulerName": "default-scheduler",
    "securityContext": {},
    "terminationGracePeriodSeconds": 30,
}


def test_a_pod(kind: Any) -> None:
    assert kind("Pod").defaulted({"spec": {"containers": [CONTAINER]}})["spec"] == DEFAULT_POD_SPEC | {"enableServiceLinks": True}


def test_what_is_written_stays(kind: Any) -> None:
    spec = {
        "containers": [CONTAINER | {"imagePullPolicy": "Never", "terminationMessagePolicy": "FallbackToLogsOnError"}],
        "restartPolicy": "Never",
        "dnsPolicy": "Default",
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsUser": 7},
    }
    stored = kind("Pod").defaulted({"spec": spec})["spec"]
    assert {key: stored[key] for key in spec if key != "containers"} == {key: spec[key] for key in spec if key != "containers"}
    assert stored["containers"][0]["imagePullPolicy"] == "Never"


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.27", "IfNotPresent"),
        ("registry:5000/nginx", "Always"),
        ("registry:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:" + "0" * 64, "IfNotPresent"),
        ("", "IfNotPresent"),
    ],
)
def test_the_pull_policy_follows_the_tag(kind: Any, image: str, policy: str) -> None:
    stored = kind("Pod").defaulted({"spec": {"containers": [{"name": "a", "image": image}]}})
    assert stored["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_a_limit_is_a_request_in_a_pod_but_not_in_a_template(kind: Any) -> None:
    container = CONTAINER | {"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}}
    pod = kind("Pod").defaulted({"spec": {"containers": [container]}})
    assert pod["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "500m", "memory": "1Gi"}
    deployment = kind("Deployment", "apps").defaulted({"spec": {"template": {"spec": {"containers": [container]}}}})
    assert deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "500m"}
    assert "enableServiceLinks" not in deployment["spec"]["template"]["spec"]


def test_on_the_hosts_network_a_port_is_the_hosts_port(kind: Any) -> None:
    container = CONTAINER | {"ports": [{"containerPort": 80}]}
    pod = kind("Pod").defaulted({"spec": {"hostNetwork": True, "containers": [container]}})
    assert pod["spec"]["containers"][0]["ports"] == [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]


def test_probes_and_hooks(kind: Any) -> None:
    container = CONTAINER | {
        "livenessProbe": {"httpGet": {"port": 80}},
        "readinessProbe": {"grpc": {"port": 9}, "periodSeconds": 3},
        "lifecycle": {"preStop": {"httpGet": {"port": 80}}, "postStart": {"exec": {"command": ["a"]}}},
    }
    stored = kind("Pod").defaulted({"spec": {"containers": [container]}})["spec"]["containers"][0]
    timing = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
    assert stored["livenessProbe"] == {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, **timing}
    assert stored["readinessProbe"] == {"grpc": {"port": 9, "service": ""}, **timing, "periodSeconds": 3}
    assert stored["lifecycle"]["preStop"]["httpGet"] == {"port": 80, "path": "/", "scheme": "HTTP"}


def test_volumes(kind: Any) -> None:
    volumes = [
        {"name": "none"},
        {"name": "secret", "secret": {"secretName": "s"}},
        {"name": "config", "configMap": {"name": "c", "defaultMode": 256}},
        {"name": "host", "hostPath": {"path": "/x"}},
        {"name": "facts", "downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
    ]
    stored = kind("Pod").defaulted({"spec": {"containers": [CONTAINER], "volumes": volumes}})["spec"]["volumes"]
    assert stored == [
        {"name": "none", "emptyDir": {}},
        {"name": "secret", "secret": {"secretName": "s", "defaultMode": 420}},
        {"name": "config", "configMap": {"name": "c", "defaultMode": 256}},
        {"name": "host", "hostPath": {"path": "/x", "type": ""}},
        {
            "name": "facts",
            "downwardAPI": {"defaultMode": 420, "items": [{"path": "p", "fieldRef": {"fieldPath": "metadata.name", "apiVersion": "v1"}}]},
        },
        {
            "name": "token",
            "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}]},
        },
    ]


def test_the_service_account_stands_under_both_its_names(kind: Any) -> None:
    for given in ({"serviceAccountName": "builder"}, {"serviceAccount": "builder"}):
        spec = kind("Pod").defaulted({"spec": {"containers": [CONTAINER], **given}})["spec"]
        assert (spec["serviceAccountName"], spec["serviceAccount"]) == ("builder", "builder")


TEMPLATE: Object = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [CONTAINER]}}
DEFAULT_TEMPLATE: Object = {"metadata": {"labels": {"app": "web"}}, "spec": DEFAULT_POD_SPEC}


@pytest.mark.parametrize(
    ("name", "group", "expected"),
    [
        (
            "Deployment",
            "apps",
            {
                "replicas": 1,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
                "revisionHistoryLimit": 10,
                "progressDeadlineSeconds": 600,
            },
        ),
        ("ReplicaSet", "apps", {"replicas": 1}),
        (
            "DaemonSet",
            "apps",
            {
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
                "revisionHistoryLimit": 10,
            },
        ),
        (
            "StatefulSet",
            "apps",
            {
                "replicas": 1,
                "podManagementPolicy": "OrderedReady",
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
                "revisionHistoryLimit": 10,
                "serviceName": "",
            },
        ),
        ("ReplicationController", "", {"replicas": 1, "selector": {"app": "web"}}),
        (
            "Job",
            "batch",
            {
                "completions": 1,
                "parallelism": 1,
                "backoffLimit": 6,
                "completionMode": "NonIndexed",
                "suspend": False,
                "manualSelector": False,
                "podReplacementPolicy": "TerminatingOrFailed",
            },
        ),
    ],
)
def test_workloads(kind: Any, name: str, group: str, expected: Object) -> None:
    stored = kind(name, group).defaulted({"metadata": {"name": "web"}, "spec": {"template": TEMPLATE}})
    assert stored["spec"] == expected | {"template": DEFAULT_TEMPLATE}


def test_a_recreating_deployment_has_no_rolling_update(kind: Any) -> None:
    stored = kind("Deployment", "apps").defaulted({"spec": {"strategy": {"type": "Recreate"}, "template": TEMPLATE}})
    assert stored["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"parallelism": 3}, {"parallelism": 3}),
        ({"completions": 3}, {"parallelism": 1, "completions": 3}),
        ({"backoffLimitPerIndex": 1}, {"backoffLimit": 2**31 - 1}),
        ({"podFailurePolicy": {"rules": []}}, {"podReplacementPolicy": "Failed"}),
    ],
)
def test_a_jobs_counts(kind: Any, given: Object, expected: Object) -> None:
    spec = kind("Job", "batch").defaulted({"spec": given})["spec"]
    assert expected.items() <= spec.items()
    assert ("completions" in spec) == ("completions" in expected or "parallelism" not in given)


def test_a_cron_job_leaves_the_job_as_it_is(kind: Any) -> None:
    spec = kind("CronJob", "batch").defaulted({"spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template": TEMPLATE}}}})["spec"]
    assert spec == {
        "schedule": "@daily",
        "concurrencyPolicy": "Allow",
        "suspend": False,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 1,
        "jobTemplate": {"spec": {"template": DEFAULT_TEMPLATE}},
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"sessionAffinity": "None", "type": "ClusterIP", "internalTrafficPolicy": "Cluster"}),
        (
            {"type": "NodePort"},
            {"sessionAffinity": "None", "type": "NodePort", "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster"},
        ),
        (
            {"type": "LoadBalancer"},
            {
                "sessionAffinity": "None",
                "type": "LoadBalancer",
                "internalTrafficPolicy": "Cluster",
                "externalTrafficPolicy": "Cluster",
                "allocateLoadBalancerNodePorts": True,
            },
        ),
        ({"type": "ExternalName"}, {"sessionAffinity": "None", "type": "ExternalName"}),
        (
            {"sessionAffinity": "ClientIP"},
            {
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
                "type": "ClusterIP",
                "internalTrafficPolicy": "Cluster",
            },
        ),
    ],
)
def test_a_service(kind: Any, given: Object, expected: Object) -> None:
    stored = kind("Service").defaulted({"spec": given | {"ports": [{"port": 80}, {"port": 90, "targetPort": "web", "protocol": "UDP"}]}})
    ports = [{"port": 80, "protocol": "TCP", "targetPort": 80}, {"port": 90, "targetPort": "web", "protocol": "UDP"}]
    assert stored["spec"] == expected | {"ports": ports}


def test_text_of_a_secret_becomes_data(kind: Any) -> None:
    stored = kind("Secret").defaulted({"data": {"a": "b2xk", "k": "a2VlcA=="}, "stringData": {"a": "new", "b": "ü"}})
    assert stored == {
        "type": "Opaque",
        "data": {"a": base64.b64encode(b"new").decode(), "k": "a2VlcA==", "b": base64.b64encode("ü".encode()).decode()},
    }


def test_a_node_can_allocate_all_it_has_unless_it_says_otherwise(kind: Any) -> None:
    assert kind("Node").defaulted({"status": {"capacity": {"cpu": "2"}}})["status"]["allocatable"] == {"cpu": "2"}
    given = {"status": {"capacity": {"cpu": "2"}, "allocatable": {"cpu": "1"}}}
    assert kind("Node").defaulted(given)["status"]["allocatable"] == {"cpu": "1"}


def test_endpoints_and_slices_name_their_protocol(kind: Any) -> None:
    assert kind("Endpoints").defaulted({"subsets": [{"ports": [{"port": 1}]}]}) == {
        "subsets": [{"ports": [{"port": 1, "protocol": "TCP"}]}]
    }
    stored = kind("EndpointSlice", "discovery.k8s.io").defaulted({"ports": [{"port": 1}]})
    assert stored["ports"] == [{"port": 1, "name": "", "protocol": "TCP"}]


@pytest.mark.parametrize("name", ["Pod", "Deployment", "Job", "Service", "Secret", "Namespace", "CronJob", "StatefulSet"])
def test_filling_in_twice_changes_nothing_more(kind: Any, name: str) -> None:
    group = {"Deployment": "apps", "StatefulSet": "apps", "Job": "batch", "CronJob": "batch"}.get(name, "")
    once = kind(name, group).defaulted({"metadata": {"name": "a"}, "spec": {"template": TEMPLATE, "ports": [{"port": 80}]}})
    assert kind(name, group).defaulted(once) == once
