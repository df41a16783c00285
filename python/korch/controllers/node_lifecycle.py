"""Notices nodes whose agents fell silent, says so in their conditions and taints, and takes their pods out of service.

Watches nodes, their leases and pods; writes node conditions, node taints and the pods' Ready condition. Silence is measured by this
controller's own clock since it last saw a heartbeat change, so clocks of nodes may differ; everything else is read off the objects.
Invariants: taints of others are never touched; NoExecute taints come one node at a time, at the eviction rate, more slowly when many
nodes are down, and not at all when all are. The taints evict (taint_eviction.py). Mirrors upstream pkg/controller/nodelifecycle.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from korch.api.conditions import condition_status, set_condition
from korch.api.errors import ApiError, NotFound
from korch.api.gvk import LEASES, NODES, PODS
from korch.api.meta import at, is_deleting, name_of
from korch.api.pods import is_ready
from korch.client.controller import Controller, Requeue, Watch
from korch.client.informer import Informers
from korch.client.protocol import Client
from korch.controllers.config import ControllerConfig
from korch.controllers.nodes import health
from korch.controllers.nodes.sources import BY_NODE, LEASE_NAMESPACE, node_names
from korch.controllers.workload.controller import decode_object, same_key
from korch.controllers.workload.pods import decode_pod, patch_pod_status
from korch.runtime.clock import parse_rfc3339
from korch.runtime.context import Runtime

Object = dict[str, Any]
_TAINT_TRIES = 5
# Conflict, and the failed test of a JSON patch.
_CHANGED_MEANWHILE = (409, 422)


def _node_of_lease(lease: Object) -> tuple[str]:
    return (name_of(lease),)


class NodeLifecycleController(Controller):
    """Reconciles one node a key."""

    name = "node-controller"
    # As upstream's workers for taints: nodes that come up together take pods together, or the first of them takes all.
    workers = 8
    watches = (
        Watch(NODES, keys=same_key, decode=decode_object),
        Watch(LEASES, keys=_node_of_lease, decode=decode_object, namespace=LEASE_NAMESPACE),
        Watch(PODS, keys="pod_keys", decode=decode_pod, indexes={BY_NODE: node_names}),
    )

    def __init__(self, client: Client, informers: Informers, runtime: Runtime, config: ControllerConfig = ControllerConfig()) -> None:
        super().__init__(client, informers, runtime)
        self._config = config
        # Node name -> the last heartbeat seen and when it was seen first, on the monotonic clock.
        self._heard: dict[str, tuple[tuple[str, str], float]] = {}
        # When a node was last tainted NoExecute by this process, for the moments before the informer shows it.
        self._last_eviction = float("-inf")

    def pod_keys(self, pod: Object) -> Iterable[str]:
        """Map a ready pod to its node if that is lost: it must not stay ready."""
        name = at(pod, "spec", "nodeName")
        node = self.informer(NODES).get_by_key(name) if name and is_ready(pod) else None
        return (name,) if node is not None and condition_status(node, health.READY) == "Unknown" else ()

    async def reconcile(self, key: str) -> Requeue | None:
        node = self.informer(NODES).get_by_key(key)
        if node is None:
            self._heard.pop(key, None)
            return None
        silent_in_s = self._silent_in_s(key, node)
        if silent_in_s <= 0:
            node = await self._declare_lost(key, node)
        await self._taint_latest(key, node)
        if condition_status(node, health.READY) == "Unknown":
            await self._withdraw_pods(key)
        return Requeue(after_s=self._config.node_monitor_period_s if silent_in_s <= 0 else min(silent_in_s, self._pause(node)))

    def _pause(self, node: Object) -> float:
        """Return how long a node that reports may be left alone: one that is to be tainted waits for its turn."""
        return self._config.node_monitor_period_s if health.no_execute_key(node) else float(self._config.node_monitor_grace_period_s)

    def _silent_in_s(self, key: str, node: Object) -> float:
        """Return the seconds until the node counts as lost unless it is heard of; 0 or less: it is lost."""
        now = self.runtime.clock.monotonic()
        lease = self.informer(LEASES).get(LEASE_NAMESPACE, key)
        sign = health.heartbeat(node, lease)
        known = self._heard.get(key)
        if known is not None and not sign[1]:
            # Ready became Unknown by our hand: no sign of life, but the next word of the agent will be one.
            known = self._heard[key] = ((known[0][0], ""), known[1])
        if known is None or known[0] != sign:
            known = self._heard[key] = (sign, now)
        if sign == ("", ""):
            created = at(node, "metadata", "creationTimestamp")
            age = self.runtime.clock.now() - parse_rfc3339(created) if created else 0.0
            return self._config.node_startup_grace_period_s - age
        return known[1] + self._config.node_monitor_grace_period_s - now

    async def _declare_lost(self, key: str, node: Object) -> Object:
        changed = health.unknown_conditions(node, self.runtime.clock.now())
        if not changed:
            return node
        fresh = {one["type"]: one for one in changed}
        kept = [one for one in at(node, "status", "conditions") or () if one.get("type") not in fresh]
        body = {**node, "status": {**(node.get("status") or {}), "conditions": [*kept, *changed]}}
        stored = await self.client.update(NODES, body, name=key, subresource="status")
        self.wrote(key, NODES, stored)
        if health.READY in fresh:
            self.log.warning("node lost", node=key)
            self.recorder.event(node, "Normal", "NodeNotReady", f"Node {key} status is now: NodeNotReady")
        return decode_object(stored)

    async def _taint_latest(self, key: str, node: Object) -> None:
        """Set the taints; where others have just written to them, on what they wrote. Mirrors RetryOnConflict of upstream's taints."""
        for _ in range(_TAINT_TRIES - 1):
            try:
                await self._taint(key, node)
                return
            except ApiError as error:
                if error.code not in _CHANGED_MEANWHILE:
                    raise
                node = decode_object(await self.client.get(NODES, key))
        await self._taint(key, node)

    async def _taint(self, key: str, node: Object) -> None:
        now = self.runtime.clock.now()
        may_evict = withdraw = False
        if health.no_execute_key(node):
            may_evict, withdraw = self._eviction_allowed(node, now)
        taints = health.desired_taints(node, now, may_evict=may_evict, withdraw=withdraw)
        if taints is None:
            return
        if may_evict and not health.has_lifecycle_no_execute(node):
            self._last_eviction = now
        present = at(node, "spec", "taints")
        if present:
            # Nothing but the taints must be as they were seen: an agent that comes up writes its status at the same moment.
            change: Object = (
                {"op": "replace", "path": "/spec/taints", "value": taints} if taints else {"op": "remove", "path": "/spec/taints"}
            )
            operations = [{"op": "test", "path": "/spec/taints", "value": present}, change]
            self.wrote(key, NODES, await self.client.patch(NODES, key, operations, patch_type="json"))
            return
        patch = {"metadata": {"resourceVersion": at(node, "metadata", "resourceVersion")}, "spec": {"taints": taints or None}}
        self.wrote(key, NODES, await self.client.patch(NODES, key, patch))

    def _eviction_allowed(self, node: Object, now: float) -> tuple[bool, bool]:
        """Return (this node may be tainted NoExecute now, such taints must be withdrawn)."""
        config = self._config
        # The informer may not show yet what this turn wrote to the node.
        nodes = [one for one in self.informer(NODES).list() if name_of(one) != name_of(node)] + [node]
        state = health.disruption(
            nodes,
            rate_per_s=config.node_eviction_rate_per_s,
            slow_rate_per_s=config.secondary_node_eviction_rate_per_s,
            large_cluster=config.large_cluster_nodes,
            threshold=config.unhealthy_threshold,
        )
        if state.is_total:
            return False, True
        rate = state.evictions_per_s
        is_paced = rate > 0 and now - self._last_eviction >= 1 / rate
        return is_paced and health.next_eviction_in_s(nodes, rate, now) <= 0, False

    async def _withdraw_pods(self, node: str) -> None:
        """Make the pods of a lost node not ready, so that no Service sends to them."""
        for pod in self.informer(PODS).by_index(BY_NODE, node):
            if not is_ready(pod) or is_deleting(pod):
                continue
            status = {"conditions": list(pod["status"]["conditions"])}
            set_condition(status, health.READY, "False", now=self.runtime.clock.now(), reason="NodeNotReady", message="Node is not ready")
            try:
                stored = await patch_pod_status(self.client, pod, status)
            except NotFound:
                continue
            self.wrote(node, PODS, stored)
            self.recorder.event(pod, "Warning", "NodeNotReady", "Node is not ready")
