"""Gives every node its part of the cluster's pod network.

Watches nodes; writes spec.podCIDR and spec.podCIDRs of those that have none. Invariants: no two nodes have overlapping parts; a part, once
given, is never changed. Parts in use are read off the nodes; one that was asked for and is not seen yet stays reserved for the same
node, whether or not the call's answer came back. Mirrors upstream pkg/controller/nodeipam (RangeAllocator).
"""

from __future__ import annotations

from typing import Any

from korch.api.errors import NotFound
from korch.api.gvk import NODES
from korch.api.meta import at, is_deleting, name_of
from korch.client.controller import Controller, Requeue, Watch
from korch.client.informer import Informers
from korch.client.protocol import Client
from korch.controllers.config import ControllerConfig
from korch.controllers.nodes.cidrs import CidrsExhausted, first_free
from korch.controllers.workload.controller import decode_object, same_key
from korch.runtime.context import Runtime

Object = dict[str, Any]

EXHAUSTED_RETRY_S = 30.0


class NodeIpamController(Controller):
    """Reconciles one node a key, one at a time: two workers could pick the same part."""

    name = "node-ipam-controller"
    workers = 1
    watches = (Watch(NODES, keys=same_key, decode=decode_object),)

    def __init__(self, client: Client, informers: Informers, runtime: Runtime, config: ControllerConfig = ControllerConfig()) -> None:
        super().__init__(client, informers, runtime)
        self._config = config
        self._reserved: dict[str, str] = {}
        # There is no free part until then, unless a node goes: nobody need look again.
        self._exhausted_until_s = 0.0
        self._told: set[str] = set()

    async def reconcile(self, key: str) -> Requeue | None:
        node = self.informer(NODES).get_by_key(key)
        if node is None or cidrs_of(node):
            self._reserved.pop(key, None)
            self._told.discard(key)
            if node is None:
                self._exhausted_until_s = 0.0
            return None
        if is_deleting(node) or not self._config.cluster_cidr:
            return None
        cidr = self._reserved.get(key)
        if cidr is None:
            if self.runtime.clock.monotonic() < self._exhausted_until_s:
                return self._refuse(key, node)
            used = [one for other in self.informer(NODES).list() for one in cidrs_of(other)]
            try:
                cidr = first_free(self._config.cluster_cidr, self._config.node_cidr_mask, [*used, *self._reserved.values()])
            except CidrsExhausted as error:
                self.log.error("no pod network left", node=key, error=str(error))
                self._exhausted_until_s = self.runtime.clock.monotonic() + EXHAUSTED_RETRY_S
                return self._refuse(key, node)
            self._reserved[key] = cidr
        patch = {
            "metadata": {"resourceVersion": at(node, "metadata", "resourceVersion")},
            "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
        }
        try:
            self.wrote(key, NODES, await self.client.patch(NODES, key, patch))
        except NotFound:
            self._reserved.pop(key, None)
        return None

    def _refuse(self, key: str, node: Object) -> Requeue:
        if key not in self._told:
            self._told.add(key)
            self.recorder.event(node, "Normal", "CIDRNotAvailable", f"Node {name_of(node)} status is now: CIDRNotAvailable")
        return Requeue(after_s=EXHAUSTED_RETRY_S)


def cidrs_of(node: Object) -> list[str]:
    """Return the parts of the pod network that the node has."""
    several = at(node, "spec", "podCIDRs")
    if several:
        return list(several)
    single = at(node, "spec", "podCIDR")
    return [single] if single else []
