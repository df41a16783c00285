"""What exists before anybody asks: the system's namespaces, the Service `kubernetes` that leads to this server, and `kube-dns`.

Level-triggered: `run` looks at everything every ten seconds and makes it right, so a deletion or a change of address heals.
A loopback address leads nowhere from inside a pod, and no endpoint may carry one: a server that is known by nothing else has the
Service, and no endpoints behind it. `kube-dns` has none either: every node answers at its address itself, and the Service keeps the
address from being given to another.
Mirrors pkg/controlplane's systemnamespaces and kubernetesservice controllers.
"""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import orjson

from korch.api.errors import AlreadyExists, ApiError, NotFound
from korch.api.gvk import ENDPOINT_SLICES, ENDPOINTS, NAMESPACES, SERVICES, ResourceRef
from korch.client.protocol import Client
from korch.runtime.log import get_logger

log = get_logger("bootstrap")

Object = dict[str, Any]

SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
INTERVAL_S = 10.0
_NAME, _NAMESPACE = "kubernetes", "default"
_DNS_NAME, _DNS_NAMESPACE = "kube-dns", "kube-system"
_SERVED_BY_NODE = "korch.dev/served-by-node"


class Bootstrap:
    """Keeps the system's own objects. `address` is the IP (not a name) and `port` at which clients reach this server.

    `cluster_dns` is the address at which nodes answer cluster DNS, "" when they do not.
    """

    def __init__(self, client: Client, *, service_address: str, address: str, port: int, cluster_dns: str = "") -> None:
        self._client = client
        self._service_address = service_address
        self._address = address
        self._port = port
        self._cluster_dns = cluster_dns
        self._is_reachable = not ipaddress.ip_address(address).is_loopback
        self.is_done = False

    async def run(self) -> None:
        """Make and keep the objects; returns only when cancelled."""
        while True:
            try:
                await self.ensure()
                self.is_done = True
            except (ApiError, ConnectionError) as error:
                log.warning("system objects are not right yet", error=str(error))
            await asyncio.sleep(INTERVAL_S if self.is_done else 0.5)

    async def ensure(self) -> None:
        """Make everything right once. Raises ApiError."""
        for name in SYSTEM_NAMESPACES:
            await self._ensure_exists(NAMESPACES, "", {"metadata": {"name": name}})
        labels = {"component": "apiserver", "provider": "kubernetes"}
        port = {"name": "https", "port": 443, "protocol": "TCP", "targetPort": self._port}
        spec: Object = {"clusterIP": self._service_address, "type": "ClusterIP", "ports": [port], "sessionAffinity": "None"}
        await self._ensure_exists(SERVICES, _NAMESPACE, {"metadata": {"name": _NAME, "labels": labels}, "spec": spec})
        await self._ensure_same(ENDPOINTS, self._endpoints(), ("subsets",))
        await self._ensure_same(ENDPOINT_SLICES, self._endpoint_slice(), ("addressType", "endpoints", "ports"))
        if self._cluster_dns:
            try:
                await self._ensure_exists(SERVICES, _DNS_NAMESPACE, self._dns_service())
            except ApiError as error:
                # Names are answered all the same; the address may belong to a Service from before there was this one.
                log.warning("service kube-dns cannot be made", address=self._cluster_dns, error=error.message)

    def _dns_service(self) -> Object:
        labels = {"k8s-app": _DNS_NAME, "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}
        ports = [{"name": name, "port": 53, "protocol": protocol} for name, protocol in (("dns", "UDP"), ("dns-tcp", "TCP"))]
        return {
            "metadata": {"name": _DNS_NAME, "labels": labels, "annotations": {_SERVED_BY_NODE: "true"}},
            "spec": {"clusterIP": self._cluster_dns, "type": "ClusterIP", "ports": ports},
        }

    def _endpoints(self) -> Object:
        ports = [{"name": "https", "port": self._port, "protocol": "TCP"}]
        # The label keeps the mirroring controller away: the slice is written here.
        labels = {"endpointslice.kubernetes.io/skip-mirror": "true"}
        endpoints: Object = {"metadata": {"name": _NAME, "labels": labels}}
        if self._is_reachable:
            endpoints["subsets"] = [{"addresses": [{"ip": self._address}], "ports": ports}]
        return endpoints

    def _endpoint_slice(self) -> Object:
        return {
            "metadata": {"name": _NAME, "labels": {"kubernetes.io/service-name": _NAME}},
            "addressType": "IPv6" if ":" in self._address else "IPv4",
            "endpoints": [{"addresses": [self._address], "conditions": {"ready": True}}] if self._is_reachable else [],
            "ports": [{"name": "https", "port": self._port, "protocol": "TCP"}],
        }

    async def _ensure_exists(self, ref: ResourceRef, namespace: str, obj: Object) -> None:
        try:
            await self._client.get(ref, obj["metadata"]["name"], namespace=namespace)
        except NotFound:
            try:
                await self._client.create(ref, _typed(ref, obj), namespace=namespace)
            except AlreadyExists:
                return

    async def _ensure_same(self, ref: ResourceRef, wanted: Object, fields: tuple[str, ...]) -> None:
        try:
            present: Object = orjson.loads(await self._client.get(ref, _NAME, namespace=_NAMESPACE))
        except NotFound:
            await self._ensure_exists(ref, _NAMESPACE, wanted)
            return
        if any((present.get(field) or None) != (wanted.get(field) or None) for field in fields):
            right = present | {field: wanted.get(field) for field in fields}
            await self._client.update(ref, right, name=_NAME, namespace=_NAMESPACE)


def _typed(ref: ResourceRef, obj: Object) -> Object:
    return {"apiVersion": ref.api_version, "kind": ref.kind, **obj}
