"""DynamicResources: pods with resource claims go where their devices are. Mirrors plugins/dynamicresources.

A claim that is not allocated yet is allocated in thought for each node (filter); that of the chosen node is remembered as being on its way
(reserve), and written to the claim's status, with the pod as a user of it, before the pod is bound (pre_bind). Claims that are allocated
already only say on which nodes they can be used. Not here: devices that stand for extended resources, binding conditions of devices, and
freeing claims that are allocated where the pod cannot go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import orjson

from korch.api.errors import ApiError, Conflict, NotFound
from korch.api.gvk import ResourceRef
from korch.client.informer import Informer, Informers
from korch.client.projections import Meta
from korch.client.protocol import Client, ListOptions
from korch.runtime.clock import Clock, rfc3339
from korch.runtime.log import get_logger
from korch.scheduler.devices.allocator import Allocator, InvalidPool
from korch.scheduler.devices.pools import DeviceId, Slices, matches_node
from korch.scheduler.devices.selectors import Selectors
from korch.scheduler.plugins import MAX_NODE_SCORE, NodeTable, Object, Plugin

log = get_logger("scheduler")

RESOURCE_CLAIMS = ResourceRef("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim")
DEVICE_CLASSES = ResourceRef("resource.k8s.io", "v1", "deviceclasses", "DeviceClass", namespaced=False)
RESOURCE_SLICES = ResourceRef("resource.k8s.io", "v1", "resourceslices", "ResourceSlice", namespaced=False)

FINALIZER = "resource.kubernetes.io/delete-protection"
CONSUMERS_MAX = 256
# The first of so many alternatives is worth that much, the next one less.
ALTERNATIVES_MAX = 8
_CONFLICTS_MAX = 5


class ClaimError(Exception):
    """A claim cannot be used, or its allocation not be written; the words are upstream's."""


@dataclass
class _Cycle:
    """What is known about the pod that is being decided. `allocations` are by node, one for each of `to_allocate`."""

    uid: str = ""
    claims: list[Object] = field(default_factory=list[Object])
    to_allocate: list[Object] = field(default_factory=list[Object])
    allocations: dict[str, list[Object]] = field(default_factory=dict[str, list[Object]])


@dataclass(frozen=True)
class _OnItsWay:
    """An allocation that the informer does not show yet; `pod` is the uid of the pod for which it is yet to be written, or ""."""

    uid: str
    pod: str
    allocation: Object


class DynamicResources(Plugin):
    """Follows claims, classes and slices. `changed` is told which pods a change may help: all that this plugin rejected (None), or those
    that use a claim by its `namespace/name`."""

    name = "DynamicResources"
    # Claims stay allocated when their pods are preempted.
    minds_pods = False

    def __init__(self, client: Client, informers: Informers, clock: Clock, changed: Callable[[str | None], None]) -> None:
        self._client = client
        self._informers = informers
        self._clock = clock
        self._changed = changed
        self._claims: dict[str, Object] = {}
        self._classes: dict[str, Object] = {}
        self._slices = Slices()
        self._selectors = Selectors()
        self._on_their_way: dict[str, _OnItsWay] = {}
        self._taken: frozenset[DeviceId] | None = None
        self._cycle = _Cycle()

    async def start(self) -> None:
        """Follow what the server serves and await the first picture of it; without the API there are no claims."""
        try:
            await self._client.list(RESOURCE_CLAIMS, ListOptions(limit=1))
        except (ApiError, OSError) as error:
            if not isinstance(error, NotFound):
                log.warning("cannot list", resource=RESOURCE_CLAIMS.plural, error=str(error))
            return
        followed = (
            self._follow(RESOURCE_CLAIMS, self._claim_changed),
            self._follow(DEVICE_CLASSES, self._class_changed),
            self._follow(RESOURCE_SLICES, self._slice_changed),
        )
        for informer in followed:
            await informer.wait_synced()

    def concerns(self, pod: bytes) -> bool:
        return b'"resourceClaims"' in pod

    def pre_filter(self, pod: Object) -> str:
        self._cycle = _Cycle()
        try:
            claims = [claim for _, claim in self._claims_of(pod)]
        except ClaimError as error:
            return str(error)
        uid = pod["metadata"].get("uid", "")
        self._cycle = _Cycle(uid, claims)
        for claim in claims:
            key = _key(claim)
            status: Object = claim.get("status") or {}
            if status.get("allocation"):
                users = status.get("reservedFor") or ()
                if len(users) >= CONSUMERS_MAX and not _is_user(claim, uid):
                    return "resourceclaim in use"
                continue
            if key in self._on_their_way:
                return f"resource claim {key} is in the process of being allocated"
            if wrong := self._missing_class(claim):
                return wrong
            self._cycle.to_allocate.append(claim)
        return ""

    def filter(self, pod: Object, nodes: NodeTable) -> Sequence[str]:
        return [self._reason(nodes.node(at)) for at in range(len(nodes))]

    def score(self, pod: Object, nodes: NodeTable) -> Sequence[int]:
        """Prefer nodes where requests get the earlier of their alternatives."""
        raw = [sum(self._worth(claim, given) for claim, given in self._given(name)) for name in nodes.names]
        most = max(raw, default=0)
        return [MAX_NODE_SCORE * one // most if most else 0 for one in raw]

    def reserve(self, pod: Object, node: str) -> None:
        given = self._cycle.allocations.get(node, [])
        if len(given) != len(self._cycle.to_allocate):
            raise ClaimError("claim allocation not found for node")
        for claim, allocation in zip(self._cycle.to_allocate, given, strict=True):
            self._on_their_way[_key(claim)] = _OnItsWay(claim["metadata"].get("uid", ""), self._cycle.uid, allocation)
        self._taken = None

    def unreserve(self, uid: str) -> None:
        freed = [key for key, one in self._on_their_way.items() if one.pod == uid]
        for key in freed:
            del self._on_their_way[key]
        if freed:
            self._taken = None
            self._changed(None)

    async def pre_bind(self, pod: Object, node: str) -> None:
        for _, claim in self._claims_of(pod):
            on_its_way = self._on_their_way.get(_key(claim))
            if on_its_way is not None or not _is_user(claim, pod["metadata"].get("uid", "")):
                await self._write(pod, claim, on_its_way.allocation if on_its_way is not None else None)

    async def _write(self, pod: Object, claim: Object, allocation: Object | None) -> None:
        """Write the allocation, if there is one to write, and the pod as a user. Raises ClaimError."""
        meta = claim["metadata"]
        name, namespace = meta["name"], meta["namespace"]
        for attempt in range(_CONFLICTS_MAX):
            try:
                if attempt:
                    claim = orjson.loads(await self._client.get(RESOURCE_CLAIMS, name, namespace=namespace))
                await self._write_once(pod, claim, allocation)
            except Conflict as error:
                if attempt == _CONFLICTS_MAX - 1:
                    raise ClaimError(f"add reservation to claim {namespace}/{name}: {error}") from error
            else:
                return

    async def _write_once(self, pod: Object, claim: Object, allocation: Object | None) -> None:
        key, meta = _key(claim), claim["metadata"]
        status: Object = claim.get("status") or {}
        if meta.get("deletionTimestamp"):
            raise ClaimError(f"claim {key} got deleted in the meantime")
        if allocation is not None:
            if status.get("allocation"):
                raise ClaimError(f"claim {key} got allocated elsewhere in the meantime")
            if FINALIZER not in (meta.get("finalizers") or ()):
                guarded = {**claim, "metadata": {**meta, "finalizers": [*(meta.get("finalizers") or ()), FINALIZER]}}
                written = await self._client.update(RESOURCE_CLAIMS, guarded, name=meta["name"], namespace=meta["namespace"])
                claim = orjson.loads(written)
            stamp = rfc3339(self._clock.now())
            status = {**status, "allocation": {**allocation, "allocationTimestamp": stamp}}
        elif not status.get("allocation"):
            raise ClaimError(f"claim {key} got deallocated elsewhere in the meantime")
        user = {"resource": "pods", "name": pod["metadata"]["name"], "uid": pod["metadata"].get("uid", "")}
        if not _is_user(claim, user["uid"]):
            status = {**status, "reservedFor": [*(status.get("reservedFor") or ()), user]}
        changed = {**claim, "status": status}
        await self._client.update(RESOURCE_CLAIMS, changed, name=meta["name"], namespace=meta["namespace"], subresource="status")
        if allocation is not None:
            # Whatever becomes of the pod, the devices are taken; the informer will say so.
            self._on_their_way[key] = _OnItsWay(meta.get("uid", ""), "", allocation)

    def uses(self, pod: Object, claim: str) -> bool:
        """Return whether a pod uses a claim (`namespace/name`)."""
        try:
            return any(_key(one) == claim for _, one in self._claims_of(pod))
        except ClaimError:
            # Perhaps this is the one that it waits for.
            return True

    def _claims_of(self, pod: Object) -> list[tuple[str, Object]]:
        """Return the pod's claims, each with its name in the pod. Raises ClaimError."""
        meta, found = pod["metadata"], list[tuple[str, Object]]()
        namespace = meta.get("namespace", "")
        made = {one["name"]: one.get("resourceClaimName") for one in (pod.get("status") or {}).get("resourceClaimStatuses") or ()}
        for wanted in (pod.get("spec") or {}).get("resourceClaims") or ():
            name = wanted.get("resourceClaimName")
            is_own = name is None
            if is_own:
                if wanted["name"] not in made:
                    raise ClaimError(f'pod "{namespace}/{meta["name"]}": ResourceClaim not created yet')
                name = made[wanted["name"]]
                if name is None:
                    continue
            claim = self._claims.get(f"{namespace}/{name}")
            if claim is None:
                raise ClaimError(f'resourceclaim.resource.k8s.io "{name}" not found')
            if claim["metadata"].get("deletionTimestamp"):
                raise ClaimError(f'resourceclaim "{name}" is being deleted')
            if is_own and not any(one.get("uid") == meta.get("uid") for one in claim["metadata"].get("ownerReferences") or ()):
                words = f"was not created for Pod {namespace}/{meta['name']} (Pod is not owner)"
                raise ClaimError(f"ResourceClaim {namespace}/{name} {words}")
            found.append((wanted["name"], claim))
        return found

    def _missing_class(self, claim: Object) -> str:
        for request in (claim["spec"].get("devices") or {}).get("requests") or ():
            alternatives = [request["exactly"]] if "exactly" in request else request.get("firstAvailable") or ()
            for one in alternatives:
                device_class = one.get("deviceClassName", "")
                if device_class not in self._classes:
                    name = request["name"] if "exactly" in request else f"{request['name']}/{one['name']}"
                    return f"request {name}: device class {device_class} does not exist"
        return ""

    def _reason(self, node: Object) -> str:
        """Return why the pod's claims keep it off the node, or "", and remember what they would get there."""
        cycle = self._cycle
        for claim in cycle.claims:
            selector = ((claim.get("status") or {}).get("allocation") or {}).get("nodeSelector")
            if selector is not None and not matches_node(selector, node):
                return "resourceclaim not available on the node"
        if not cycle.to_allocate:
            return ""
        allocator = Allocator(node, self._slices.pools(), self._taken_devices(), self._classes, self._selectors)
        try:
            given = allocator.allocate(cycle.to_allocate)
        except InvalidPool as error:
            return str(error)
        if given is None:
            return "cannot allocate all claims"
        cycle.allocations[node["metadata"]["name"]] = given
        return ""

    def _given(self, node: str) -> Iterable[tuple[Object, Object]]:
        """Return each claim with the allocation that it has, or would have on the node."""
        for claim in self._cycle.claims:
            allocation = (claim.get("status") or {}).get("allocation")
            if allocation:
                yield claim, allocation
        yield from zip(self._cycle.to_allocate, self._cycle.allocations.get(node, ()), strict=False)

    def _worth(self, claim: Object, allocation: Object) -> int:
        chosen = {one["request"] for one in allocation["devices"].get("results") or ()}
        return sum(
            ALTERNATIVES_MAX - at
            for request in (claim["spec"].get("devices") or {}).get("requests") or ()
            for at, one in enumerate(request.get("firstAvailable") or ())
            if f"{request['name']}/{one['name']}" in chosen
        )

    def _taken_devices(self) -> frozenset[DeviceId]:
        if self._taken is None:
            allocations: list[Object | None] = [(claim.get("status") or {}).get("allocation") for claim in self._claims.values()]
            allocations += [one.allocation for one in self._on_their_way.values()]
            self._taken = frozenset(
                (one["driver"], one["pool"], one["device"])
                for allocation in allocations
                if allocation
                for one in (allocation.get("devices") or {}).get("results") or ()
                if not one.get("adminAccess")
            )
        return self._taken

    def _follow(self, resource: ResourceRef, changed: Callable[[str, Object | None], None]) -> Informer[Meta]:
        informer = self._informers.informer(resource)

        def note(meta: Meta) -> None:
            raw = informer.raw(meta.key)
            changed(meta.key, None if raw is None else orjson.loads(raw))

        informer.on(add=note, update=lambda _, new: note(new), delete=note)
        return informer

    def _claim_changed(self, key: str, claim: Object | None) -> None:
        before = self._claims.pop(key, None)
        had_devices = bool(((before or {}).get("status") or {}).get("allocation"))
        has_devices = bool(((claim or {}).get("status") or {}).get("allocation"))
        on_its_way = self._on_their_way.get(key)
        if claim is not None:
            self._claims[key] = claim
        if on_its_way is not None and (claim is None or has_devices or claim["metadata"].get("uid") != on_its_way.uid):
            del self._on_their_way[key]
        self._taken = None
        # Devices that nobody has any more may be what others wait for.
        self._changed(None if had_devices and not has_devices else key)

    def _class_changed(self, key: str, device_class: Object | None) -> None:
        if device_class is None:
            self._classes.pop(key, None)
        else:
            self._classes[key] = device_class
            self._changed(None)

    def _slice_changed(self, key: str, found: Object | None) -> None:
        if found is None:
            self._slices.remove(key)
        else:
            self._slices.upsert(found)
            self._changed(None)


def _key(claim: Object) -> str:
    return f"{claim['metadata']['namespace']}/{claim['metadata']['name']}"


def _is_user(claim: Object, uid: str) -> bool:
    return any(one.get("uid") == uid for one in (claim.get("status") or {}).get("reservedFor") or ())
