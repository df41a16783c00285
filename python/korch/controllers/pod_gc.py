"""Deletes pods that nobody will finish: on nodes that are gone, terminating without a node, or over and too many.

Watches pods and nodes (as caches) and sweeps them every 20 s; writes the pods' phase and DisruptionTarget condition and deletes
pods without grace. Invariant: a pod is called orphaned only after its node has been missing for the quarantine and is then missing
in a live GET. Mirrors upstream pkg/controller/podgc.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from korch.api.conditions import condition_status, set_condition
from korch.api.errors import NotFound
from korch.api.gvk import NODES, PODS
from korch.api.meta import at, is_deleting, name_of, namespace_of, uid_of
from korch.api.pods import is_terminal
from korch.client.controller import Controller, Requeue, Watch
from korch.client.informer import Informers
from korch.client.protocol import Client, DeleteOptions
from korch.controllers.config import ControllerConfig
from korch.controllers.workload.controller import decode_object
from korch.controllers.workload.pods import decode_pod, patch_pod_status
from korch.runtime.context import Runtime

Object = dict[str, Any]

SWEEP = "sweep"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"


class PodGcController(Controller):
    """Has one key, the sweep."""

    name = "pod-garbage-collector-controller"
    workers = 1
    watches = (Watch(PODS, keys=None, decode=decode_pod), Watch(NODES, keys=None, decode=decode_object))

    def __init__(self, client: Client, informers: Informers, runtime: Runtime, config: ControllerConfig = ControllerConfig()) -> None:
        super().__init__(client, informers, runtime)
        self._config = config
        # Node name -> since when (monotonic) it has been missing while pods name it.
        self._missing: dict[str, float] = {}

    async def on_start(self) -> None:
        self.enqueue(SWEEP)

    async def reconcile(self, key: str) -> Requeue | None:
        pods = self.informer(PODS).list()
        nodes = {name_of(one): one for one in self.informer(NODES).list()}
        for pod in surplus_terminated(pods, self._config.terminated_pod_threshold):
            await self._delete(pod)
        for pod in stranded(pods, nodes):
            await self._end(pod, "")
        gone = await self._gone_nodes(pods, nodes)
        for pod in pods:
            if at(pod, "spec", "nodeName") in gone:
                await self._end(pod, "PodGC: node no longer exists")
        return Requeue(after_s=self._config.pod_gc_period_s)

    async def _gone_nodes(self, pods: Sequence[Object], nodes: Collection[str]) -> set[str]:
        now = self.runtime.clock.monotonic()
        missing = {name for pod in pods if (name := at(pod, "spec", "nodeName")) and name not in nodes}
        self._missing = {name: self._missing.get(name, now) for name in sorted(missing)}
        gone: set[str] = set()
        for name, since in self._missing.items():
            if now - since < self._config.missing_node_quarantine_s:
                continue
            try:
                await self.client.get(NODES, name)
            except NotFound:
                gone.add(name)
        return gone

    async def _end(self, pod: Object, message: str) -> None:
        """Delete a pod that no agent will report on, as failed if it was not over."""
        if not is_terminal(pod):
            status: Object = {"phase": "Failed", "conditions": list(at(pod, "status", "conditions") or ())}
            if message:
                now = self.runtime.clock.now()
                set_condition(status, "DisruptionTarget", "True", now=now, reason="DeletionByPodGC", message=message)
            try:
                await patch_pod_status(self.client, pod, status)
            except NotFound:
                return
        await self._delete(pod)

    async def _delete(self, pod: Object) -> None:
        options = DeleteOptions(uid=uid_of(pod), grace_period_s=0)
        try:
            await self.client.delete(PODS, name_of(pod), namespace=namespace_of(pod), options=options)
        except NotFound:
            return
        self.log.info("pod collected", pod=f"{namespace_of(pod)}/{name_of(pod)}")


def surplus_terminated(pods: Sequence[Object], threshold: int) -> list[Object]:
    """Return the pods that are over beyond `threshold` of them, evicted ones and the oldest first; none for a threshold of 0."""
    over = [pod for pod in pods if is_terminal(pod)]
    surplus = len(over) - threshold
    if threshold <= 0 or surplus <= 0:
        return []

    def order(pod: Object) -> tuple[bool, str, str]:
        return at(pod, "status", "reason") != "Evicted", at(pod, "metadata", "creationTimestamp") or "", name_of(pod)

    return sorted(over, key=order)[:surplus]


def stranded(pods: Sequence[Object], nodes: dict[str, Object]) -> list[Object]:
    """Return terminating pods that no agent will end: never bound, or on a node that was declared out of service and is not ready."""
    found: list[Object] = []
    for pod in pods:
        if not is_deleting(pod):
            continue
        name = at(pod, "spec", "nodeName")
        node = nodes.get(name) if name else None
        if not name or (node is not None and _is_out_of_service(node)):
            found.append(pod)
    return found


def _is_out_of_service(node: Object) -> bool:
    is_tainted = any(one.get("key") == OUT_OF_SERVICE for one in at(node, "spec", "taints") or ())
    return is_tainted and condition_status(node, "Ready") != "True"
