"""Deletes what has lost its owners, and holds owners back until their dependents are gone or let go.

Watches every kind that can be listed, watched and deleted, found by discovery and looked for again from time to time; writes
deletes, owner references and the finalizers `orphan` and `foregroundDeletion`. A key is a uid. Invariants: an object is deleted
only when every owner it names is verified absent (a live GET, compared by uid) or waits for it in the foreground; the object's own
references are read live before that. Mirrors upstream pkg/controller/garbagecollector.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from korch.api.errors import ApiError, NotFound
from korch.api.gvk import ResourceRef
from korch.client.controller import Controller, Requeue
from korch.client.informer import Informers
from korch.client.projections import Meta, OwnerReference, decode_meta
from korch.client.protocol import Client, DeleteOptions
from korch.controllers.collecting.graph import FOREGROUND, ORPHAN, Graph, Node
from korch.controllers.collecting.kinds import Served, discover
from korch.controllers.config import ControllerConfig
from korch.runtime.context import Runtime

# Events are about objects, not of them: they name no owners and come in masses. Upstream ignores them too.
_IGNORED = frozenset({("", "events"), ("events.k8s.io", "events")})
_NEEDED_VERBS = frozenset({"list", "watch", "delete"})
ABSENT_MAX = 500
RETRY_START_S = 1.0
UNKNOWN_KIND_RETRY_S = 30.0


@dataclass(slots=True)
class Owners:
    """The references of an object by what became of their owners."""

    solid: list[OwnerReference] = field(default_factory=list)
    waiting: list[OwnerReference] = field(default_factory=list)
    dangling: list[OwnerReference] = field(default_factory=list)
    unknown: list[OwnerReference] = field(default_factory=list)


class GarbageCollector(Controller):
    """Reconciles one object (by uid) a key."""

    name = "garbage-collector-controller"
    workers = 20

    def __init__(self, client: Client, informers: Informers, runtime: Runtime, config: ControllerConfig = ControllerConfig()) -> None:
        super().__init__(client, informers, runtime)
        self.graph = Graph()
        self._period_s = config.discovery_period_s
        self._served = Served()
        self._followed: set[ResourceRef] = set()
        # Uids that the API said do not exist; a uid never comes back, so this is a fact and not a memory of our doing.
        self._absent: OrderedDict[str, None] = OrderedDict()

    async def on_start(self) -> None:
        while True:
            try:
                await self._follow_kinds()
                return
            except (ApiError, ConnectionError, TimeoutError) as error:
                self.log.warning("kinds could not be discovered", error=str(error))
                await asyncio.sleep(RETRY_START_S)

    async def background(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            try:
                await self._follow_kinds()
            except (ApiError, ConnectionError, TimeoutError) as error:
                self.log.warning("kinds could not be discovered", error=str(error))

    async def _follow_kinds(self) -> None:
        """Follow every kind that is not followed yet, and wait for their first pictures. An owner missing from the graph is still
        looked up live, so a kind that cannot be listed delays nothing but its own objects."""
        self._served = await discover(self.client)
        fresh = [
            one.ref
            for one in self._served.kinds
            if one.verbs >= _NEEDED_VERBS and (one.ref.group, one.ref.plural) not in _IGNORED and one.ref not in self._followed
        ]
        followed = [(ref, self.informers.informer(ref)) for ref in fresh]
        for ref, informer in followed:
            self._followed.add(ref)
            informer.on(add=partial(self._seen, ref), update=partial(self._changed, ref), delete=partial(self._gone, ref))
        if not self._is_started:
            for _, informer in followed:
                await informer.wait_synced()

    # -- what informers say

    def _seen(self, ref: ResourceRef, meta: Meta) -> None:
        self._put(Node(ref, meta))

    def _changed(self, ref: ResourceRef, old: Meta, new: Meta) -> None:
        if old.uid != new.uid:
            self._gone(ref, old)
        self._put(Node(ref, new))

    def _put(self, node: Node) -> None:
        old = self.graph.put(node)
        if node.is_orphaning or node.is_deleting_dependents:
            self.queue.add(node.uid)
        if any(self.graph.get(one.uid) is None for one in node.owners):
            self.queue.add(node.uid)
        for one in node.owners:
            owner = self.graph.get(one.uid)
            if owner is not None and (owner.is_deleting_dependents or not owner.is_named_by(one, node.meta.namespace)):
                self.queue.add(node.uid)
        if old is not None and old.owners != node.owners:
            self._wake_owners(old)

    def _gone(self, _ref: ResourceRef, meta: Meta) -> None:
        node = self.graph.remove(meta.uid)
        for dependent in self.graph.dependents(meta.uid):
            self.queue.add(dependent.uid)
        if node is not None:
            self._wake_owners(node)

    def _wake_owners(self, node: Node) -> None:
        for one in node.owners:
            owner = self.graph.get(one.uid)
            if owner is not None and owner.is_deleting_dependents:
                self.queue.add(owner.uid)

    # -- what is done about it

    async def reconcile(self, key: str) -> Requeue | None:
        node = self.graph.get(key)
        if node is None:
            return None
        if node.is_orphaning:
            return await self._orphan_dependents(node)
        if node.is_deleting_dependents:
            return await self._delete_dependents(node)
        if node.meta.is_terminating or not node.owners:
            return None
        return await self._judge(node)

    async def _judge(self, node: Node) -> Requeue | None:
        """Delete the object if nobody who owns it is left, or cut references that lead nowhere."""
        live = await self._live(node.ref, node.meta.namespace, node.meta.name)
        if live is None or live.uid != node.uid:
            return None
        if live.metadata.ownerReferences != node.owners or live.is_terminating:
            # The informer will tell, and this object comes again.
            return None
        owners = await self._classify(node)
        if owners.unknown:
            return Requeue(after_s=UNKNOWN_KIND_RETRY_S)
        if owners.solid:
            cut = owners.dangling + owners.waiting
            if cut:
                await self._set_owners(node.ref, live, [one for one in node.owners if one not in cut])
            return None
        dependents = self.graph.dependents(node.uid)
        if owners.waiting and dependents:
            if any(one.is_deleting_dependents for one in dependents):
                # A circle: two objects would wait for each other for ever. Stop blocking the owner.
                unblocked = [msgspec.structs.replace(one, blockOwnerDeletion=False) for one in node.owners]
                live = await self._set_owners(node.ref, live, unblocked)
            await self._delete(node, live, "Foreground")
        elif owners.waiting or owners.dangling:
            await self._delete(node, live, _policy_of(live))
        return None

    async def _classify(self, node: Node) -> Owners:
        owners = Owners()
        for one in node.owners:
            known = self.graph.get(one.uid)
            if known is not None and known.is_named_by(one, node.meta.namespace):
                (owners.waiting if known.is_deleting_dependents else owners.solid).append(one)
                continue
            if known is None and one.uid in self._absent:
                owners.dangling.append(one)
                continue
            ref = self._served.find(one.apiVersion, one.kind)
            if ref is None:
                owners.unknown.append(one)
            elif ref.namespaced and not node.meta.namespace:
                message = f"ownerRef {one.kind}/{one.name} refers to a namespaced owner from a cluster-scoped object"
                self.recorder.event(_reference(node), "Warning", "OwnerRefInvalidNamespace", message)
                owners.solid.append(one)
            else:
                await self._look_up(owners, one, ref, node)
        return owners

    async def _look_up(self, owners: Owners, one: OwnerReference, ref: ResourceRef, node: Node) -> None:
        live = await self._live(ref, node.meta.namespace if ref.namespaced else "", one.name)
        if live is None or live.uid != one.uid:
            if self.graph.get(one.uid) is None:
                self._remember_absent(one.uid)
            else:
                message = f'ownerRef {one.kind}/{one.name} does not exist in namespace "{node.meta.namespace}"'
                self.recorder.event(_reference(node), "Warning", "OwnerRefInvalidNamespace", message)
            owners.dangling.append(one)
        elif Node(ref, live).is_deleting_dependents:
            owners.waiting.append(one)
        else:
            owners.solid.append(one)

    async def _delete_dependents(self, node: Node) -> Requeue | None:
        """Foreground: dependents go first; the finalizer goes when none is left that blocks."""
        dependents = self.graph.dependents(node.uid)
        if not any(one.blocks(node.uid) for one in dependents):
            await self._remove_finalizer(node, FOREGROUND)
            return None
        for one in dependents:
            if not one.meta.is_terminating:
                self.queue.add(one.uid)
        return None

    async def _orphan_dependents(self, node: Node) -> Requeue | None:
        """Orphan: every dependent loses its reference to this owner, then the finalizer goes. Raises Conflict when one changed."""
        for dependent in self.graph.dependents(node.uid):
            kept = [one for one in dependent.owners if one.uid != node.uid]
            try:
                await self._set_owners(dependent.ref, dependent.meta, kept)
            except NotFound:
                continue
        await self._remove_finalizer(node, ORPHAN)
        return None

    async def _live(self, ref: ResourceRef, namespace: str, name: str) -> Meta | None:
        try:
            return decode_meta(await self.client.get(ref, name, namespace=namespace))
        except NotFound:
            return None

    async def _delete(self, node: Node, live: Meta, policy: Any) -> None:
        options = DeleteOptions(uid=live.uid, resource_version=live.metadata.resourceVersion, propagation_policy=policy)
        try:
            await self.client.delete(node.ref, live.name, namespace=live.namespace, options=options)
        except NotFound:
            return
        self.log.info("collected", resource=node.ref.plural, object=live.key, policy=policy)

    async def _set_owners(self, ref: ResourceRef, meta: Meta, owners: Sequence[OwnerReference]) -> Meta:
        body = {
            "metadata": {
                "uid": meta.uid,
                "resourceVersion": meta.metadata.resourceVersion,
                "ownerReferences": [_plain(one) for one in owners] or None,
            }
        }
        return decode_meta(await self.client.patch(ref, meta.name, body, namespace=meta.namespace, patch_type="merge"))

    async def _remove_finalizer(self, node: Node, finalizer: str) -> None:
        live = await self._live(node.ref, node.meta.namespace, node.meta.name)
        if live is None or live.uid != node.uid or finalizer not in live.metadata.finalizers:
            return
        kept = [one for one in live.metadata.finalizers if one != finalizer]
        body = {"metadata": {"uid": live.uid, "resourceVersion": live.metadata.resourceVersion, "finalizers": kept or None}}
        try:
            await self.client.patch(node.ref, live.name, body, namespace=live.namespace, patch_type="merge")
        except NotFound:
            return

    def _remember_absent(self, uid: str) -> None:
        self._absent[uid] = None
        while len(self._absent) > ABSENT_MAX:
            self._absent.popitem(last=False)


def _policy_of(meta: Meta) -> str:
    """Return how to delete a dependent: the finalizers it carries already say how it is to go."""
    if ORPHAN in meta.metadata.finalizers:
        return "Orphan"
    return "Foreground" if FOREGROUND in meta.metadata.finalizers else "Background"


def _plain(owner: OwnerReference) -> dict[str, Any]:
    """Return the reference as it stands in an object; absent booleans stay absent."""
    found: dict[str, Any] = {"apiVersion": owner.apiVersion, "kind": owner.kind, "name": owner.name, "uid": owner.uid}
    if owner.controller:
        found["controller"] = True
    if owner.blockOwnerDeletion:
        found["blockOwnerDeletion"] = True
    return found


def _reference(node: Node) -> dict[str, str]:
    return {
        "apiVersion": node.ref.api_version,
        "kind": node.ref.kind,
        "namespace": node.meta.namespace,
        "name": node.meta.name,
        "uid": node.uid,
    }
