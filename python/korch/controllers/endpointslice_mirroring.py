"""Mirrors Endpoints that somebody else wrote, for a Service without a selector, into EndpointSlices, which is what proxies read.

Watches Endpoints, Services and its own slices; writes EndpointSlices. Invariants: only slices that carry this controller's managed-by label
are touched; Endpoints of a Service with a selector, with the label `endpointslice.kubernetes.io/skip-mirror: "true"` or with a leader
election annotation have none; of a subset at most 1000 addresses are mirrored. Mirrors upstream pkg/controller/endpointslicemirroring.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from korch.api.gvk import ENDPOINT_SLICES, ENDPOINTS, SERVICES
from korch.api.meta import annotations_of, at, is_deleting, labels_of, name_of
from korch.client.controller import Requeue, Watch
from korch.controllers.services.packing import MANAGED_BY, SERVICE_NAME, Group, group_for, keys_of_slices, pack
from korch.controllers.services.slices import SliceController
from korch.controllers.workload.controller import decode_object, same_key

Object = dict[str, Any]

MANAGER = "endpointslicemirroring-controller.k8s.io"
SKIP_MIRROR = "endpointslice.kubernetes.io/skip-mirror"
LEADER = "control-plane.alpha.kubernetes.io/leader"
ADDRESSES_MAX = 1000
# Annotations that say something about the Endpoints object alone.
_NOT_MIRRORED = ("endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration")


_mirrored_keys = keys_of_slices(MANAGER)


@dataclass(slots=True)
class Mirror:
    """What slices should hold, and how many addresses could not be mirrored: no IP address, or beyond the most of a subset."""

    endpoints: dict[Group, list[Object]] = field(default_factory=dict)
    invalid: int = 0
    too_many: int = 0


class EndpointSliceMirroringController(SliceController):
    """Reconciles the slices that mirror one Endpoints object a key."""

    name = "endpointslice-mirroring-controller"
    workers = 5
    watches = (
        Watch(ENDPOINTS, keys=same_key, decode=decode_object),
        Watch(SERVICES, keys=same_key, decode=decode_object),
        Watch(ENDPOINT_SLICES, keys=_mirrored_keys, decode=decode_object, indexes={"mirrored": _mirrored_keys}),
    )

    async def reconcile(self, key: str) -> Requeue | None:
        endpoints = self.informer(ENDPOINTS).get_by_key(key)
        service = self.informer(SERVICES).get_by_key(key)
        slices = [one for one in self.informer(ENDPOINT_SLICES).by_index("mirrored", key) if not is_deleting(one)]
        if endpoints is None or service is None or not is_mirrored(endpoints, service):
            for one in slices:
                await self.delete_slice(key, one)
            return None
        mirror = plan(endpoints.get("subsets") or ())
        self._tell(endpoints, mirror)
        packing = pack(mirror.endpoints, slices, ADDRESSES_MAX)
        metadata = slice_metadata(endpoints)
        for one in slices:
            name = name_of(one)
            if name in packing.deletes:
                await self.delete_slice(key, one)
            elif name in packing.updates or not _says(one, metadata):
                await self.update_slice(key, one, packing.updates.get(name), metadata)
        for group, members in packing.creates:
            await self.create_slice(key, endpoints, ENDPOINTS, group, members, metadata)
        return None

    def _tell(self, endpoints: Object, mirror: Mirror) -> None:
        if mirror.invalid:
            message = f"Skipped {mirror.invalid} invalid IP addresses when mirroring to EndpointSlices"
            self.recorder.event(endpoints, "Warning", "InvalidIPAddress", message)
        if mirror.too_many:
            skipped = mirror.invalid + mirror.too_many
            most = f"A max of {ADDRESSES_MAX} addresses can be mirrored to EndpointSlices per Endpoints subset."
            message = f"{most} {skipped} addresses were skipped"
            self.recorder.event(endpoints, "Warning", "TooManyAddressesToMirror", message)


def is_mirrored(endpoints: Object, service: Object) -> bool:
    """Whether Endpoints of this Service are mirrored."""
    if labels_of(endpoints).get(SKIP_MIRROR) == "true" or LEADER in annotations_of(endpoints):
        return False
    return at(service, "spec", "selector") is None


def slice_metadata(endpoints: Object) -> Object:
    """Return labels and annotations of the slices: those of the Endpoints, and whose they are."""
    labels = {**labels_of(endpoints), SERVICE_NAME: name_of(endpoints), MANAGED_BY: MANAGER}
    annotations = {name: value for name, value in annotations_of(endpoints).items() if name not in _NOT_MIRRORED}
    return {"labels": labels, "annotations": annotations}


def _says(one: Object, metadata: Mapping[str, Any]) -> bool:
    return labels_of(one) == metadata["labels"] and annotations_of(one) == metadata["annotations"]


def plan(subsets: Sequence[Object]) -> Mirror:
    """Return what slices should hold of these subsets."""
    mirror = Mirror()
    for subset in subsets:
        ports = subset.get("ports") or []
        count = 0
        for part, is_ready in (("addresses", True), ("notReadyAddresses", False)):
            for address in subset.get(part) or ():
                endpoint, family = _endpoint(address, is_ready=is_ready)
                if not family:
                    mirror.invalid += 1
                elif count >= ADDRESSES_MAX:
                    mirror.too_many += 1
                else:
                    count += 1
                    mirror.endpoints.setdefault(group_for(family, ports), []).append(endpoint)
    return mirror


def _endpoint(address: Object, *, is_ready: bool) -> tuple[Object, str]:
    """Return an address as a slice has it, and its family; "" when it is no IP address."""
    try:
        ip = ipaddress.ip_address(address.get("ip") or "")
    except ValueError:
        return {}, ""
    endpoint: Object = {"addresses": [str(ip)], "conditions": {"ready": is_ready}}
    for name in ("targetRef", "nodeName", "hostname"):
        if address.get(name):
            endpoint[name] = address[name]
    return endpoint, f"IPv{ip.version}"
