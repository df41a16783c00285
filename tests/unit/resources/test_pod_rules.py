"""What a pod may say, and with which words it is refused."""

from __future__ import annotations

from typing import Any

import pytest

Object = dict[str, Any]

CONTAINER: Object = {"name": "a", "image": "i"}
LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an "
    "alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


def problems(kind: Any, **spec: Any) -> list[str]:
    return kind("Pod").problems({"metadata": {"name": "p"}, "spec": {"containers": [CONTAINER], **spec}})


def container_problems(kind: Any, **more: Any) -> list[str]:
    volumes = [{"name": "data", "emptyDir": {}}]
    found = problems(kind, containers=[CONTAINER | more], volumes=volumes)
    return [line.removeprefix("spec.containers[0].") for line in found]


def test_a_plain_pod_is_fine(kind: Any) -> None:
    assert problems(kind) == []


SYSCTL_FORM = r"must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"containers": []}, ["spec.containers: Required value"]),
        ({"containers": [{"image": "i"}]}, ["spec.containers[0].name: Required value"]),
        ({"containers": [{"name": "A", "image": "i"}]}, [f'spec.containers[0].name: Invalid value: "A": {LABEL}']),
        ({"containers": [CONTAINER, CONTAINER]}, ['spec.containers[1].name: Duplicate value: "a"']),
        (
            {"initContainers": [CONTAINER]},
            ['spec.containers[0].name: Duplicate value: "a"'],
        ),
        ({"containers": [{"name": "a"}]}, ["spec.containers[0].image: Required value"]),
        (
            {"containers": [{"name": "a", "image": " i"}]},
            ['spec.containers[0].image: Invalid value: " i": must not have leading or trailing whitespace'],
        ),
        (
            {"restartPolicy": "Sometimes"},
            ['spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"'],
        ),
        (
            {"dnsPolicy": "Mine"},
            ['spec.dnsPolicy: Unsupported value: "Mine": supported values: "ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"'],
        ),
        ({"activeDeadlineSeconds": 0}, ["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"]),
        (
            {"initContainers": [{"name": "b", "image": "i", "readinessProbe": {"exec": {"command": ["x"]}}}]},
            ["spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"],
        ),
        (
            {"initContainers": [{"name": "b", "image": "i", "restartPolicy": "Always", "readinessProbe": {"exec": {"command": ["x"]}}}]},
            [],
        ),
        (
            {"hostNetwork": True, "containers": [CONTAINER | {"ports": [{"containerPort": 80, "hostPort": 81}]}]},
            ["spec.containers[0].ports[0].containerPort: Invalid value: 80: must match `hostPort` when `hostNetwork` is true"],
        ),
        (
            {"schedulingGates": [{"name": "g"}], "nodeName": "n1"},
            ["spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"],
        ),
        (
            {
                "securityContext": {
                    "sysctls": [{"name": "foo-"}, {"name": "kernel.shmmax"}, {"name": "bar.."}, {"name": "kernel.shmmax"}, {}]
                }
            },
            [
                f'spec.securityContext.sysctls[0].name: Invalid value: "foo-": {SYSCTL_FORM}',
                f'spec.securityContext.sysctls[2].name: Invalid value: "bar..": {SYSCTL_FORM}',
                'spec.securityContext.sysctls[3].name: Duplicate value: "kernel.shmmax"',
                "spec.securityContext.sysctls[4].name: Required value",
            ],
        ),
        (
            {"hostNetwork": True, "securityContext": {"sysctls": [{"name": "net/ipv4/ip_forward"}, {"name": "kernel.sem"}]}},
            [
                'spec.securityContext.sysctls[0].name: Invalid value: "net/ipv4/ip_forward": '
                "may not be specified when 'hostNetwork' is true",
            ],
        ),
        (
            {"securityContext": {"runAsUser": -1, "supplementalGroups": [2**31], "seccompProfile": {"type": "Localhost"}}},
            [
                "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                "spec.securityContext.supplementalGroups[0]: Invalid value: 2147483648: must be between 0 and 2147483647, inclusive",
                "spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
            ],
        ),
        (
            {"hostAliases": [{"ip": "nowhere"}]},
            ['spec.hostAliases[0].ip: Invalid value: "nowhere": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'],
        ),
        ({"dnsPolicy": "None"}, ["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"]),
        ({"imagePullSecrets": [{}]}, ["spec.imagePullSecrets[0].name: Required value"]),
    ],
)
def test_the_pod_spec(kind: Any, spec: Object, expected: list[str]) -> None:
    assert problems(kind, **spec) == expected


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"ports": [{}]}, ["ports[0].containerPort: Required value"]),
        ({"ports": [{"containerPort": 65536}]}, ["ports[0].containerPort: Invalid value: 65536: must be between 1 and 65535, inclusive"]),
        (
            {"ports": [{"containerPort": 1, "protocol": "ICMP"}]},
            ['ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"'],
        ),
        (
            {"ports": [{"containerPort": 1, "name": "web"}, {"containerPort": 2, "name": "web"}]},
            ['ports[1].name: Duplicate value: "web"'],
        ),
        (
            {"ports": [{"containerPort": 1, "name": "way-too-long-name"}]},
            ['ports[0].name: Invalid value: "way-too-long-name": must be no more than 15 characters'],
        ),
        (
            {"ports": [{"containerPort": 1, "hostPort": 80}, {"containerPort": 2, "hostPort": 80}]},
            ['ports[1].hostPort: Duplicate value: "TCP//80"'],
        ),
        ({"env": [{"value": "x"}]}, ["env[0].name: Required value"]),
        (
            {"env": [{"name": "a=b"}]},
            [
                'env[0].name: Invalid value: "a=b": a valid environment variable name must consist only of printable ASCII characters '
                "other than '=' (regex used for validation is '[ -<>-~]+')"
            ],
        ),
        (
            {"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
            ['env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty'],
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nothing"}}}]},
            [
                'env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.nothing": error converting fieldPath: '
                "field label not supported: spec.nothing"
            ],
        ),
        ({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}}]}, []),
        ({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}]}, ["env[0].valueFrom.secretKeyRef.key: Required value"]),
        (
            {"envFrom": [{}]},
            ['envFrom[0]: Invalid value: "": must specify one of: `configMapRef` or `secretRef`'],
        ),
        ({"volumeMounts": [{"name": "gone", "mountPath": "/x"}]}, ['volumeMounts[0].name: Not found: "gone"']),
        ({"volumeMounts": [{"name": "data"}]}, ["volumeMounts[0].mountPath: Required value"]),
        (
            {"volumeMounts": [{"name": "data", "mountPath": "/x"}, {"name": "data", "mountPath": "/x"}]},
            ['volumeMounts[1].mountPath: Invalid value: "/x": must be unique'],
        ),
        (
            {"volumeMounts": [{"name": "data", "mountPath": "/x", "subPath": "../up"}]},
            ["volumeMounts[0].subPath: Invalid value: \"../up\": must not contain '..'"],
        ),
        ({"livenessProbe": {}}, ["livenessProbe: Required value: must specify a handler type"]),
        (
            {"livenessProbe": {"exec": {"command": ["a"]}, "tcpSocket": {"port": 80}}},
            ["livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"],
        ),
        (
            {"livenessProbe": {"tcpSocket": {"port": 80}, "successThreshold": 2}},
            ["livenessProbe.successThreshold: Invalid value: 2: must be 1"],
        ),
        ({"readinessProbe": {"tcpSocket": {"port": 80}, "successThreshold": 2}}, []),
        (
            {"readinessProbe": {"httpGet": {"port": 0}}},
            ["readinessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive"],
        ),
        ({"lifecycle": {"preStop": {}}}, ["lifecycle.preStop: Required value: must specify a handler type"]),
        (
            {"imagePullPolicy": "Often"},
            ['imagePullPolicy: Unsupported value: "Often": supported values: "Always", "IfNotPresent", "Never"'],
        ),
        (
            {"resources": {"requests": {"cpu": "500m"}, "limits": {"cpu": "100m"}}},
            ['resources.requests: Invalid value: "500m": must be less than or equal to cpu limit of 100m'],
        ),
        (
            {"resources": {"limits": {"memory": "-1"}}},
            [
                'resources.limits[memory]: Invalid value: "-1": must be greater than or equal to 0',
                'resources.requests[memory]: Invalid value: "-1": must be greater than or equal to 0',
            ],
        ),
        (
            {"resources": {"requests": {"widgets": "1"}, "limits": {"widgets": "1"}}},
            [
                'resources.limits[widgets]: Invalid value: "widgets": must be a standard resource for containers',
                'resources.requests[widgets]: Invalid value: "widgets": must be a standard resource for containers',
            ],
        ),
        (
            {"resources": {"requests": {"example.com/gpu": "1"}}},
            ["resources.limits: Required value: Limit must be set for non overcommitable resources"],
        ),
        (
            {"resources": {"requests": {"example.com/gpu": "1"}, "limits": {"example.com/gpu": "2"}}},
            ['resources.requests: Invalid value: "1": must be equal to example.com/gpu limit of 2'],
        ),
    ],
)
def test_a_container(kind: Any, more: Object, expected: list[str]) -> None:
    assert container_problems(kind, **more) == expected


@pytest.mark.parametrize(
    ("volume", "expected"),
    [
        ({"emptyDir": {}}, ["name: Required value"]),
        (
            {"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}},
            ["hostPath: Forbidden: may not specify more than 1 volume type"],
        ),
        ({"name": "v", "secret": {}}, ["secret.secretName: Required value"]),
        ({"name": "v", "configMap": {}}, ["configMap.name: Required value"]),
        (
            {"name": "v", "configMap": {"name": "c", "defaultMode": 512}},
            ["configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive"],
        ),
        (
            {"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "/abs"}]}},
            ['configMap.items[0].path: Invalid value: "/abs": must be a relative path'],
        ),
        ({"name": "v", "hostPath": {}}, ["hostPath.path: Required value"]),
        ({"name": "v", "persistentVolumeClaim": {}}, ["persistentVolumeClaim.claimName: Required value"]),
        (
            {"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 5}}]}},
            [
                "projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 5: "
                "may not specify a duration less than 10 minutes"
            ],
        ),
        ({"name": "v", "downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "metadata.labels"}}]}}, []),
    ],
)
def test_a_volume(kind: Any, volume: Object, expected: list[str]) -> None:
    assert [line.removeprefix("spec.volumes[0].") for line in problems(kind, volumes=[volume])] == expected


def test_volumes_have_names_of_their_own(kind: Any) -> None:
    assert problems(kind, volumes=[{"name": "v"}, {"name": "v"}]) == ['spec.volumes[1].name: Duplicate value: "v"']


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        ({"key": "k", "operator": "Exists"}, []),
        ({"operator": "Exists"}, []),
        (
            {"operator": "Equal", "value": "v"},
            ['operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys"'],
        ),
        (
            {"key": "k", "operator": "Exists", "tolerationSeconds": 5},
            ["effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set"],
        ),
        ({"key": "k", "operator": "Near"}, ['operator: Unsupported value: "Near": supported values: "Equal", "Exists"']),
        (
            {"key": "k", "operator": "Exists", "effect": "Run"},
            ['effect: Unsupported value: "Run": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"'],
        ),
    ],
)
def test_a_toleration(kind: Any, toleration: Object, expected: list[str]) -> None:
    assert [line.removeprefix("spec.tolerations[0].") for line in problems(kind, tolerations=[toleration])] == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}},
            [
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: "
                "Required value: must have at least one node selector term"
            ],
        ),
        (
            {
                "affinity": {
                    "podAntiAffinity": {
                        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "podAffinityTerm": {"topologyKey": "z"}}]
                    }
                }
            },
            [
                "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: "
                "Invalid value: 0: must be in the range 1-100"
            ],
        ),
        (
            {"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "Maybe"}]},
            [
                "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
                'spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: "Maybe": '
                'supported values: "DoNotSchedule", "ScheduleAnyway"',
            ],
        ),
    ],
)
def test_where_it_may_run(kind: Any, spec: Object, expected: list[str]) -> None:
    assert problems(kind, **spec) == expected


ONLY = (
    "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {"containers": [CONTAINER | {"image": "i:2"}]}, []),
        ({}, {"containers": [{"name": "a", "image": ""}]}, ["spec.containers[0].image: Required value"]),
        ({}, {"containers": [CONTAINER, CONTAINER]}, ["spec.containers: Forbidden: pod updates may not add or remove containers"]),
        ({}, {"nodeName": "n1"}, [ONLY + '\n+ nodeName: "n1"']),
        ({"nodeName": "n1"}, {"nodeName": "n2"}, [ONLY + '\n- nodeName: "n1"\n+ nodeName: "n2"']),
        ({}, {"tolerations": [{"key": "k", "operator": "Exists"}]}, []),
        (
            {"tolerations": [{"key": "k", "operator": "Exists"}]},
            {"tolerations": []},
            ["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"],
        ),
        (
            {"tolerations": [{"key": "k", "effect": "NoExecute", "tolerationSeconds": 5}]},
            {"tolerations": [{"key": "k", "effect": "NoExecute", "tolerationSeconds": 9}]},
            [],
        ),
        ({}, {"activeDeadlineSeconds": 5}, []),
        ({"activeDeadlineSeconds": 5}, {"activeDeadlineSeconds": 4}, []),
        (
            {"activeDeadlineSeconds": 5},
            {"activeDeadlineSeconds": 6},
            ["spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"],
        ),
        (
            {"activeDeadlineSeconds": 5},
            {},
            ["spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value"],
        ),
        ({"schedulingGates": [{"name": "g"}, {"name": "h"}]}, {"schedulingGates": [{"name": "h"}]}, []),
        (
            {},
            {"schedulingGates": [{"name": "g"}]},
            ["spec.schedulingGates: Forbidden: only deletion is allowed, but found new scheduling gate 'g'"],
        ),
        ({"schedulingGates": [{"name": "g"}]}, {"schedulingGates": [{"name": "g"}], "nodeSelector": {"disk": "ssd"}}, []),
        ({"terminationGracePeriodSeconds": -1}, {"terminationGracePeriodSeconds": 1}, []),
    ],
)
def test_what_may_change(kind: Any, before: Object, after: Object, expected: list[str]) -> None:
    def pod(spec: Object) -> Object:
        policy = {"imagePullPolicy": "Always"}
        containers = [one | policy for one in spec.get("containers", [CONTAINER])]
        return {"metadata": {"name": "p"}, "spec": {**spec, "containers": containers}}

    pods = kind("Pod")
    old, _ = pods.create(pod(before))
    assert pods.update(pod(after), old)[1] == expected


def test_a_status_update_keeps_owners_deletion_and_quality(kind: Any) -> None:
    strategy = kind("Pod").strategy
    old = {
        "metadata": {"name": "p", "ownerReferences": [{"uid": "o"}], "deletionTimestamp": "2027-01-15T08:00:00Z"},
        "status": {"qosClass": "Burstable"},
    }
    new: Object = {"metadata": {"name": "p", "ownerReferences": []}, "status": {"phase": "Running"}}
    strategy.prepare_status_update(new, old, None)
    assert new == {"metadata": old["metadata"], "status": {"phase": "Running", "qosClass": "Burstable"}}
    assert strategy.validate_status_update(new, old) == []
