"""On which nodes a daemon pod belongs, and how a pod is tied to its node. Mirrors NodeShouldRunDaemonPod and pkg/controller/daemon/util."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from korch.api.meta import at, labels_of, name_of
from korch.controllers.nodes.tolerations import tolerates

Object = dict[str, Any]

# What daemon pods bear with, so that they run on nodes that are in trouble: (key, effect).
_TOLERATED = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
_NETWORK_UNAVAILABLE = ("node.kubernetes.io/network-unavailable", "NoSchedule")


def with_daemon_tolerations(spec: Object) -> Object:
    """Return the pod spec with the tolerations of daemon pods added."""
    wanted = [*_TOLERATED, _NETWORK_UNAVAILABLE] if spec.get("hostNetwork") else list(_TOLERATED)
    present = list(spec.get("tolerations") or [])
    added = [{"key": key, "operator": "Exists", "effect": effect} for key, effect in wanted]
    return {**spec, "tolerations": present + [one for one in added if one not in present]}


def tie_to_node(spec: Object, node: str) -> Object:
    """Return the pod spec with a required node affinity for exactly this node, so that the scheduler may choose no other."""
    affinity = dict(spec.get("affinity") or {})
    node_affinity = dict(affinity.get("nodeAffinity") or {})
    required = node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = [{**term, "matchFields": [field]} for term in required.get("nodeSelectorTerms") or [{}]]
    node_affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": terms}
    return {**spec, "affinity": {**affinity, "nodeAffinity": node_affinity}}


def target_of(pod: Object) -> str:
    """Return the node a daemon pod runs on or is tied to; empty when neither can be told."""
    if name := at(pod, "spec", "nodeName"):
        return name
    required = at(pod, "spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            if field.get("key") == "metadata.name" and field.get("operator") == "In" and len(field.get("values") or ()) == 1:
                return field["values"][0]
    return ""


def should_run(spec: Object, node: Object) -> tuple[bool, bool]:
    """Return (a pod should be made here, one that is here may stay). `spec` has the daemon tolerations already."""
    if spec.get("nodeName") not in (None, "", name_of(node)) or not _selects(spec, node):
        return False, False
    untolerated = [
        taint
        for taint in at(node, "spec", "taints") or ()
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not any(tolerates(one, taint) for one in spec.get("tolerations") or ())
    ]
    if not untolerated:
        return True, True
    return False, all(taint.get("effect") != "NoExecute" for taint in untolerated)


def _selects(spec: Object, node: Object) -> bool:
    labels = labels_of(node)
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    required = at(spec, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(_term_matches(term, labels, name_of(node)) for term in required.get("nodeSelectorTerms") or ())


def _term_matches(term: Object, labels: dict[str, str], name: str) -> bool:
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    return _all_match(expressions, labels) and _all_match(fields, {"metadata.name": name})


def _all_match(expressions: Sequence[Object], values: dict[str, str]) -> bool:
    return all(_matches(one, values.get(one["key"])) for one in expressions)


def _matches(expression: Object, have: str | None) -> bool:
    operator: str = expression.get("operator", "")
    wanted: list[str] = expression.get("values") or []
    if operator == "In":
        return have is not None and have in wanted
    if operator == "NotIn":
        return have is None or have not in wanted
    if operator == "Exists":
        return have is not None
    if operator == "DoesNotExist":
        return have is None
    try:
        left, right = int(have or ""), int(wanted[0])
    except (ValueError, IndexError):
        return False
    return left > right if operator == "Gt" else left < right
