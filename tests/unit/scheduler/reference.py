"""kube-scheduler's default profile, written for clarity alone: plain dicts, whole scans, nothing remembered between two pods.

Nodes are given in visiting order. `choose` returns the node for a pod, or None, and never changes what it is given.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

Object = dict[str, Any]
HOSTNAME = "kubernetes.io/hostname"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
SUFFIXES = {"m": Fraction(1, 1000), "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3, "": 1}


def amount(text: str, unit: Fraction = Fraction(1)) -> int:
    """Return a quantity in `unit`s, rounded up."""
    suffix = next(one for one in SUFFIXES if text.endswith(one))
    return math.ceil(Fraction(text.removesuffix(suffix)) * SUFFIXES[suffix] / unit)


def request(pod: Object, resource: str, default: int = 0) -> int:
    """Return what the pod's containers ask for together; `default` for each that leaves the resource out."""
    unit = Fraction(1, 1000) if resource == "cpu" else Fraction(1)
    asked = [one.get("resources", {}).get("requests", {}).get(resource) for one in pod["spec"]["containers"]]
    return sum(default if one is None else amount(one, unit) for one in asked)


def labels(thing: Object) -> dict[str, str]:
    return thing["metadata"].get("labels", {})


def selects(selector: Object | None, found: dict[str, str]) -> bool:
    """Return whether a label selector matches; an absent one matches nothing."""
    if selector is None:
        return False
    if any(found.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for one in selector.get("matchExpressions", []):
        value = found.get(one["key"])
        holds = {
            "In": value in one.get("values", []),
            "NotIn": value not in one.get("values", []),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not holds[one["operator"]]:
            return False
    return True


class Cluster:
    """Nodes in visiting order, and the pods on them."""

    def __init__(self, nodes: list[Object], namespaces: dict[str, dict[str, str]]) -> None:
        self.nodes = nodes
        self.namespaces = namespaces
        self.pods: list[tuple[Object, Object]] = []

    def place(self, pod: Object, node: Object) -> None:
        self.pods.append((pod, node))

    def on(self, node: Object) -> list[Object]:
        return [pod for pod, where in self.pods if where is node]

    def choose(self, pod: Object) -> Object | None:
        """Return the node that the pod goes to."""
        feasible = [node for node in self.nodes if all(check(self, pod, node) for check in FILTERS)]
        if not feasible:
            return None
        totals = [0] * len(feasible)
        for weight, score in SCORES:
            for at, value in enumerate(score(self, pod, feasible)):
                totals[at] += weight * value
        best = [at for at, total in enumerate(totals) if total == max(totals)]
        return feasible[min(best, key=preorder)]


def preorder(position: int) -> str:
    """Return the path from the root of a binary heap to a position; sorted as text this is pre-order."""
    return bin(position + 1)[3:]


# Filters


def tolerates(pod: Object, taint: Object) -> bool:
    for one in pod["spec"].get("tolerations", []):
        same_key = one.get("key", "") in ("", taint["key"])
        same_effect = one.get("effect", "") in ("", taint["effect"])
        same_value = one.get("operator", "Equal") == "Exists" or one.get("value", "") == taint.get("value", "")
        if same_key and same_effect and same_value:
            return True
    return False


def taints_tolerated(_: Cluster, pod: Object, node: Object) -> bool:
    return all(tolerates(pod, one) for one in node["spec"].get("taints", []) if one["effect"] in ("NoSchedule", "NoExecute"))


def node_term_matches(term: Object, node: Object) -> bool:
    return bool(term["matchExpressions"]) and selects({"matchExpressions": term["matchExpressions"]}, labels(node))


def node_affinity(_: Cluster, pod: Object, node: Object) -> bool:
    if any(labels(node).get(key) != value for key, value in pod["spec"].get("nodeSelector", {}).items()):
        return False
    required = pod["spec"].get("affinity", {}).get("nodeAffinity", {}).get(REQUIRED)
    return required is None or any(node_term_matches(term, node) for term in required["nodeSelectorTerms"])


def ports_free(cluster: Cluster, pod: Object, node: Object) -> bool:
    def held(one: Object) -> set[int]:
        return {port["hostPort"] for container in one["spec"]["containers"] for port in container.get("ports", [])}

    return all(held(pod).isdisjoint(held(other)) for other in cluster.on(node))


def resources_fit(cluster: Cluster, pod: Object, node: Object) -> bool:
    there = cluster.on(node)
    total = node["status"]["allocatable"]
    if len(there) + 1 > amount(total["pods"]):
        return False
    for resource, unit in (("cpu", Fraction(1, 1000)), ("memory", Fraction(1))):
        wanted = request(pod, resource)
        if wanted and wanted > amount(total[resource], unit) - sum(request(one, resource) for one in there):
            return False
    return True


def constraints(pod: Object, action: str) -> list[Object]:
    return [one for one in pod["spec"].get("topologySpreadConstraints", []) if one["whenUnsatisfiable"] == action]


def matching(cluster: Cluster, pod: Object, constraint: Object, node: Object) -> int:
    selector = constraint["labelSelector"]
    same = [one for one in cluster.on(node) if one["metadata"]["namespace"] == pod["metadata"]["namespace"]]
    return sum(selects(selector, labels(one)) for one in same) if selector else 0


def spread_evenly(cluster: Cluster, pod: Object, node: Object) -> bool:
    hard = constraints(pod, "DoNotSchedule")
    keys = [one["topologyKey"] for one in hard]
    for one in hard:
        key = one["topologyKey"]
        if key not in labels(node):
            return False
        counts: dict[str, int] = {}
        for other in cluster.nodes:
            if all(one in labels(other) for one in keys) and node_affinity(cluster, pod, other):
                domain = labels(other)[key]
                counts[domain] = counts.get(domain, 0) + matching(cluster, pod, one, other)
        least = 0 if len(counts) < one.get("minDomains", 1) else min(counts.values(), default=0)
        itself = int(selects(one["labelSelector"], labels(pod)))
        if counts.get(labels(node)[key], 0) + itself - least > one["maxSkew"]:
            return False
    return True


def pod_terms(pod: Object, kind: str, strength: str) -> list[Object]:
    return pod["spec"].get("affinity", {}).get(kind, {}).get(strength, [])


def term_matches(cluster: Cluster, owner: Object, term: Object, other: Object) -> bool:
    namespace = other["metadata"]["namespace"]
    named = term.get("namespaces", [])
    if not named and term.get("namespaceSelector") is None:
        named = [owner["metadata"]["namespace"]]
    selected = selects(term.get("namespaceSelector"), cluster.namespaces.get(namespace, {}))
    return (namespace in named or selected) and selects(term.get("labelSelector"), labels(other))


def together(node: Object, other: Object, key: str) -> bool:
    return key in labels(node) and key in labels(other) and labels(node)[key] == labels(other)[key]


def pod_affinity(cluster: Cluster, pod: Object, node: Object) -> bool:
    terms = pod_terms(pod, "podAffinity", REQUIRED)
    if terms:
        if any(one["topologyKey"] not in labels(node) for one in terms):
            return False
        wanted = [where for other, where in cluster.pods if all(term_matches(cluster, pod, one, other) for one in terms)]
        reachable = [where for where in wanted if any(one["topologyKey"] in labels(where) for one in terms)]
        is_first = not reachable and all(term_matches(cluster, pod, one, pod) for one in terms)
        if not is_first and not all(any(together(node, where, one["topologyKey"]) for where in wanted) for one in terms):
            return False
    for other, where in cluster.pods:
        for one in pod_terms(pod, "podAntiAffinity", REQUIRED):
            if term_matches(cluster, pod, one, other) and together(node, where, one["topologyKey"]):
                return False
        for one in pod_terms(other, "podAntiAffinity", REQUIRED):
            if term_matches(cluster, other, one, pod) and together(node, where, one["topologyKey"]):
                return False
    return True


FILTERS = [taints_tolerated, node_affinity, ports_free, resources_fit, spread_evenly, pod_affinity]


# Scores: each returns 0..100 for every feasible node.


def least_allocated(cluster: Cluster, pod: Object, nodes: list[Object]) -> list[int]:
    defaults = {"cpu": 100, "memory": 200 * 1024**2}

    def score(node: Object, resource: str, unit: Fraction) -> int:
        total = amount(node["status"]["allocatable"][resource], unit)
        used = sum(request(one, resource, defaults[resource]) for one in [*cluster.on(node), pod])
        return max(0, total - used) * 100 // total

    return [(score(node, "cpu", Fraction(1, 1000)) + score(node, "memory", Fraction(1))) // 2 for node in nodes]


def balanced(cluster: Cluster, pod: Object, nodes: list[Object]) -> list[int]:
    if not request(pod, "cpu") and not request(pod, "memory"):
        return [0] * len(nodes)

    def balance(node: Object, pods: list[Object]) -> int:
        shares = []
        for resource, unit in (("cpu", Fraction(1, 1000)), ("memory", Fraction(1))):
            total = amount(node["status"]["allocatable"][resource], unit)
            shares.append(min(1.0, sum(request(one, resource) for one in pods) / total))
        return int((1 - abs((shares[0] - shares[1]) / 2)) * 100)

    def score(node: Object) -> int:
        return 50 + int((50 + balance(node, [*cluster.on(node), pod]) - balance(node, cluster.on(node))) / 2)

    return [score(node) for node in nodes]


def few_soft_taints(_: Cluster, pod: Object, nodes: list[Object]) -> list[int]:
    def count(node: Object) -> int:
        return sum(not tolerates(pod, one) for one in node["spec"].get("taints", []) if one["effect"] == "PreferNoSchedule")

    raw = [count(node) for node in nodes]
    return [100 - 100 * one // max(raw) if max(raw) else 100 for one in raw]


def preferred_nodes(_: Cluster, pod: Object, nodes: list[Object]) -> list[int]:
    terms = pod["spec"].get("affinity", {}).get("nodeAffinity", {}).get(PREFERRED, [])
    raw = [sum(one["weight"] for one in terms if node_term_matches(one["preference"], node)) for node in nodes]
    return [100 * one // max(raw) if max(raw) else 0 for one in raw]


def spread_softly(cluster: Cluster, pod: Object, nodes: list[Object]) -> list[int]:
    soft = constraints(pod, "ScheduleAnyway")
    if not soft:
        return [0] * len(nodes)
    keys = [one["topologyKey"] for one in soft]

    def has_all(node: Object) -> bool:
        return all(key in labels(node) for key in keys)

    scored = [node for node in nodes if has_all(node)]
    raw: dict[int, int] = {}
    for node in scored:
        total = 0.0
        for one in soft:
            key = one["topologyKey"]
            if key == HOSTNAME:
                count, size = matching(cluster, pod, one, node), len(scored)
            else:
                counted = [other for other in cluster.nodes if has_all(other) and node_affinity(cluster, pod, other)]
                count = sum(matching(cluster, pod, one, other) for other in counted if together(node, other, key))
                size = len({labels(other)[key] for other in scored})
            total += count * math.log(size + 2) + (one["maxSkew"] - 1)
        raw[id(node)] = math.floor(total + 0.5)
    most, least = max(raw.values(), default=0), min(raw.values(), default=0)
    return [(100 * (most + least - raw[id(node)]) // most if most else 100) if id(node) in raw else 0 for node in nodes]


def liked_pods(cluster: Cluster, pod: Object, nodes: list[Object]) -> list[int]:
    raw = [0] * len(nodes)

    def add(where: Object, key: str, weight: int) -> None:
        for at, node in enumerate(nodes):
            raw[at] += weight if together(node, where, key) else 0

    for other, where in cluster.pods:
        for sign, kind in ((1, "podAffinity"), (-1, "podAntiAffinity")):
            for owner, found in ((pod, other), (other, pod)):
                for one in pod_terms(owner, kind, PREFERRED):
                    if term_matches(cluster, owner, one["podAffinityTerm"], found):
                        add(where, one["podAffinityTerm"]["topologyKey"], sign * one["weight"])
        for one in pod_terms(other, "podAffinity", REQUIRED):
            if term_matches(cluster, other, one, pod):
                add(where, one["topologyKey"], 1)
    least, most = min(raw), max(raw)
    return [int(100 * ((one - least) / (most - least))) if most > least else 0 for one in raw]


SCORES = [(1, least_allocated), (1, balanced), (3, few_soft_taints), (2, preferred_nodes), (2, spread_softly), (2, liked_pods)]
