"""Evicts pods from nodes with NoExecute taints, at once or when their tolerations run out.

Watches pods and nodes; writes the pods' DisruptionTarget condition and deletes pods. The time of an eviction is computed anew at every
turn from the taint's timeAdded and the pod's tolerations, so a taint that is taken away, or a toleration that is added, cancels it.
Mirrors upstream pkg/controller/tainteviction.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from korch.api.conditions import is_condition_true, set_condition
from korch.api.errors import NotFound
from korch.api.gvk import NODES, PODS
from korch.api.meta import at, is_deleting, key_of, name_of, namespace_of, uid_of
from korch.client.controller import Controller, Requeue, Watch
from korch.client.informer import Informers
from korch.client.protocol import Client, DeleteOptions
from korch.controllers.nodes.sources import BY_NODE, node_names
from korch.controllers.nodes.tolerations import eviction_time
from korch.controllers.workload.controller import decode_object
from korch.controllers.workload.pods import decode_pod, patch_pod_status
from korch.runtime.clock import parse_rfc3339
from korch.runtime.context import Runtime

Object = dict[str, Any]

DISRUPTION_TARGET = "DisruptionTarget"


class TaintEvictionController(Controller):
    """Reconciles one pod a key."""

    name = "taint-eviction-controller"
    workers = 8
    watches = (
        Watch(PODS, keys="pod_keys", decode=decode_pod, indexes={BY_NODE: node_names}),
        Watch(NODES, keys="node_keys", decode=decode_object),
    )

    def __init__(self, client: Client, informers: Informers, runtime: Runtime) -> None:
        super().__init__(client, informers, runtime)
        # When a taint without timeAdded was first seen: (node, key, value) -> seconds since the epoch.
        self._first_seen: dict[tuple[str, str, str], float] = {}

    def pod_keys(self, pod: Object) -> Iterable[str]:
        """Map a pod to itself if its node evicts anybody: a taint that comes later brings all pods of its node."""
        node = self.informer(NODES).get_by_key(at(pod, "spec", "nodeName") or "")
        return (key_of(pod),) if node is not None and no_execute_taints(node) else ()

    def node_keys(self, node: Object) -> Iterable[str]:
        """Map a node with NoExecute taints (before or after the change) to its pods, and forget taints that are gone."""
        name = name_of(node)
        taints = no_execute_taints(node)
        for seen in [one for one in self._first_seen if one[0] == name]:
            if seen not in {_identity(name, one) for one in taints}:
                del self._first_seen[seen]
        return [key_of(pod) for pod in self.informer(PODS).by_index(BY_NODE, name)] if taints else ()

    async def reconcile(self, key: str) -> Requeue | None:
        pod = self.informer(PODS).get_by_key(key)
        name = at(pod, "spec", "nodeName")
        if pod is None or not name or is_deleting(pod):
            return None
        node = self.informer(NODES).get_by_key(name)
        taints = no_execute_taints(node) if node is not None else []
        now = self.runtime.clock.now()
        when = eviction_time(taints, at(pod, "spec", "tolerations") or (), lambda taint: self._since(name, taint, now))
        if when is None:
            return None
        if when > now:
            return Requeue(after_s=when - now)
        await self._evict(key, pod)
        return None

    def _since(self, node: str, taint: Object, now: float) -> float:
        if added := taint.get("timeAdded"):
            return parse_rfc3339(added)
        return self._first_seen.setdefault(_identity(node, taint), now)

    async def _evict(self, key: str, pod: Object) -> None:
        self.recorder.event(pod, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {key}")
        options = DeleteOptions(uid=uid_of(pod))
        try:
            if not is_condition_true(pod, DISRUPTION_TARGET):
                status: Object = {"conditions": list(at(pod, "status", "conditions") or ())}
                why = "Taint manager: deleting due to NoExecute taint"
                set_condition(status, DISRUPTION_TARGET, "True", now=self.runtime.clock.now(), reason="DeletionByTaintManager", message=why)
                await patch_pod_status(self.client, pod, status)
            self.wrote(key, PODS, await self.client.delete(PODS, name_of(pod), namespace=namespace_of(pod), options=options))
        except NotFound:
            return


def no_execute_taints(node: Object) -> list[Object]:
    """Return the node's taints that evict."""
    return [one for one in at(node, "spec", "taints") or () if one.get("effect") == "NoExecute"]


def _identity(node: str, taint: Object) -> tuple[str, str, str]:
    return (node, taint.get("key") or "", taint.get("value") or "")
