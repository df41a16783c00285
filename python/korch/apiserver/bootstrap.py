"""What exists before anybody asks: the system's namespaces, the Service `kubernetes` that leads to this server and to all others that
serve the same cluster, and `kube-dns`.

Level-triggered: `run` looks at everything every ten seconds and makes it right, so a deletion or a change of address heals.
A loopback address leads nowhere from inside a pod, and no endpoint may carry one: a server that is known by nothing else has the
Service, and no endpoints behind it. `kube-dns` has none either: every node answers at its address itself, and the Service keeps the
address from being given to another.
Mirrors pkg/controlplane's systemnamespaces and kubernetesservice controllers.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from korch.api.errors import AlreadyExists, ApiError, NotFound
from korch.api.gvk import ENDPOINT_SLICES, ENDPOINTS, NAMESPACES, SERVICES, ResourceRef
from korch.apiserver.peers import Peers
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
    """Keeps the system's own objects. `address` is the IP (not a name) and `port` at which clients reach this server; `first` runs
    before each look at them; `peers` knows the other servers, where there may be some; `cluster_dns` is the address at which nodes
    answer cluster DNS, "" when they do not."""

    def __init__(
        self,
        client: Client,
        *,
        service_address: str,
        address: str,
        port: int,
        cluster_dns: str = "",
        first: Callable[[], Awaitable[None]] | None = None,
        peers: Peers | None = None,
    ) -> None:
        self._first = first
        self._peers = peers
        self._client = client
        self._service_address = service_address
        self._addresses = [address]
        self._port = port
        self._cluster_dns = cluster_dns
        self.is_done = False

    async def run(self) -> None:
        """Make and keep the objects; returns only when cancelled."""
        try:
            while True:
                try:
                    await self.ensure()
                    self.is_done = True
                except (ApiError, ConnectionError) as error:
                    log.warning("system objects are not right yet", error=str(error))
                await asyncio.sleep(INTERVAL_S if self.is_done else 0.5)
        finally:
            if self._peers is not None:
                await self._peers.leave()

    async def ensure(self) -> None:
        """Make everything right once. Raises ApiError."""
        if self._first is not None:
            await self._first()
        for name in SYSTEM_NAMESPACES:
            await self._ensure_exists(NAMESPACES, "", {"metadata": {"name": name}})
        if self._peers is not None:
            self._addresses, self._port = await self._peers.meet()
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
        if addresses := self._reachable():
            endpoints["subsets"] = [{"addresses": [{"ip": address} for address in addresses], "ports": ports}]
        return endpoints

    def _endpoint_slice(self) -> Object:
        return {
            "metadata": {"name": _NAME, "labels": {"kubernetes.io/service-name": _NAME}},
            "addressType": "IPv6" if ":" in self._addresses[0] else "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in self._reachable()],
            "ports": [{"name": "https", "port": self._port, "protocol": "TCP"}],
        }

    def _reachable(self) -> list[str]:
        return [address for address in self._addresses if not ipaddress.ip_address(address).is_loopback]

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
