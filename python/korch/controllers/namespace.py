"""Empties namespaces that are being deleted, tells in conditions what remains, and lets them go when nothing does.

Watches namespaces and pods; writes deletes of everything in a terminating namespace, its status and, at the end, its `kubernetes`
finalizer. Pods go first: what they use (service accounts, network policies, configuration) stays until they have stopped.
Invariant: the finalizer is removed only after a pass over every served kind found nothing left. Mirrors upstream pkg/controller/namespace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from korch.api.conditions import set_condition
from korch.api.errors import ApiError, MethodNotAllowed, NoSuchPath, NotFound
from korch.api.gvk import NAMESPACES, PODS
from korch.api.meta import at, is_deleting, uid_of
from korch.client.controller import Controller, Requeue, Watch
from korch.client.projections import Meta, decode_meta
from korch.client.protocol import DeleteOptions, ListOptions
from korch.controllers.collecting.kinds import Served, ServedKind, discover
from korch.controllers.workload.controller import decode_object, same_key

Object = dict[str, Any]

FINALIZER = "kubernetes"
# How soon to look again when something remains; the end of a pod is seen at once.
REMAINING_RETRY_S = 1.0


@dataclass(slots=True)
class Remains:
    """What a pass over a namespace left: instances by kind and by finalizer, and failures."""

    instances: dict[str, int] = field(default_factory=dict)
    finalizers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


class NamespaceController(Controller):
    """Reconciles one namespace a key."""

    name = "namespace-controller"
    workers = 10
    watches = (Watch(NAMESPACES, keys=same_key, decode=decode_object), Watch(PODS, keys="pod_keys"))

    def pod_keys(self, pod: Meta) -> Iterable[str]:
        """Map a pod to its namespace if that is being deleted."""
        namespace = self.informer(NAMESPACES).get_by_key(pod.namespace)
        return (pod.namespace,) if namespace is not None and is_deleting(namespace) else ()

    async def reconcile(self, key: str) -> Requeue | None:
        cached = self.informer(NAMESPACES).get_by_key(key)
        if cached is None or not is_deleting(cached):
            return None
        # Everything in it is about to be destroyed: act on what is, not on what was seen last.
        try:
            namespace = decode_object(await self.client.get(NAMESPACES, key))
        except NotFound:
            return None
        if not is_deleting(namespace) or not at(namespace, "spec", "finalizers"):
            return None
        if at(namespace, "status", "phase") != "Terminating":
            namespace = await self._put_status(key, namespace, {**(namespace.get("status") or {}), "phase": "Terminating"})
        served = await discover(self.client)
        remains = await self._empty(key, served)
        namespace = await self._put_status(key, namespace, plan_status(namespace, served, remains, self.runtime.clock.now()))
        if remains.failures or served.failures:
            return Requeue()
        if remains.instances:
            return Requeue(after_s=REMAINING_RETRY_S)
        await self._finalize(key, namespace)
        return None

    async def _empty(self, namespace: str, served: Served) -> Remains:
        remains = Remains()
        kinds = [one for one in served.kinds if one.ref.namespaced and {"list", "delete"} <= one.verbs]
        pods = [one for one in kinds if one.ref == PODS]
        for one in pods:
            await self._empty_kind(namespace, one, remains)
        if remains.instances:
            return remains
        for one in kinds:
            if one.ref != PODS:
                await self._empty_kind(namespace, one, remains)
        return remains

    async def _empty_kind(self, namespace: str, kind: ServedKind, remains: Remains) -> None:
        options = ListOptions(namespace=namespace)
        try:
            found = [decode_meta(raw) for raw in (await self.client.list(kind.ref, options)).items]
            if not found:
                return
            if "deletecollection" in kind.verbs:
                await self.client.delete_collection(kind.ref, options, DeleteOptions(propagation_policy="Background"))
            else:
                await self._delete_each(kind, found)
            found = [decode_meta(raw) for raw in (await self.client.list(kind.ref, options)).items]
        except (NoSuchPath, MethodNotAllowed):
            # The kind went away between discovery and now.
            return
        except ApiError as error:
            remains.failures.append(f"{kind.ref.plural}.{kind.ref.group}: {error.message}")
            return
        if found:
            remains.instances[f"{kind.ref.plural}.{kind.ref.group}"] = len(found)
            for one in found:
                remains.finalizers.update(one.metadata.finalizers)

    async def _delete_each(self, kind: ServedKind, found: list[Meta]) -> None:
        for one in found:
            try:
                options = DeleteOptions(uid=one.uid, propagation_policy="Background")
                await self.client.delete(kind.ref, one.name, namespace=one.namespace, options=options)
            except NotFound:
                continue

    async def _put_status(self, key: str, namespace: Object, status: Object) -> Object:
        if status == (namespace.get("status") or {}):
            return namespace
        stored = await self.client.update(NAMESPACES, {**namespace, "status": status}, name=key, subresource="status")
        return decode_object(stored)

    async def _finalize(self, key: str, namespace: Object) -> None:
        kept = [one for one in at(namespace, "spec", "finalizers") or () if one != FINALIZER]
        body = {**namespace, "spec": {**namespace["spec"], "finalizers": kept}}
        try:
            await self.client.update(NAMESPACES, body, name=key, subresource="finalize")
        except NotFound:
            return
        self.log.info("namespace emptied", namespace=key, uid=uid_of(namespace))


def plan_status(namespace: Object, served: Served, remains: Remains, now: float) -> Object:
    """Return the namespace's status: what was found, deleted and remains, in upstream's five conditions."""
    status: Object = {**(namespace.get("status") or {}), "phase": "Terminating"}
    status["conditions"] = list(status.get("conditions") or [])

    def say(condition_type: str, reason: str, message: str, *, is_bad: bool) -> None:
        set_condition(status, condition_type, "True" if is_bad else "False", now=now, reason=reason, message=message)

    if served.failures:
        listed = ", ".join(f"{name}: {why}" for name, why in sorted(served.failures.items()))
        message = f"Discovery failed for some groups, {len(served.failures)} failing: {listed}"
        say("NamespaceDeletionDiscoveryFailure", "DiscoveryFailed", message, is_bad=True)
    else:
        say("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered", is_bad=False)
    parsed = "All legacy kube types successfully parsed"
    say("NamespaceDeletionGroupVersionParsingFailure", "ParsedGroupVersions", parsed, is_bad=False)
    if remains.failures:
        message = f"Failed to delete all resource types, {len(remains.failures)} remaining: {', '.join(remains.failures)}"
        say("NamespaceDeletionContentFailure", "ContentDeletionFailed", message, is_bad=True)
    else:
        message = "All content successfully deleted, may be waiting on finalization"
        say("NamespaceDeletionContentFailure", "ContentDeleted", message, is_bad=False)
    if remains.instances:
        listed = ", ".join(f"{name} has {count} resource instances" for name, count in sorted(remains.instances.items()))
        say("NamespaceContentRemaining", "SomeResourcesRemain", f"Some resources are remaining: {listed}", is_bad=True)
    else:
        say("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed", is_bad=False)
    if remains.finalizers:
        listed = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(remains.finalizers.items()))
        message = f"Some content in the namespace has finalizers remaining: {listed}"
        say("NamespaceFinalizersRemaining", "SomeFinalizersRemain", message, is_bad=True)
    else:
        say("NamespaceFinalizersRemaining", "ContentHasNoFinalizers", "All content-preserving finalizers finished", is_bad=False)
    return status
