"""What an object counts for in resource quotas, and which quotas it falls under. Admission and the quota controller both ask here.

Amounts are thousandths, whatever the resource, so that one kind of number is added up. Mirrors kubernetes' pkg/quota/v1/evaluator/core.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from korch.api import pods, quantity
from korch.api.meta import at
from korch.api.volumes import class_of

Object = Mapping[str, Any]

# Kinds that are counted under a name of their own beside `count/PLURAL[.GROUP]`.
_PLAIN = frozenset({"configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services"})
_BINARY = ("memory", "storage", "hugepages")
_COMPUTE = ("cpu", "memory", "ephemeral-storage")


def usage(group: str, plural: str, obj: Object) -> dict[str, int]:
    """Return what the object counts for, by resource name."""
    counted = {f"count/{plural}.{group}" if group else f"count/{plural}": 1000}
    if group:
        return counted
    if plural == "pods":
        return counted | _pod_usage(obj)
    if plural in _PLAIN:
        counted[plural] = 1000
    if plural == "services":
        counted |= _service_usage(obj)
    if plural == "persistentvolumeclaims":
        counted |= _claim_usage(obj)
    return counted


def names_for(group: str, plural: str, hard: Iterable[str]) -> set[str]:
    """Return which names of a quota's `hard` objects of this kind count for."""
    count = f"count/{plural}.{group}" if group else f"count/{plural}"
    found = {name for name in hard if name == count}
    if group:
        return found
    found |= {name for name in hard if name == plural and plural in _PLAIN}
    if plural == "services":
        found |= {name for name in hard if name.startswith("services.")}
    if plural == "persistentvolumeclaims":
        found |= {name for name in hard if name == "requests.storage" or ".storageclass.storage.k8s.io/" in name}
    if plural == "pods":
        found |= {name for name in hard if _is_compute(name)}
    return found


def is_selected(quota: Object, group: str, plural: str, obj: Object) -> bool:
    """Whether the object falls under the quota's scopes; a quota without scopes is for everything."""
    spec = quota.get("spec") or {}
    selectors = [{"scopeName": one, "operator": "Exists"} for one in spec.get("scopes") or ()]
    selectors += at(spec, "scopeSelector", "matchExpressions") or []
    if not selectors:
        return True
    return not group and plural == "pods" and all(_in_scope(one, obj) for one in selectors)


def missing_limits(pod: Object, names: Iterable[str]) -> dict[str, list[str]]:
    """Return which of the quota's compute resources containers do not name: resource -> containers. Mirrors podEvaluator.Constraints."""
    lacking: dict[str, list[str]] = {}
    for name in names:
        if name in ("pods", "count/pods"):
            continue
        field, _, resource = name.rpartition(".") if name.startswith(("requests.", "limits.")) else ("requests", "", name)
        if resource not in _COMPUTE and not resource.startswith("hugepages-"):
            continue
        if resource in (at(pod, "spec", "resources", field) or {}):
            continue
        for container in pods.all_containers(pod):
            if resource not in (at(container, "resources", field) or {}):
                lacking.setdefault(name, []).append(container.get("name") or "")
    return lacking


def amount_of(text: str | int | float) -> int:
    """Return a quantity in thousandths. Raises ValueError."""
    return quantity.milli(text)


def shown(name: str, amount: int) -> str:
    """Return an amount as a quantity: bytes in binary units, all else in decimal ones."""
    if amount % 1000 == 0 and any(word in name for word in _BINARY):
        return quantity.from_bytes(amount // 1000)
    return quantity.from_milli(amount)


def _pod_usage(pod: Object) -> dict[str, int]:
    if pods.is_terminal(pod):
        return {}
    found = {"pods": 1000}
    for name, amount in pods.requests(pod).items():
        milli = amount if name == "cpu" else amount * 1000
        found[f"requests.{name}"] = milli
        if name in _COMPUTE or name.startswith("hugepages-"):
            found[name] = milli
    for name, amount in pods.limits(pod).items():
        if name in _COMPUTE:
            found[f"limits.{name}"] = amount if name == "cpu" else amount * 1000
    return found


def _service_usage(service: Object) -> dict[str, int]:
    spec = service.get("spec") or {}
    ports, kind = len(spec.get("ports") or ()), spec.get("type")
    if kind == "NodePort":
        return {"services.nodeports": ports * 1000}
    if kind == "LoadBalancer":
        allocated = sum(1 for port in spec.get("ports") or () if port.get("nodePort"))
        has_ports = spec.get("allocateLoadBalancerNodePorts") is not False
        return {"services.loadbalancers": 1000, "services.nodeports": (ports if has_ports else allocated) * 1000}
    return {}


def _claim_usage(claim: Object) -> dict[str, int]:
    size = at(claim, "spec", "resources", "requests", "storage")
    found = {"requests.storage": quantity.milli(size)} if size is not None else {}
    if name := class_of(dict(claim)):
        prefix = f"{name}.storageclass.storage.k8s.io/"
        found |= {f"{prefix}persistentvolumeclaims": 1000}
        if size is not None:
            found[f"{prefix}requests.storage"] = found["requests.storage"]
    return found


def _is_compute(name: str) -> bool:
    if name == "requests.storage" or name.startswith("count/"):
        return False
    return name in _COMPUTE or name.startswith(("requests.", "limits.", "hugepages-"))


def _in_scope(selector: Object, pod: Object) -> bool:
    name, operator, values = selector.get("scopeName"), selector.get("operator"), selector.get("values") or ()
    if name == "PriorityClass":
        class_name = at(pod, "spec", "priorityClassName") or ""
        return {
            "Exists": bool(class_name),
            "DoesNotExist": not class_name,
            "In": class_name in values,
            "NotIn": class_name not in values,
        }.get(operator or "", False)
    if name in ("Terminating", "NotTerminating"):
        return ((at(pod, "spec", "activeDeadlineSeconds")) is not None) == (name == "Terminating")
    if name in ("BestEffort", "NotBestEffort"):
        return (pods.qos_class(pod) == "BestEffort") == (name == "BestEffort")
    if name == "CrossNamespacePodAffinity":
        return _reaches_other_namespaces(pod)
    return False


def _reaches_other_namespaces(pod: Object) -> bool:
    for kind in ("podAffinity", "podAntiAffinity"):
        affinity = at(pod, "spec", "affinity", kind) or {}
        terms = list(affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or ())
        terms += [one.get("podAffinityTerm") or {} for one in affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()]
        if any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms):
            return True
    return False
