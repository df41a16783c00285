"""The flow schemas and priority levels that every cluster has, mandatory and suggested ones.

Mirrors apiserver's pkg/apis/flowcontrol/bootstrap/default.go.
"""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

_API_VERSION = "flowcontrol.apiserver.k8s.io/v1"
_LEASES = ("coordination.k8s.io",)
# name -> (shares, lendable percent, queues, hand size, queue length); no queues: requests beyond the share are refused.
_LEVELS: dict[str, tuple[int, int, int, int, int]] = {
    "catch-all": (5, 0, 0, 0, 0),
    "system": (30, 33, 64, 6, 50),
    "node-high": (40, 25, 64, 6, 50),
    "leader-election": (10, 0, 16, 4, 50),
    "workload-high": (40, 50, 128, 6, 50),
    "workload-low": (100, 90, 128, 6, 50),
    "global-default": (20, 50, 128, 6, 50),
}


def priority_levels() -> list[Object]:
    """Return every default PriorityLevelConfiguration."""
    exempt: Object = {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}
    levels = [_object("PriorityLevelConfiguration", "exempt", exempt)]
    for name, (shares, lendable, queues, hand, length) in _LEVELS.items():
        response: Object = {"type": "Reject"}
        if queues:
            response = {"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length}}
        limited: Object = {"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response}
        levels.append(_object("PriorityLevelConfiguration", name, {"type": "Limited", "limited": limited}))
    return levels


def flow_schemas() -> list[Object]:
    """Return every default FlowSchema."""
    everybody = [_group("system:unauthenticated"), _group("system:authenticated")]
    anything = {"resourceRules": [_resources()], "nonResourceRules": [_urls("*")]}
    accounts = _account("kube-system", "*")
    leases = _resources(verbs=("get", "create", "update"), groups=_LEASES, resources=("leases",))
    return [
        _schema("exempt", "exempt", 1, "", [{"subjects": [_group("system:masters")], **anything}]),
        _schema("catch-all", "catch-all", 10000, "ByUser", [{"subjects": everybody, **anything}]),
        _schema(
            "probes", "exempt", 2, "", [{"subjects": everybody, "nonResourceRules": [_urls("/healthz", "/readyz", "/livez", verb="get")]}]
        ),
        _schema(
            "system-leader-election",
            "leader-election",
            100,
            "ByUser",
            [{"subjects": [_user("system:kube-controller-manager"), _user("system:kube-scheduler"), accounts], "resourceRules": [leases]}],
        ),
        _schema(
            "endpoint-controller",
            "workload-high",
            150,
            "ByUser",
            [
                {
                    "subjects": [_user("system:kube-controller-manager"), _account("kube-system", "endpoint-controller")],
                    "resourceRules": [_resources(verbs=("get", "create", "update"), groups=("",), resources=("endpoints",))],
                }
            ],
        ),
        _schema("workload-leader-election", "leader-election", 200, "ByUser", [{"subjects": [accounts], "resourceRules": [leases]}]),
        _schema(
            "system-node-high",
            "node-high",
            400,
            "ByUser",
            [
                {
                    "subjects": [_group("system:nodes")],
                    "resourceRules": [
                        _resources(groups=("",), resources=("nodes", "nodes/status")),
                        _resources(groups=_LEASES, resources=("leases",)),
                    ],
                }
            ],
        ),
        _schema("system-nodes", "system", 500, "ByUser", [{"subjects": [_group("system:nodes")], **anything}]),
        _schema(
            "kube-controller-manager",
            "workload-high",
            800,
            "ByNamespace",
            [{"subjects": [_user("system:kube-controller-manager")], **anything}],
        ),
        _schema("kube-scheduler", "workload-high", 800, "ByNamespace", [{"subjects": [_user("system:kube-scheduler")], **anything}]),
        _schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", [{"subjects": [accounts], **anything}]),
        _schema("service-accounts", "workload-low", 9000, "ByUser", [{"subjects": [_group("system:serviceaccounts")], **anything}]),
        _schema("global-default", "global-default", 9900, "ByUser", [{"subjects": everybody, **anything}]),
    ]


def _object(kind: str, name: str, spec: Object) -> Object:
    annotations = {"apf.kubernetes.io/autoupdate-spec": "true"}
    return {"kind": kind, "apiVersion": _API_VERSION, "metadata": {"name": name, "annotations": annotations}, "spec": spec}


def _schema(name: str, level: str, precedence: int, distinguisher: str, rules: list[Object]) -> Object:
    spec: Object = {"priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": rules}
    if distinguisher:
        spec["distinguisherMethod"] = {"type": distinguisher}
    return _object("FlowSchema", name, spec)


def _group(name: str) -> Object:
    return {"kind": "Group", "group": {"name": name}}


def _user(name: str) -> Object:
    return {"kind": "User", "user": {"name": name}}


def _account(namespace: str, name: str) -> Object:
    return {"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}}


def _resources(*, verbs: tuple[str, ...] = ("*",), groups: tuple[str, ...] = ("*",), resources: tuple[str, ...] = ("*",)) -> Object:
    return {"verbs": list(verbs), "apiGroups": list(groups), "resources": list(resources), "clusterScope": True, "namespaces": ["*"]}


def _urls(*urls: str, verb: str = "*") -> Object:
    return {"verbs": [verb], "nonResourceURLs": list(urls)}
