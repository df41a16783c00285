"""Writes the core/v1 Endpoints of every Service that has a selector: the older, single-object form of its endpoint slices.

Watches Services, pods and its own Endpoints; writes Endpoints. Invariants: an Endpoints object of somebody else's making (without this
controller's managed-by label and without a Service that has a selector) is never touched; at most 1000 addresses.
Mirrors upstream pkg/controller/endpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from korch.api.errors import AlreadyExists, ApiError, NotFound
from korch.api.gvk import ENDPOINTS, PODS, SERVICES
from korch.api.meta import annotations_of, at, is_deleting, key_of, labels_of, name_of, namespace_of, uid_of
from korch.api.pods import is_ready
from korch.client.controller import Requeue, Watch
from korch.client.projections import split_key
from korch.client.protocol import DeleteOptions
from korch.controllers.services import membership
from korch.controllers.services.selecting import SERVICES_AND_PODS, SelectingController
from korch.controllers.workload.controller import decode_object, is_namespace_ending
from korch.controllers.workload.ownership import NAMESPACE

Object = dict[str, Any]

MANAGED_BY = "endpoints.kubernetes.io/managed-by"
MANAGER = "endpoint-controller"
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
ADDRESSES_MAX = 1000


def _managed_keys(endpoints: Object) -> Iterable[str]:
    return (key_of(endpoints),) if labels_of(endpoints).get(MANAGED_BY) == MANAGER else ()


class EndpointsController(SelectingController):
    """Reconciles the Endpoints of one Service a key."""

    name = "endpoint-controller"
    watches = (
        *SERVICES_AND_PODS,
        Watch(ENDPOINTS, keys=_managed_keys, decode=decode_object),
    )

    async def reconcile(self, key: str) -> Requeue | None:
        if (wait_s := self.pacer.wait_s(key)) > 0:
            return Requeue(after_s=wait_s)
        service = self.informer(SERVICES).get_by_key(key)
        present = self.informer(ENDPOINTS).get_by_key(key)
        if service is None:
            self.pacer.worked(key, 0)
            if present is not None and labels_of(present).get(MANAGED_BY) == MANAGER:
                await self._delete(key, present)
            return None
        if is_deleting(service) or not membership.is_managed(service):
            return None
        pods = [
            pod for pod in self.informer(PODS).by_index(NAMESPACE, namespace_of(service)) if membership.selects(service, labels_of(pod))
        ]
        self.pacer.worked(key, len(pods))
        wanted = plan(service, present, pods)
        if wanted is None:
            return None
        try:
            if present is None:
                stored = await self.client.create(ENDPOINTS, wanted, namespace=namespace_of(service))
            else:
                stored = await self.client.update(ENDPOINTS, wanted, name=name_of(service), namespace=namespace_of(service))
        except AlreadyExists:
            return Requeue()
        except ApiError as error:
            if is_namespace_ending(error):
                return None
            verb = "create" if present is None else "update"
            reason = f"FailedTo{verb.capitalize()}Endpoint"
            self.recorder.event(service, "Warning", reason, f"Failed to {verb} endpoint {key}: {error.message}")
            raise
        self.wrote(key, ENDPOINTS, stored)
        return None

    async def _delete(self, key: str, present: Object) -> None:
        namespace, name = split_key(key)
        try:
            await self.client.delete(ENDPOINTS, name, namespace=namespace, options=DeleteOptions(uid=uid_of(present)))
        except NotFound:
            return


def plan(service: Object, present: Object | None, pods: Sequence[Object]) -> Object | None:
    """Return the Endpoints object as it should be, or None when `present` already is."""
    subsets, is_over = truncate(plan_subsets(service, pods))
    labels = {name: value for name, value in labels_of(service).items() if name != membership.HEADLESS_LABEL}
    labels[MANAGED_BY] = MANAGER
    if membership.is_headless(service):
        labels[membership.HEADLESS_LABEL] = ""
    had = annotations_of(present) if present is not None else {}
    annotations = {name: value for name, value in had.items() if name != OVER_CAPACITY}
    if is_over:
        annotations[OVER_CAPACITY] = "truncated"
    if present is not None:
        if (present.get("subsets") or []) == subsets and labels_of(present) == labels and had == annotations:
            return None
        return {**present, "metadata": {**present["metadata"], "labels": labels, "annotations": annotations}, "subsets": subsets}
    metadata: Object = {"name": name_of(service), "namespace": namespace_of(service), "labels": labels}
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets}


def plan_subsets(service: Object, pods: Sequence[Object]) -> list[Object]:
    """Return the subsets: addresses that answer on the same ports stand together. Mirrors endpoints.RepackSubsets."""
    tolerates_unready = bool(at(service, "spec", "publishNotReadyAddresses"))
    family = membership.families(service)[0]
    has_ports = bool(at(service, "spec", "ports"))
    grouped: dict[bytes, Object] = {}
    for pod in membership.members(service, pods, with_terminating=tolerates_unready):
        ip = membership.address_of(pod, family)
        ports = membership.ports_of(service, pod)
        if not ip or (has_ports and not ports):
            continue
        ports.sort(key=lambda one: (one["port"], one["protocol"], one["name"]))
        for port in ports:
            if not port["name"]:
                del port["name"]
        subset = grouped.setdefault(
            orjson.dumps(ports, option=orjson.OPT_SORT_KEYS), {"ports": ports, "addresses": [], "notReadyAddresses": []}
        )
        is_usable = tolerates_unready or is_ready(pod)
        subset["addresses" if is_usable else "notReadyAddresses"].append(_address(service, pod, ip))
    for subset in grouped.values():
        for part in ("addresses", "notReadyAddresses"):
            subset[part].sort(key=lambda one: (one["ip"], one["targetRef"]["uid"]))
    return [{name: part for name, part in grouped[key].items() if part} for key in sorted(grouped)]


def _address(service: Object, pod: Object, ip: str) -> Object:
    address: Object = {"ip": ip, "targetRef": membership.pod_reference(pod)}
    if node := at(pod, "spec", "nodeName"):
        address["nodeName"] = node
    if hostname := membership.hostname_in(service, pod):
        address["hostname"] = hostname
    return address


def truncate(subsets: list[Object]) -> tuple[list[Object], bool]:
    """Return at most 1000 addresses, ready ones first, and whether any were dropped."""
    total = sum(len(one.get(part) or ()) for one in subsets for part in ("addresses", "notReadyAddresses"))
    if total <= ADDRESSES_MAX:
        return subsets, False
    room = ADDRESSES_MAX
    kept: list[Object] = [{"ports": one.get("ports") or []} for one in subsets]
    for part in ("addresses", "notReadyAddresses"):
        for source, target in zip(subsets, kept, strict=True):
            if chosen := (source.get(part) or [])[:room]:
                target[part] = chosen
                room -= len(chosen)
    return [one for one in kept if len(one) > 1], True
