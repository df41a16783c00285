"""Writes the EndpointSlices of every Service that has a selector: which pods stand behind it, on which ports, and whether they may be used.

Watches Services, pods, nodes (for zones) and its own slices; writes EndpointSlices. Invariants: only slices that carry this
controller's managed-by label are touched; at most 100 endpoints a slice; a pod that is shutting down stays in as `terminating`
until it is over; a Service without pods has one empty slice. Slices of a deleted Service are the garbage collector's.
Mirrors upstream pkg/controller/endpointslice and k8s.io/endpointslice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from korch.api.errors import ApiError
from korch.api.gvk import ENDPOINT_SLICES, NODES, PODS, SERVICES
from korch.api.meta import at, is_deleting, key_of, labels_of, name_of, namespace_of, owner_reference, owner_references, uid_of
from korch.api.pods import is_ready
from korch.client.controller import Requeue, Watch
from korch.controllers.services import membership
from korch.controllers.services.packing import MANAGED_BY, SERVICE_NAME, Group, group_for, keys_of_slices, pack
from korch.controllers.services.selecting import SERVICES_AND_PODS, SelectingController
from korch.controllers.services.slices import SliceController
from korch.controllers.workload.controller import decode_object
from korch.controllers.workload.ownership import NAMESPACE

Object = dict[str, Any]

MANAGER = "endpointslice-controller.k8s.io"
ZONE = "topology.kubernetes.io/zone"
ENDPOINTS_MAX = 100


_service_keys = keys_of_slices(MANAGER)


class EndpointSliceController(SelectingController, SliceController):
    """Reconciles the slices of one Service a key."""

    name = "endpointslice-controller"
    watches = (
        *SERVICES_AND_PODS,
        Watch(ENDPOINT_SLICES, keys=_service_keys, decode=decode_object, indexes={"service": _service_keys}),
        Watch(NODES, keys=None, decode=decode_object),
    )

    async def reconcile(self, key: str) -> Requeue | None:
        if (wait_s := self.pacer.wait_s(key)) > 0:
            return Requeue(after_s=wait_s)
        service = self.informer(SERVICES).get_by_key(key)
        if service is None or is_deleting(service) or not membership.is_managed(service):
            self.pacer.worked(key, 0)
            return None
        slices = [one for one in self.informer(ENDPOINT_SLICES).by_index("service", key) if not is_deleting(one)]
        pods = [
            pod for pod in self.informer(PODS).by_index(NAMESPACE, namespace_of(service)) if membership.selects(service, labels_of(pod))
        ]
        self.pacer.worked(key, len(pods))
        zones = {name: zone for node in self._nodes_of(pods) if (zone := labels_of(node).get(ZONE)) for name in [name_of(node)]}
        labels = slice_labels(service)
        packing = pack(plan_endpoints(service, pods, zones), slices, ENDPOINTS_MAX)
        for one in slices:
            name = name_of(one)
            if name in packing.deletes:
                await self.delete_slice(key, one)
            elif name in packing.updates or labels_of(one) != labels or not _is_owned(one, service):
                await self._update(key, service, one, packing.updates.get(name), labels)
        for group, endpoints in packing.creates:
            await self._told(service, self.create_slice(key, service, SERVICES, group, endpoints, {"labels": labels}))
        return None

    def _nodes_of(self, pods: Sequence[Object]) -> list[Object]:
        names = sorted({name for pod in pods if (name := at(pod, "spec", "nodeName"))})
        return [node for name in names if (node := self.informer(NODES).get_by_key(name)) is not None]

    async def _update(self, key: str, service: Object, one: Object, endpoints: list[Object] | None, labels: dict[str, str]) -> None:
        owners = owner_references(one)
        if not _is_owned(one, service):
            owners = [*owners, owner_reference(service, SERVICES.kind, SERVICES.api_version)]
        await self._told(service, self.update_slice(key, one, endpoints, {"labels": labels, "ownerReferences": owners}))

    async def _told(self, service: Object, write: Awaitable[None]) -> None:
        """Await a write, and tell of its failure by an event."""
        try:
            await write
        except ApiError as error:
            message = f"Error updating Endpoint Slices for Service {key_of(service)}: {error.message}"
            self.recorder.event(service, "Warning", "FailedToUpdateEndpointSlices", message)
            raise


def _is_owned(one: Object, service: Object) -> bool:
    return any(reference.get("uid") == uid_of(service) for reference in owner_references(one))


def slice_labels(service: Object) -> dict[str, str]:
    """Return the labels of the Service's slices: its own, and those that say whose they are."""
    labels = {
        name: value for name, value in labels_of(service).items() if name not in (SERVICE_NAME, MANAGED_BY, membership.HEADLESS_LABEL)
    }
    labels |= {SERVICE_NAME: name_of(service), MANAGED_BY: MANAGER}
    if membership.is_headless(service):
        labels[membership.HEADLESS_LABEL] = ""
    return labels


def plan_endpoints(service: Object, pods: Sequence[Object], zones: Mapping[str, str]) -> dict[Group, list[Object]]:
    """Return the wanted endpoints by group; `zones` maps node names to zones. A family without endpoints has an empty group."""
    wanted: dict[Group, list[Object]] = {}
    chosen = membership.members(service, pods, with_terminating=True)
    for family in membership.families(service):
        count = 0
        for pod in chosen:
            address = membership.address_of(pod, family)
            if address:
                endpoint = endpoint_of(service, pod, address, zones)
                wanted.setdefault(group_for(family, membership.ports_of(service, pod)), []).append(endpoint)
                count += 1
        if count == 0:
            wanted[group_for(family, [])] = []
    return wanted


def endpoint_of(service: Object, pod: Object, address: str, zones: Mapping[str, str]) -> Object:
    """Return the endpoint of one pod. `ready` is for new connections, `serving` says the same while the pod shuts down."""
    serving = is_ready(pod)
    terminating = is_deleting(pod)
    ready = bool(at(service, "spec", "publishNotReadyAddresses")) or (serving and not terminating)
    endpoint: Object = {
        "addresses": [address],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": membership.pod_reference(pod),
    }
    if hostname := membership.hostname_in(service, pod):
        endpoint["hostname"] = hostname
    if node := at(pod, "spec", "nodeName"):
        endpoint["nodeName"] = node
        if zone := zones.get(node):
            endpoint["zone"] = zone
    return endpoint
