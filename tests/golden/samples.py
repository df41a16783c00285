"""Objects of every kind in the states that their table rows tell apart. NOW is when the tables are printed."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
FIVE_MINUTES_AGO = "2027-01-15T07:55:00Z"
TWO_MINUTES_AGO = "2027-01-15T07:58:00Z"
THREE_DAYS_AGO = "2027-01-12T08:00:00Z"


def meta(name: str, *, created: str = FIVE_MINUTES_AGO, **more: Any) -> Object:
    return {"name": name, "namespace": "default", "creationTimestamp": created, **more}


def container_status(name: str, *, restarts: int = 0, is_ready: bool = False, last_exit: str = "", **state: Any) -> Object:
    status: Object = {"name": name, "restartCount": restarts, "ready": is_ready, "state": state}
    if last_exit:
        status["lastState"] = {"terminated": {"exitCode": 1, "finishedAt": last_exit}}
    return status


RUNNING: Object = {"running": {"startedAt": FIVE_MINUTES_AGO}}
TWO = [{"name": "web", "image": "nginx:1.27"}, {"name": "log", "image": "busybox"}]
ONE = TWO[:1]
INIT = [{"name": "setup", "image": "busybox"}, {"name": "wait", "image": "busybox"}]
SIDECAR = [{"name": "mesh", "image": "envoy", "restartPolicy": "Always"}]
READY = {"type": "Ready", "status": "True"}


def pod(name: str, spec: Object, status: Object, **metadata: Any) -> Object:
    return {"metadata": meta(name, **metadata), "spec": spec, "status": status}


def template(**spec: Any) -> Object:
    return {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": TWO, **spec}}


SELECTOR: Object = {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["b", "a"]}]}

PODS: list[Object] = [
    pod("pending", {"containers": ONE}, {"phase": "Pending"}),
    pod(
        "running",
        {"containers": TWO, "nodeName": "n1", "readinessGates": [{"conditionType": "lb"}]},
        {
            "phase": "Running",
            "podIPs": [{"ip": "10.0.0.7"}],
            "conditions": [READY, {"type": "lb", "status": "True"}],
            "containerStatuses": [container_status("web", is_ready=True, **RUNNING), container_status("log", is_ready=True, **RUNNING)],
        },
    ),
    pod(
        "crashing",
        {"containers": ONE, "nodeName": "n1"},
        {
            "phase": "Running",
            "containerStatuses": [
                container_status(
                    "web", restarts=3, last_exit=TWO_MINUTES_AGO, waiting={"reason": "CrashLoopBackOff", "message": "back-off"}
                )
            ],
        },
    ),
    pod(
        "creating",
        {"containers": ONE, "nodeName": "n1"},
        {"phase": "Pending", "containerStatuses": [container_status("web", waiting={"reason": "ContainerCreating"})]},
    ),
    pod(
        "completed",
        {"containers": ONE},
        {"phase": "Succeeded", "containerStatuses": [container_status("web", terminated={"exitCode": 0, "reason": "Completed"})]},
    ),
    pod(
        "failed",
        {"containers": ONE},
        {"phase": "Failed", "containerStatuses": [container_status("web", terminated={"exitCode": 2, "reason": "Error"})]},
    ),
    pod("evicted", {"containers": ONE}, {"phase": "Failed", "reason": "Evicted"}),
    pod(
        "exit-code",
        {"containers": ONE},
        {"phase": "Running", "containerStatuses": [container_status("web", terminated={"exitCode": 137})]},
    ),
    pod("signal", {"containers": ONE}, {"phase": "Running", "containerStatuses": [container_status("web", terminated={"signal": 9})]}),
    pod(
        "half-done",
        {"containers": TWO},
        {
            "phase": "Running",
            "conditions": [READY],
            "containerStatuses": [
                container_status("web", terminated={"exitCode": 0, "reason": "Completed"}),
                container_status("log", is_ready=True, **RUNNING),
            ],
        },
    ),
    pod(
        "half-done-not-ready",
        {"containers": TWO},
        {
            "phase": "Running",
            "containerStatuses": [
                container_status("web", terminated={"exitCode": 0, "reason": "Completed"}),
                container_status("log", is_ready=True, **RUNNING),
            ],
        },
    ),
    pod(
        "terminating",
        {"containers": ONE, "nodeName": "n1"},
        {"phase": "Running", "containerStatuses": [container_status("web", is_ready=True, **RUNNING)]},
        deletionTimestamp=FIVE_MINUTES_AGO,
    ),
    pod("node-lost", {"containers": ONE}, {"phase": "Running", "reason": "NodeLost"}, deletionTimestamp=FIVE_MINUTES_AGO),
    pod(
        "init-running",
        {"containers": ONE, "initContainers": INIT},
        {
            "phase": "Pending",
            "initContainerStatuses": [container_status("setup", terminated={"exitCode": 0}), container_status("wait", **RUNNING)],
        },
    ),
    pod(
        "init-failing",
        {"containers": ONE, "initContainers": INIT},
        {
            "phase": "Pending",
            "initContainerStatuses": [
                container_status("setup", restarts=2, last_exit=TWO_MINUTES_AGO, waiting={"reason": "CrashLoopBackOff"})
            ],
        },
    ),
    pod(
        "init-exited",
        {"containers": ONE, "initContainers": INIT},
        {"phase": "Pending", "initContainerStatuses": [container_status("setup", terminated={"exitCode": 3})]},
    ),
    pod(
        "sidecar",
        {"containers": ONE, "initContainers": SIDECAR},
        {
            "phase": "Running",
            "initContainerStatuses": [{**container_status("mesh", is_ready=True, restarts=1, **RUNNING), "started": True}],
            "containerStatuses": [container_status("web", is_ready=True, **RUNNING)],
        },
    ),
    pod(
        "gated",
        {"containers": ONE, "schedulingGates": [{"name": "g"}]},
        {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]},
    ),
    pod("nominated", {"containers": ONE}, {"phase": "Pending", "nominatedNodeName": "n2"}, created=THREE_DAYS_AGO),
]

SERVICES: list[Object] = [
    {
        "metadata": meta("cluster"),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "10.96.0.9",
            "clusterIPs": ["10.96.0.9"],
            "selector": {"b": "2", "a": "1"},
            "ports": [{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
        },
    },
    {"metadata": meta("headless"), "spec": {"type": "ClusterIP", "clusterIP": "None"}},
    {
        "metadata": meta("node-port"),
        "spec": {"type": "NodePort", "clusterIP": "10.96.0.8", "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]},
    },
    {"metadata": meta("balancer-pending"), "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.7"}},
    {
        "metadata": meta("balancer"),
        "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.6", "externalIPs": ["192.0.2.9"]},
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.5"}, {"hostname": "lb.example.com"}]}},
    },
    {"metadata": meta("elsewhere"), "spec": {"type": "ExternalName", "externalName": "db.example.com"}},
    {"metadata": meta("external"), "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.5", "externalIPs": ["192.0.2.1", "192.0.2.2"]}},
]

NODES: list[Object] = [
    {
        "metadata": {
            "name": "n1",
            "creationTimestamp": THREE_DAYS_AGO,
            "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "edge"},
        },
        "status": {
            "conditions": [READY],
            "addresses": [{"type": "InternalIP", "address": "10.1.0.1"}, {"type": "ExternalIP", "address": "198.51.100.1"}],
            "nodeInfo": {
                "kubeletVersion": "v1.37.0",
                "osImage": "Debian GNU/Linux 12",
                "kernelVersion": "6.1.0",
                "containerRuntimeVersion": "containerd://2.1",
            },
        },
    },
    {
        "metadata": {"name": "n2", "creationTimestamp": FIVE_MINUTES_AGO},
        "spec": {"unschedulable": True},
        "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]},
    },
    {"metadata": {"name": "n3", "creationTimestamp": FIVE_MINUTES_AGO}},
]

CORE_EVENTS: list[Object] = [
    {
        "metadata": meta("web.1"),
        "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{web}"},
        "type": "Normal",
        "reason": "Pulled",
        "message": "Container image already present\n",
        "source": {"component": "kubelet", "host": "n1"},
        "firstTimestamp": FIVE_MINUTES_AGO,
        "lastTimestamp": TWO_MINUTES_AGO,
        "count": 4,
    },
    {
        "metadata": meta("web.2"),
        "involvedObject": {"kind": "Pod", "name": "web"},
        "type": "Warning",
        "reason": "FailedScheduling",
        "message": "0/1 nodes are available",
        "eventTime": "2027-01-15T07:55:00.000000Z",
        "reportingComponent": "default-scheduler",
        "reportingInstance": "default-scheduler-1",
        "series": {"count": 7, "lastObservedTime": "2027-01-15T07:59:30.000000Z"},
    },
    {"metadata": meta("n1.1"), "involvedObject": {"kind": "Node"}, "eventTime": "2027-01-15T07:55:00.000000Z"},
]
NEW_EVENTS: list[Object] = [
    {
        "metadata": meta("web.2"),
        "regarding": {"kind": "Pod", "name": "web"},
        "type": "Warning",
        "reason": "FailedScheduling",
        "note": "0/1 nodes are available",
        "eventTime": "2027-01-15T07:55:00.000000Z",
        "reportingController": "default-scheduler",
        "reportingInstance": "default-scheduler-1",
    }
]

REPLICAS: Object = {"replicas": 3, "readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2}
WORKLOAD: Object = {"metadata": meta("web"), "spec": {"replicas": 4, "selector": SELECTOR, "template": template()}, "status": REPLICAS}
NEW_WORKLOAD: Object = {"metadata": meta("new"), "spec": {"replicas": 1, "selector": {}, "template": {"spec": {"containers": ONE}}}}

JOBS: list[Object] = [
    {"metadata": meta("new"), "spec": {"completions": 3, "template": template()}},
    {
        "metadata": meta("running"),
        "spec": {"parallelism": 5, "selector": SELECTOR, "template": template()},
        "status": {"startTime": FIVE_MINUTES_AGO, "succeeded": 1},
    },
    {
        "metadata": meta("complete"),
        "spec": {"parallelism": 1, "template": template()},
        "status": {
            "startTime": FIVE_MINUTES_AGO,
            "completionTime": TWO_MINUTES_AGO,
            "succeeded": 1,
            "conditions": [{"type": "Complete", "status": "True"}],
        },
    },
    {"metadata": meta("failed"), "spec": {"completions": 1}, "status": {"conditions": [{"type": "Failed", "status": "True"}]}},
    {"metadata": meta("suspended"), "spec": {"completions": 1}, "status": {"conditions": [{"type": "Suspended", "status": "True"}]}},
    {"metadata": meta("ending", deletionTimestamp=FIVE_MINUTES_AGO), "spec": {"completions": 1}},
]

SUBSET: Object = {"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "ports": [{"port": 80}, {"port": 443}]}

_BINDING: Object = {"metadata": meta("limits"), "spec": {"policyName": "limits", "paramRef": {"name": "small", "namespace": "d"}}}
_POLICY_SPEC: Object = {"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "validations": [{}, {}], "mutations": [{}]}
# Kinds by which the API is extended.
EXTENSIONS: dict[tuple[str, str], list[Object]] = {
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies"): [{"metadata": meta("limits"), "spec": _POLICY_SPEC}],
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings"): [_BINDING],
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"): [{"metadata": meta("injector"), "webhooks": [{}, {}]}],
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"): [{"metadata": meta("limits"), "spec": {"validations": [{}]}}],
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"): [{"metadata": meta("limits"), "spec": {"policyName": "limits"}}],
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"): [{"metadata": meta("gate")}],
    ("apiregistration.k8s.io", "apiservices"): [
        {"metadata": meta("v1.apps"), "status": {"conditions": [{"type": "Available", "status": "True"}]}},
        {
            "metadata": meta("v1.far.example.com"),
            "spec": {"service": {"namespace": "d", "name": "far"}},
            "status": {"conditions": [{"type": "Available", "status": "False", "reason": "MissingEndpoints"}]},
        },
    ],
    ("apiextensions.k8s.io", "customresourcedefinitions"): [{"metadata": meta("things.example.com")}],
}

SAMPLES: dict[tuple[str, str], list[Object]] = {
    ("", "pods"): PODS,
    ("", "services"): SERVICES,
    ("", "nodes"): NODES,
    ("", "events"): CORE_EVENTS,
    ("events.k8s.io", "events"): NEW_EVENTS,
    ("", "endpoints"): [
        {"metadata": meta("empty")},
        {"metadata": meta("web"), "subsets": [SUBSET]},
        {
            "metadata": meta("six"),
            "subsets": [{"addresses": [{"ip": "fd00::1"}], "ports": [{"port": 80}]}, {"addresses": [{"ip": "10.0.0.9"}]}],
        },
    ],
    ("discovery.k8s.io", "endpointslices"): [
        {"metadata": meta("empty"), "addressType": "IPv4"},
        {
            "metadata": meta("web-abc"),
            "addressType": "IPv4",
            "ports": [{"port": 80}, {"name": "any"}, {}],
            "endpoints": [{"addresses": [f"10.0.0.{i}"]} for i in range(5)],
        },
    ],
    ("", "namespaces"): [{"metadata": {"name": "default", "creationTimestamp": THREE_DAYS_AGO}, "status": {"phase": "Active"}}],
    ("", "configmaps"): [
        {"metadata": meta("settings"), "data": {"a": "1", "b": "2"}, "binaryData": {"c": "AA=="}},
        {"metadata": meta("empty")},
    ],
    ("", "secrets"): [{"metadata": meta("key"), "type": "Opaque", "data": {"a": "MQ=="}}],
    ("", "serviceaccounts"): [{"metadata": meta("default")}, {"metadata": meta("old"), "secrets": [{"name": "s"}]}],
    ("", "replicationcontrollers"): [
        {"metadata": meta("web"), "spec": {"replicas": 4, "selector": {"app": "web"}, "template": template()}, "status": REPLICAS}
    ],
    ("", "podtemplates"): [{"metadata": meta("web"), "template": template()}],
    ("apps", "deployments"): [WORKLOAD, NEW_WORKLOAD],
    ("apps", "replicasets"): [WORKLOAD, NEW_WORKLOAD],
    ("apps", "statefulsets"): [WORKLOAD, NEW_WORKLOAD],
    ("apps", "daemonsets"): [
        {
            "metadata": meta("agent"),
            "spec": {"selector": SELECTOR, "template": template(nodeSelector={"disk": "ssd"})},
            "status": {
                "desiredNumberScheduled": 5,
                "currentNumberScheduled": 4,
                "numberReady": 3,
                "updatedNumberScheduled": 2,
                "numberAvailable": 1,
            },
        }
    ],
    ("apps", "controllerrevisions"): [
        {
            "metadata": meta(
                "agent-1", ownerReferences=[{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "controller": True}]
            ),
            "revision": 7,
        },
        {"metadata": meta("orphan"), "revision": 1},
    ],
    ("batch", "jobs"): JOBS,
    ("batch", "cronjobs"): [
        {
            "metadata": meta("nightly"),
            "spec": {
                "schedule": "0 3 * * *",
                "timeZone": "Europe/Berlin",
                "suspend": False,
                "jobTemplate": {"spec": {"template": template()}},
            },
            "status": {"active": [{"name": "nightly-1"}], "lastScheduleTime": TWO_MINUTES_AGO},
        },
        {"metadata": meta("new"), "spec": {"schedule": "@hourly", "jobTemplate": {"spec": {"template": template()}}}},
    ],
    **EXTENSIONS,
    ("coordination.k8s.io", "leases"): [{"metadata": meta("n1"), "spec": {"holderIdentity": "n1"}}, {"metadata": meta("free")}],
}
