"""`pods/eviction`: a polite deletion. The request names the pod and, inside, the options of its deletion.

A disruption budget that selects the pod must allow one more disruption; granting it is written into the budget's status before the
pod is deleted, so that two evictions never share one allowance. Pods that have ended, have not started or are being deleted are
simply deleted. Each is marked with the condition DisruptionTarget before. Mirrors registry/core/pod/storage/eviction.go.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import orjson

from korch.api.conditions import set_condition
from korch.api.errors import ApiError, BadRequest, InternalError, TooManyRequests
from korch.api.meta import at, is_deleting, labels_of
from korch.api.pods import is_ready, is_terminal
from korch.api.validation import is_empty_selector, selector_matches
from korch.apiserver import objects
from korch.apiserver.encoding import dump, success
from korch.apiserver.options import RemovalOptions, WriteOptions, removal_options
from korch.apiserver.pipeline import Outcome, Pipeline, Target
from korch.resources.policy import poddisruptionbudget
from korch.runtime.clock import rfc3339

Object = dict[str, Any]

SCHEMA = "io.k8s.api.policy.v1.Eviction"
_VIOLATION = "Cannot evict pod as it would violate the pod's disruption budget."
_RETRY_S = 10
_CONDITION = "DisruptionTarget"


async def create(pipeline: Pipeline, target: Target, body: bytes, options: WriteOptions) -> Outcome:
    """Delete the pod as the Eviction says. Raises NotFound, Conflict (preconditions), BadRequest, TooManyRequests."""
    warnings: list[str] = []
    eviction = pipeline.codec.decode_as(SCHEMA, "Eviction", "policy/v1", body, options.field_validation, warnings)
    named = eviction["metadata"].get("name") or target.name
    if named != target.name:
        raise BadRequest("name in URL does not match name in Eviction object")
    removal = RemovalOptions(is_dry_run=options.is_dry_run)
    if eviction.get("deleteOptions"):
        removal = removal_options({}, dump(eviction["deleteOptions"]))
    main = Target(resource=target.resource, namespace=target.namespace, name=target.name, user=target.user)
    await pipeline.admit_creation(target, eviction, warnings)
    pod: Object = orjson.loads(pipeline.get(main))
    is_free = is_terminal(pod) or at(pod, "status", "phase") == "Pending" or is_deleting(pod)
    if not is_free:
        await _claim_disruption(pipeline, target, pod, is_dry_run=removal.is_dry_run)
    if not removal.is_dry_run:
        removal = await _mark(pipeline, main, removal)
    await pipeline.delete(main, removal)
    return Outcome(dump(success()), 201, warnings)


async def _mark(pipeline: Pipeline, main: Target, removal: RemovalOptions) -> RemovalOptions:
    """Say in the pod's status why it goes, so that a Job need not count it as failed; return the options of its deletion, which mean the
    marked pod where they named a version of it. Raises NotFound, Conflict (preconditions). Mirrors addConditionAndDeletePod."""

    def mark(old: Object, old_bytes: bytes) -> Object:
        objects.check_preconditions(main.resource, old, uid=removal.uid, resource_version=removal.resource_version)
        new: Object = orjson.loads(old_bytes)
        status = new.setdefault("status", {})
        set_condition(
            status, _CONDITION, "True", now=pipeline.runtime.clock.now(), reason="EvictionByEvictionAPI", message="Eviction API: evicting"
        )
        return new

    status_of = msgspec.structs.replace(main, subresource="status")
    marked = await pipeline.modify(status_of, mark, WriteOptions(), prepare=objects.prepare_status_update)
    if not removal.resource_version:
        return removal
    return replace(removal, resource_version=orjson.loads(marked)["metadata"]["resourceVersion"])


async def _claim_disruption(pipeline: Pipeline, target: Target, pod: Object, *, is_dry_run: bool) -> None:
    """Take one disruption from the pod's budget. Raises TooManyRequests when there is none left."""
    resource = poddisruptionbudget.RESOURCE
    found = (orjson.loads(value) for value in pipeline.records.storage.range(resource.key_prefix(target.namespace)).values)
    budgets = [one for one in found if _selects(one, pod)]
    if not budgets:
        return
    if len(budgets) > 1:
        raise InternalError("This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.")
    budget = budgets[0]
    if _may_go_unhealthy(budget, pod):
        return
    name = budget["metadata"]["name"]

    def take(old: Object, old_bytes: bytes) -> Object:
        _require_allowance(old)
        new: Object = orjson.loads(old_bytes)
        status = new["status"]
        status["disruptionsAllowed"] -= 1
        now = rfc3339(pipeline.runtime.clock.now())
        status["disruptedPods"] = {**(status.get("disruptedPods") or {}), target.name: now}
        return new

    at_budget = Target(resource=resource, namespace=target.namespace, name=name, subresource="status")
    await pipeline.modify(at_budget, take, WriteOptions(is_dry_run=is_dry_run), prepare=objects.prepare_status_update)


def _require_allowance(budget: Object) -> None:
    metadata, status = budget["metadata"], budget.get("status") or {}
    name = metadata["name"]
    if (status.get("observedGeneration") or 0) < (metadata.get("generation") or 0):
        raise _refusal(f"The disruption budget {name} is still being processed by the server.", _RETRY_S)
    if (status.get("disruptionsAllowed") or 0) <= 0:
        needed, present = status.get("desiredHealthy") or 0, status.get("currentHealthy") or 0
        raise _refusal(f"The disruption budget {name} needs {needed} healthy pods and has {present} currently", 0)


def _may_go_unhealthy(budget: Object, pod: Object) -> bool:
    """Whether a pod that is not ready may go without touching the budget."""
    if is_ready(pod):
        return False
    if at(budget, "spec", "unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    desired = at(budget, "status", "desiredHealthy") or 0
    return desired > 0 and (at(budget, "status", "currentHealthy") or 0) >= desired


def _selects(budget: Object, pod: Object) -> bool:
    selector = at(budget, "spec", "selector")
    return selector is not None and (is_empty_selector(selector) or selector_matches(selector, labels_of(pod)))


def _refusal(message: str, retry_s: int) -> ApiError:
    error = TooManyRequests(_VIOLATION, retry_s)
    if not retry_s:
        error.details.pop("retryAfterSeconds", None)
        error.headers.pop("Retry-After", None)
    error.details["causes"] = [{"reason": "DisruptionBudget", "message": message}]
    return error
