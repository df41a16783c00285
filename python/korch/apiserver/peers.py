"""Which servers serve this cluster now: each renews a Lease of its own, and whoever does not for a minute is no longer counted.

The Lease is kube-system/`apiserver-<hash>` with the label and the identity that kube-apiserver gives its own; an annotation says
where the server is reached. Mirrors apiserver's identity leases and controlplane's lease endpoint reconciler, in one.
"""

from __future__ import annotations

import asyncio
import hashlib
from datetime import datetime
from typing import Any

import orjson

from korch.api.errors import AlreadyExists, ApiError, NotFound
from korch.api.gvk import LEASES
from korch.client.protocol import Client, ListOptions
from korch.runtime.clock import rfc3339_micro
from korch.runtime.context import Runtime

Object = dict[str, Any]

NAMESPACE = "kube-system"
LABEL = "apiserver.kubernetes.io/identity"
ADDRESS = "korch.dev/address"
DURATION_S = 60
_LEAVE_S = 2.0


class Peers:
    """The servers of one cluster, as the one at `address` and `port`, called `identity`, sees them."""

    def __init__(self, client: Client, runtime: Runtime, *, identity: str, address: str, port: int) -> None:
        self._client = client
        self._runtime = runtime
        self._identity = identity
        self._address = f"{address} {port}"
        self._name = "apiserver-" + hashlib.sha256(self._address.encode()).hexdigest()[:26]

    async def meet(self) -> tuple[list[str], int]:
        """Say that this server is here; return the addresses of all that are, sorted, and their port. Raises ApiError.

        Servers that use another port than the first of them cannot stand behind the same Service and are left out.
        """
        await self._renew()
        found = await self._client.list(LEASES, ListOptions(namespace=NAMESPACE, label_selector=f"{LABEL}=kube-apiserver"))
        present = {self._address, *(where for item in found.items if (where := self._where(orjson.loads(item))))}
        servers = sorted((address, int(port)) for address, _, port in (one.partition(" ") for one in present))
        port = servers[0][1]
        return [address for address, own in servers if own == port], port

    async def leave(self) -> None:
        """Say that this server goes; a failure is no matter, because the Lease ends by itself."""
        try:
            async with asyncio.timeout(_LEAVE_S):
                await self._client.delete(LEASES, self._name, namespace=NAMESPACE)
        except (ApiError, ConnectionError, TimeoutError):
            return

    async def _renew(self) -> None:
        now = rfc3339_micro(self._runtime.clock.now())
        spec = {"holderIdentity": self._identity, "leaseDurationSeconds": DURATION_S, "renewTime": now}
        try:
            lease: Object = orjson.loads(await self._client.get(LEASES, self._name, namespace=NAMESPACE))
        except NotFound:
            metadata = {"name": self._name, "labels": {LABEL: "kube-apiserver"}, "annotations": {ADDRESS: self._address}}
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
            try:
                await self._client.create(LEASES, lease, namespace=NAMESPACE)
            except AlreadyExists:
                return
        else:
            await self._client.update(LEASES, lease | {"spec": spec}, name=self._name, namespace=NAMESPACE)

    def _where(self, lease: Object) -> str:
        """Return the address in a Lease that has not ended, else ""."""
        spec = lease.get("spec") or {}
        try:
            renewed = datetime.fromisoformat(spec["renewTime"]).timestamp()
            where = str(lease["metadata"]["annotations"][ADDRESS])
            is_known = int(where.partition(" ")[2]) > 0
        except (KeyError, ValueError, TypeError):
            return ""
        return where if is_known and self._runtime.clock.now() < renewed + float(spec.get("leaseDurationSeconds") or 0) else ""
