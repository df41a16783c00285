"""What workloads, services and the smaller kinds may say and change, and with which words they are refused."""

from __future__ import annotations

import base64
from typing import Any

import pytest

Object = dict[str, Any]

GROUPS = {
    "Deployment": "apps",
    "ReplicaSet": "apps",
    "DaemonSet": "apps",
    "StatefulSet": "apps",
    "ControllerRevision": "apps",
    "Job": "batch",
    "CronJob": "batch",
    "Lease": "coordination.k8s.io",
    "EndpointSlice": "discovery.k8s.io",
}
SELECTOR: Object = {"matchLabels": {"app": "web"}}
LABELS: Object = {"metadata": {"labels": {"app": "web"}}}
POD: Object = {"spec": {"containers": [{"name": "a", "image": "i"}]}}
JOB_POD: Object = {"spec": {"containers": [{"name": "a", "image": "i"}], "restartPolicy": "Never"}}
WORKLOAD: Object = {"selector": SELECTOR, "template": LABELS | POD}
MISMATCH = "spec.template.metadata.labels: Invalid value: {}: `selector` does not match template `labels`"


def named(obj: Object) -> Object:
    return {"metadata": {"name": "x", "namespace": "default"}} | obj


def of(kind: Any, name: str) -> Any:
    return kind(name, GROUPS.get(name, ""))


WORKLOADS: list[tuple[str, Object, list[str]]] = [
    *((name, WORKLOAD, []) for name in ("Deployment", "ReplicaSet", "DaemonSet", "StatefulSet")),
    ("Deployment", {}, ["spec.selector: Required value", "spec.template: Required value"]),
    ("ReplicaSet", {"selector": SELECTOR, "template": POD}, [MISMATCH]),
    ("Deployment", {"selector": {}, "template": POD}, ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"]),
    ("DaemonSet", {"selector": {}, "template": POD}, ["spec.selector: Invalid value: {}: empty selector is invalid for daemonset"]),
    ("Deployment", WORKLOAD | {"replicas": -1}, ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
    (
        "Deployment",
        WORKLOAD | {"strategy": {"type": "Blue"}},
        ['spec.strategy.type: Unsupported value: "Blue": supported values: "Recreate", "RollingUpdate"'],
    ),
    (
        "Deployment",
        WORKLOAD | {"strategy": {"type": "Recreate", "rollingUpdate": {}}},
        ["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
    ),
    (
        "Deployment",
        WORKLOAD | {"strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "0%"}}},
        ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
    ),
    (
        "Deployment",
        WORKLOAD | {"strategy": {"rollingUpdate": {"maxUnavailable": "101%"}}},
        ['spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%'],
    ),
    (
        "Deployment",
        WORKLOAD | {"progressDeadlineSeconds": 5, "minReadySeconds": 5},
        ["spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds"],
    ),
    (
        "Deployment",
        {"selector": SELECTOR, "template": LABELS | JOB_POD},
        ['spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"'],
    ),
    (
        "DaemonSet",
        WORKLOAD | {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}}},
        ["spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero"],
    ),
    (
        "StatefulSet",
        WORKLOAD | {"podManagementPolicy": "Any"},
        ["spec.podManagementPolicy: Invalid value: \"Any\": must be 'OrderedReady' or 'Parallel'"],
    ),
    ("ReplicationController", {"template": POD}, ["spec.selector: Required value"]),
    ("ReplicationController", {"selector": {"a": "b"}, "template": POD}, [MISMATCH]),
    ("ReplicationController", {"template": LABELS | POD}, []),
    ("Job", {"template": JOB_POD}, []),
    ("Job", {"template": POD}, ['spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"']),
    (
        "Job",
        {"template": JOB_POD, "completionMode": "Indexed", "parallelism": 1},
        ["spec.completions: Required value: when completion mode is Indexed"],
    ),
    ("Job", {"template": JOB_POD, "backoffLimit": -1}, ["spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0"]),
    ("CronJob", {"schedule": "*/5 1-3 * jan sun,mon", "jobTemplate": {"spec": {"template": JOB_POD}}}, []),
    ("CronJob", {"jobTemplate": {"spec": {"template": JOB_POD}}}, ["spec.schedule: Required value"]),
    (
        "CronJob",
        {"schedule": "* * *", "jobTemplate": {"spec": {"template": JOB_POD}}},
        ['spec.schedule: Invalid value: "* * *": expected exactly 5 fields, found 3: [* * *]'],
    ),
    (
        "CronJob",
        {"schedule": "61 * * * *", "jobTemplate": {"spec": {"template": JOB_POD}}},
        ['spec.schedule: Invalid value: "61 * * * *": end of range (61) above maximum (59): 61'],
    ),
]


@pytest.mark.parametrize(("name", "spec", "expected"), WORKLOADS)
def test_workloads(kind: Any, name: str, spec: Object, expected: list[str]) -> None:
    assert of(kind, name).problems(named({"spec": spec})) == expected


def test_the_mismatch_shows_the_labels(kind: Any) -> None:
    template = {"metadata": {"labels": {"app": "other"}}, **POD}
    assert of(kind, "Deployment").problems(named({"spec": {"selector": SELECTOR, "template": template}})) == [
        'spec.template.metadata.labels: Invalid value: {"app":"other"}: `selector` does not match template `labels`'
    ]


IP = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"ports": [{"port": 80}]}, []),
        ({}, ["spec.ports: Required value"]),
        ({"clusterIP": "None"}, []),
        ({"type": "ExternalName", "externalName": "db.example.com"}, []),
        ({"type": "ExternalName"}, ["spec.externalName: Required value"]),
        (
            {"type": "Other", "ports": [{"port": 80}]},
            ['spec.type: Unsupported value: "Other": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"'],
        ),
        (
            {"ports": [{"port": 80, "name": "a"}, {"port": 81}]},
            ["spec.ports[1].name: Required value"],
        ),
        (
            {"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]},
            ['spec.ports[1].name: Duplicate value: "a"'],
        ),
        (
            {"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]},
            ['spec.ports[1]: Duplicate value: {"protocol":"TCP","port":80}'],
        ),
        ({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b", "protocol": "UDP"}]}, []),
        ({"ports": [{"port": 0, "targetPort": 80}]}, ["spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"]),
        (
            {"ports": [{"port": 80, "nodePort": 30000}]},
            ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
        ),
        (
            {"ports": [{"port": 80}], "sessionAffinity": "Cookie"},
            ['spec.sessionAffinity: Unsupported value: "Cookie": supported values: "ClientIP", "None"'],
        ),
        ({"ports": [{"port": 80}], "clusterIP": "no"}, [f'spec.clusterIPs[0]: Invalid value: "no": {IP}']),
        (
            {"ports": [{"port": 80}], "externalTrafficPolicy": "Local"},
            ['spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services'],
        ),
        (
            {"type": "NodePort", "clusterIP": "None", "ports": [{"port": 80}]},
            ["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
        ),
    ],
)
def test_services(kind: Any, spec: Object, expected: list[str]) -> None:
    assert of(kind, "Service").problems(named({"spec": spec})) == expected


STORED_SERVICE: Object = {
    "type": "NodePort",
    "clusterIP": "10.96.0.9",
    "clusterIPs": ["10.96.0.9"],
    "ipFamilies": ["IPv4"],
    "ipFamilyPolicy": "SingleStack",
    "externalTrafficPolicy": "Cluster",
    "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80, "nodePort": 30080}],
}


def test_a_service_keeps_what_was_allocated_when_an_update_leaves_it_out(kind: Any) -> None:
    spec = {"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "name": "b"}]}
    stored, problems = of(kind, "Service").update(named({"spec": spec}), named({"spec": STORED_SERVICE}))
    assert problems == []
    assert (stored["spec"]["clusterIP"], stored["spec"]["clusterIPs"]) == ("10.96.0.9", ["10.96.0.9"])
    assert (stored["spec"]["ipFamilies"], stored["spec"]["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")
    assert [port.get("nodePort") for port in stored["spec"]["ports"]] == [30080, None]


def test_a_service_that_becomes_internal_gives_up_its_node_ports(kind: Any) -> None:
    stored, problems = of(kind, "Service").update(named({"spec": STORED_SERVICE | {"type": "ClusterIP"}}), named({"spec": STORED_SERVICE}))
    assert problems == []
    assert "nodePort" not in stored["spec"]["ports"][0]
    assert "externalTrafficPolicy" not in stored["spec"]
    assert stored["spec"]["clusterIP"] == "10.96.0.9"


def test_a_service_that_points_elsewhere_gives_up_its_address(kind: Any) -> None:
    spec = STORED_SERVICE | {"type": "ExternalName", "externalName": "db.example.com", "ports": []}
    stored, problems = of(kind, "Service").update(named({"spec": spec}), named({"spec": STORED_SERVICE}))
    assert problems == []
    assert not {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"} & stored["spec"].keys()


def test_a_services_address_does_not_change(kind: Any) -> None:
    for change in ({"clusterIP": "10.96.0.8"}, {"clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.8"]}):
        spec = STORED_SERVICE | change
        assert of(kind, "Service").update(named({"spec": spec}), named({"spec": STORED_SERVICE}))[1] == [
            'spec.clusterIPs[0]: Invalid value: ["10.96.0.8"]: may not change once set'
        ]


def test_a_service_whose_address_is_cleared_gets_it_back(kind: Any) -> None:
    stored, problems = of(kind, "Service").update(named({"spec": STORED_SERVICE | {"clusterIP": ""}}), named({"spec": STORED_SERVICE}))
    assert problems == []
    assert (stored["spec"]["clusterIP"], stored["spec"]["clusterIPs"]) == ("10.96.0.9", ["10.96.0.9"])


KEY = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', "
    "regex used for validation is '[-._a-zA-Z0-9]+')"
)


@pytest.mark.parametrize(
    ("name", "obj", "expected"),
    [
        ("ConfigMap", {"data": {"a.b": "x"}, "binaryData": {"c": "AA=="}}, []),
        ("ConfigMap", {"data": {"a/b": "x"}}, [f'data[a/b]: Invalid value: "a/b": {KEY}']),
        ("ConfigMap", {"data": {"": "x"}}, [f'data[]: Invalid value: "": {KEY}']),
        ("ConfigMap", {"data": {"..": "x"}}, ["data[..]: Invalid value: \"..\": must not be '..'"]),
        (
            "ConfigMap",
            {"data": {"a": "x"}, "binaryData": {"a": "AA=="}},
            ['data[a]: Invalid value: "a": duplicate of key present in binaryData'],
        ),
        ("ConfigMap", {"data": {"a": "x" * (1024 * 1024 + 1)}}, ["Too long: may not be more than 1048576 bytes"]),
        ("Secret", {"stringData": {"a b": "x"}}, [f'data[a b]: Invalid value: "a b": {KEY}']),
        ("Secret", {"type": "kubernetes.io/tls"}, ["data[tls.crt]: Required value", "data[tls.key]: Required value"]),
        ("Secret", {"type": "kubernetes.io/basic-auth"}, ["data[username]: Required value", "data[password]: Required value"]),
        (
            "Secret",
            {"type": "kubernetes.io/service-account-token"},
            ["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
        ),
        ("Secret", {"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "{}"}}, []),
        ("Lease", {"spec": {"leaseDurationSeconds": 0}}, ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"]),
        ("Lease", {"spec": {"leaseTransitions": -1}}, ["spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0"]),
        ("Endpoints", {"subsets": [{}]}, ["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"]),
        (
            "Endpoints",
            {"subsets": [{"addresses": [{"ip": "127.0.0.1"}]}]},
            ['subsets[0].addresses[0].ip: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)'],
        ),
        ("EndpointSlice", {}, ["addressType: Required value"]),
        (
            "EndpointSlice",
            {"addressType": "IPv4", "endpoints": [{"addresses": []}, {"addresses": ["fd00::1"]}]},
            [
                "endpoints[0].addresses: Required value: must contain at least 1 address",
                'endpoints[1].addresses[0]: Invalid value: "fd00::1": must be a valid IPv4 address',
            ],
        ),
        ("ControllerRevision", {"data": {}, "revision": 1}, []),
        ("ControllerRevision", {"revision": 1}, ["data: Required value: data is mandatory"]),
        (
            "Node",
            {"spec": {"taints": [{"key": "a", "effect": "Never"}]}},
            ['spec.taints[0].effect: Unsupported value: "Never": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"'],
        ),
        ("PodTemplate", {"template": {}}, ["template.spec.containers: Required value"]),
    ],
)
def test_smaller_kinds(kind: Any, name: str, obj: Object, expected: list[str]) -> None:
    assert of(kind, name).problems(named(obj)) == expected


def test_only_the_api_server_itself_may_stand_on_loopback(kind: Any) -> None:
    own: Object = {"metadata": {"name": "kubernetes", "namespace": "default"}}
    assert of(kind, "Endpoints").problems(own | {"subsets": [{"addresses": [{"ip": "127.0.0.1"}]}]}) == []
    slice_: Object = {"addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}]}
    assert of(kind, "EndpointSlice").problems(own | slice_) == []
    assert len(of(kind, "EndpointSlice").problems(named(slice_))) == 1


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


SEALED = "Forbidden: field is immutable when `immutable` is set"


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("Deployment", {"spec": WORKLOAD}, {"spec": WORKLOAD | {"replicas": 3}}, []),
        (
            "Deployment",
            {"spec": WORKLOAD},
            {"spec": WORKLOAD | {"selector": {"matchLabels": {"a": "b"}}}},
            ['spec.selector: Invalid value: {"matchLabels":{"a":"b"}}: field is immutable'],
        ),
        (
            "StatefulSet",
            {"spec": WORKLOAD},
            {"spec": WORKLOAD | {"serviceName": "other"}},
            [
                "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
                "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
            ],
        ),
        ("StatefulSet", {"spec": WORKLOAD}, {"spec": WORKLOAD | {"replicas": 9}}, []),
        ("ConfigMap", {"data": {"a": "1"}}, {"data": {"a": "2"}}, []),
        ("ConfigMap", {"data": {"a": "1"}, "immutable": True}, {"data": {"a": "2"}, "immutable": True}, [f"data: {SEALED}"]),
        ("ConfigMap", {"data": {"a": "1"}, "immutable": True}, {"data": {"a": "1"}}, [f"immutable: {SEALED}"]),
        ("ConfigMap", {"data": {"a": "1"}, "immutable": True}, {"data": {"a": "1"}, "immutable": True}, []),
        (
            "Secret",
            {"type": "Opaque", "data": {"a": encoded("1")}, "immutable": True},
            {"stringData": {"a": "2"}, "immutable": True},
            [f"data: {SEALED}"],
        ),
        ("Secret", {"type": "Opaque"}, {"type": "other"}, ['type: Invalid value: "other": field is immutable']),
        (
            "EndpointSlice",
            {"addressType": "IPv4"},
            {"addressType": "IPv6"},
            ['addressType: Invalid value: "IPv6": field is immutable'],
        ),
        ("ControllerRevision", {"data": {"a": 1}}, {"data": {"a": 2}}, ['data: Invalid value: {"a":2}: field is immutable']),
        (
            "Node",
            {"spec": {"podCIDR": "10.0.0.0/24"}},
            {"spec": {}},
            ['spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid'],
        ),
    ],
)
def test_updates(kind: Any, name: str, old: Object, new: Object, expected: list[str]) -> None:
    one = of(kind, name)
    assert one.update(named(new), one.defaulted(named(old)))[1] == expected


def test_a_jobs_template_is_fixed_unless_it_waits_to_start(kind: Any) -> None:
    jobs = of(kind, "Job")
    old, _ = jobs.create(named({"spec": {"template": JOB_POD}}))
    new = jobs.defaulted(old)
    new["spec"]["parallelism"] = 5
    assert jobs.update(new, old)[1] == []
    new["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "ssd"}
    [line] = jobs.update(new, old)[1]
    assert line.startswith("spec.template: Invalid value: {")
    assert line.endswith(": field is immutable")
    old["spec"]["suspend"] = True
    assert jobs.update(new, old)[1] == []


@pytest.mark.parametrize(
    ("group", "event", "expected"),
    [
        ("", {"involvedObject": {"namespace": "default"}}, []),
        (
            "",
            {"involvedObject": {"namespace": "other"}},
            ['involvedObject.namespace: Invalid value: "other": does not match event.namespace'],
        ),
        ("", {"involvedObject": {"kind": "Node"}}, []),
        (
            "events.k8s.io",
            {"regarding": {"namespace": "default"}},
            [
                "eventTime: Required value",
                'type: Invalid value: "": has invalid value: ',
                "reportingController: Required value",
                "reportingInstance: Required value",
                "action: Required value",
                "reason: Required value",
            ],
        ),
        (
            "events.k8s.io",
            {
                "regarding": {"namespace": "default"},
                "eventTime": "2027-01-15T08:00:00.000000Z",
                "type": "Normal",
                "reportingController": "example.com/c",
                "reportingInstance": "c-1",
                "action": "Run",
                "reason": "Ran",
            },
            [],
        ),
    ],
)
def test_events(kind: Any, group: str, event: Object, expected: list[str]) -> None:
    assert kind("Event", group).problems(named(event)) == expected


def test_an_event_reads_the_same_after_a_round_trip_through_storage(kind: Any) -> None:
    new = kind("Event", "events.k8s.io").resource
    event: Object = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "e"},
        "regarding": {"kind": "Pod", "name": "p"},
        "note": "n",
        "reportingController": "c",
        "deprecatedCount": 2,
        "deprecatedSource": {"component": "kubelet"},
        "deprecatedFirstTimestamp": "2027-01-15T08:00:00Z",
        "deprecatedLastTimestamp": "2027-01-15T08:00:00Z",
        "reason": "R",
        "type": "Normal",
        "action": "A",
        "eventTime": None,
    }
    before = dict(event)
    new.to_storage(event)
    assert event == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "p"},
        "message": "n",
        "reportingComponent": "c",
        "count": 2,
        "source": {"component": "kubelet"},
        "firstTimestamp": "2027-01-15T08:00:00Z",
        "lastTimestamp": "2027-01-15T08:00:00Z",
        "reason": "R",
        "type": "Normal",
        "action": "A",
        "eventTime": None,
    }
    fields = {label: read(event) for label, read in new.selectable_fields.items()}
    assert fields["regarding.kind"] == fields["involvedObject.kind"] == "Pod"
    assert fields["source"] == "kubelet"
    new.from_storage(event)
    assert event == before
