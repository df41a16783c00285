"""Tells in every PodDisruptionBudget's status how many of its pods may be evicted now.

Watches budgets and pods; writes the budgets' status. How many pods there should be is asked of the workloads that own them.
Invariant: an eviction that the API server has granted (`disruptedPods`) counts as lost until the pod is gone, or for two minutes.
Mirrors upstream pkg/controller/disruption.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from korch.api.errors import NotFound
from korch.api.gvk import (
    DEPLOYMENTS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    STATEFUL_SETS,
    ResourceRef,
)
from korch.api.meta import at, controller_of, is_deleting, key_of, labels_of, name_of, namespace_of
from korch.api.pods import is_ready, is_terminal
from korch.api.validation import is_empty_selector, percent_of, selector_matches
from korch.client.controller import Controller, Requeue, Watch, namespaces
from korch.controllers.workload.controller import decode_object, same_key
from korch.controllers.workload.pods import decode_pod
from korch.runtime.clock import parse_rfc3339, rfc3339

Object = dict[str, Any]

# An eviction that did not lead to a deletion for this long has failed.
DELETION_TIMEOUT_S = 120.0
_OWNERS = {one.kind: one for one in (DEPLOYMENTS, REPLICA_SETS, REPLICATION_CONTROLLERS, STATEFUL_SETS)}


class DisruptionController(Controller):
    """Reconciles one budget a key."""

    name = "disruption-controller"
    workers = 2
    watches = (
        Watch(POD_DISRUPTION_BUDGETS, keys=same_key, decode=decode_object, indexes={"namespace": namespaces}),
        Watch(PODS, keys="budgets_of_pod", decode=decode_pod, indexes={"namespace": namespaces}),
    )

    def budgets_of_pod(self, pod: Object) -> Iterable[str]:
        """Map a pod to the budgets that select it."""
        budgets = self.informer(POD_DISRUPTION_BUDGETS).by_index("namespace", namespace_of(pod))
        return [key_of(one) for one in budgets if selects(one, pod)]

    async def reconcile(self, key: str) -> Requeue | None:
        budget = self.informer(POD_DISRUPTION_BUDGETS).get_by_key(key)
        if budget is None:
            return None
        namespace, now = namespace_of(budget), self.runtime.clock.now()
        pods = [one for one in self.informer(PODS).by_index("namespace", namespace) if selects(budget, one) and not is_terminal(one)]
        expected, desired = await self._expected(budget, pods)
        disrupted = _still_disrupted(budget, pods, now)
        healthy = sum(1 for pod in pods if is_ready(pod) and not is_deleting(pod) and name_of(pod) not in disrupted)
        allowed = max(0, healthy - desired) if expected > 0 else 0
        status: Object = {
            "observedGeneration": at(budget, "metadata", "generation") or 0,
            "disruptionsAllowed": allowed,
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "expectedPods": expected,
        }
        if disrupted:
            status["disruptedPods"] = disrupted
        status["conditions"] = [_condition(budget, allowed, now)]
        if status != (budget.get("status") or {}):
            body = {**budget, "status": status}
            written = await self.client.update(
                POD_DISRUPTION_BUDGETS, body, name=name_of(budget), namespace=namespace, subresource="status"
            )
            self.wrote(key, POD_DISRUPTION_BUDGETS, written)
        return Requeue(DELETION_TIMEOUT_S) if disrupted else None

    async def _expected(self, budget: Object, pods: Sequence[Object]) -> tuple[int, int]:
        """Return how many pods there should be, and how many of them must be healthy."""
        least, most_missing = at(budget, "spec", "minAvailable"), at(budget, "spec", "maxUnavailable")
        if least is not None and percent_of(least) is None:
            return len(pods), int(least)
        if least is None and most_missing is None:
            return len(pods), 1
        expected = await self._wanted_by_owners(pods)
        if most_missing is not None:
            share = percent_of(most_missing)
            missing = int(most_missing) if share is None else math.ceil(expected * share / 100)
            return expected, max(0, expected - missing)
        return expected, math.ceil(expected * (percent_of(least) or 0) / 100)

    async def _wanted_by_owners(self, pods: Sequence[Object]) -> int:
        """Return the sum of the replicas of the workloads that own these pods; pods without an owner count for nothing."""
        wanted: dict[str, int] = {}
        owners = {at(owner, "uid"): (owner, namespace_of(pod)) for pod in pods if (owner := controller_of(pod)) is not None}
        for owner, namespace in owners.values():
            resource = _OWNERS.get(owner.get("kind") or "")
            found = await self._get(resource, namespace, owner.get("name") or "")
            upper = controller_of(found) if found is not None else None
            if found is not None and upper is not None and upper.get("kind") == "Deployment":
                found = await self._get(DEPLOYMENTS, namespace, upper.get("name") or "") or found
            if found is not None:
                wanted[found["metadata"]["uid"]] = at(found, "spec", "replicas") or 0
        return sum(wanted.values())

    async def _get(self, resource: ResourceRef | None, namespace: str, name: str) -> Object | None:
        if resource is None:
            return None
        try:
            return orjson.loads(await self.client.get(resource, name, namespace=namespace))
        except NotFound:
            return None


def selects(budget: Object, pod: Object) -> bool:
    """Whether the budget is about this pod; an empty selector is about every pod of the namespace, a missing one about none."""
    selector = at(budget, "spec", "selector")
    return selector is not None and (is_empty_selector(selector) or selector_matches(selector, labels_of(pod)))


def _still_disrupted(budget: Object, pods: Sequence[Object], now: float) -> dict[str, str]:
    living = {name_of(pod) for pod in pods if not is_deleting(pod)}
    granted: dict[str, str] = at(budget, "status", "disruptedPods") or {}
    return {name: since for name, since in granted.items() if name in living and now - parse_rfc3339(since) < DELETION_TIMEOUT_S}


def _condition(budget: Object, allowed: int, now: float) -> Object:
    status, reason = ("True", "SufficientPods") if allowed > 0 else ("False", "InsufficientPods")
    before = next((one for one in at(budget, "status", "conditions") or () if one.get("type") == "DisruptionAllowed"), {})
    since = before.get("lastTransitionTime") if before.get("status") == status else rfc3339(now)
    condition = {"type": "DisruptionAllowed", "status": status, "reason": reason, "message": "", "lastTransitionTime": since}
    return {**condition, "observedGeneration": at(budget, "metadata", "generation") or 0}
