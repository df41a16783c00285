"""Keeps a deleted pod group until it has no pods any more.

Watches groups and pods; writes groups. Invariant: the finalizer of a group that is being deleted goes when all of its pods have ended.
Runs only with the gate GenericWorkload. Mirrors upstream pkg/controller/scheduling/podgroupprotection.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from korch.api.gvk import POD_GROUPS, PODS
from korch.api.meta import at, is_deleting, name_of, namespace_of
from korch.api.pods import is_terminal
from korch.client.controller import Controller, Requeue, Watch
from korch.client.projections import object_key
from korch.controllers.pvc_protection import without_finalizer
from korch.controllers.workload.controller import decode_object, same_key

Object = dict[str, Any]

FINALIZER = "scheduling.k8s.io/podgroup-protection"


def group_keys(pod: Object) -> Iterable[str]:
    """Map a pod to its group."""
    if name := at(pod, "spec", "schedulingGroup", "podGroupName"):
        yield object_key(namespace_of(pod), name)


class PodGroupProtectionController(Controller):
    """Reconciles one group a key."""

    name = "podgroup-protection-controller"
    workers = 1
    watches = (
        Watch(POD_GROUPS, keys=same_key, decode=decode_object),
        Watch(PODS, keys=group_keys, decode=decode_object, indexes={"groups": group_keys}),
    )

    async def reconcile(self, key: str) -> Requeue | None:
        group = self.informer(POD_GROUPS).get_by_key(key)
        if group is None or not is_deleting(group) or FINALIZER not in (at(group, "metadata", "finalizers") or ()):
            return None
        if any(not is_terminal(pod) for pod in self.informer(PODS).by_index("groups", key)):
            return None
        without = without_finalizer(group, FINALIZER)
        written = await self.client.update(POD_GROUPS, without, name=name_of(group), namespace=namespace_of(group))
        self.wrote(key, POD_GROUPS, written)
        return None
