"""The pod network of one node: CNI configuration, masquerading, and routes to the pods of other nodes.

Pods hang on the bridge `cni0`, whose address is their gateway; addresses come from the node's podCIDR through host-local. What
leaves the cluster is masqueraded by one small nftables table, `ip korch-agent`: its set `pods` holds the pod subnets of all nodes,
so that pods see each other's real addresses wherever they run. Every other node's subnet gets a route by way of
that node's address. `cni` holds the mechanics; here stands what the Node objects ask for.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from korch.api.gvk import NODES
from korch.client.informer import Informers
from korch.runtime.log import get_logger
from korch_agent import cni

# Seconds after which routes and rules are looked at again, whatever the watch said.
RESYNC_S = 60.0

log = get_logger("network")


class Network:
    """Keeps this node's pod network as the Node objects want it. `pod_cidr` overrides what spec.podCIDR says."""

    def __init__(
        self, informers: Informers, *, node_name: str, data_dir: Path, cni_config: Path, cni_data: Path, cni_name: str, pod_cidr: str = ""
    ) -> None:
        self._nodes = informers.informer(NODES, decode=orjson.loads)
        self._node_name = node_name
        self._data_dir = data_dir
        self._cni_config = cni_config
        self._cni_data = cni_data
        self._cni_name = cni_name
        self._fixed_cidr = pod_cidr
        self._changed = asyncio.Event()
        self._applied: tuple[str, dict[str, str]] | None = None
        self._nodes.on(add=lambda _: self._changed.set(), update=self._updated, delete=lambda _: self._changed.set())
        self.pod_cidr = ""

    async def run(self) -> None:
        """Apply changes until cancelled. A command that fails is logged and tried again."""
        while True:
            try:
                async with asyncio.timeout(RESYNC_S):
                    await self._changed.wait()
            except TimeoutError:
                self._applied = None
            self._changed.clear()
            try:
                await self._apply()
            except (cni.NetworkFailed, OSError) as error:
                log.warning("pod network not set up; trying again", error=str(error))
                await asyncio.sleep(1)
                self._changed.set()

    def _updated(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        if _place(old) != _place(new):
            self._changed.set()

    async def _apply(self) -> None:
        mine, routes = self._fixed_cidr, dict[str, str]()
        for node in self._nodes.list():
            cidr, address = _place(node)
            if node["metadata"]["name"] == self._node_name:
                mine = mine or cidr
            elif cidr and address:
                routes[cidr] = address
        if not mine or (mine, routes) == self._applied:
            return
        await asyncio.get_running_loop().run_in_executor(None, cni.prepare_machine, self._data_dir)
        mtu = cni.underlay_mtu()
        config = cni.conflist(name=self._cni_name, pod_cidr=mine, data_dir=self._cni_data, mtu=mtu)
        file = self._cni_config / cni.CONFLIST
        if not file.exists() or file.read_bytes() != config:
            file.parent.mkdir(parents=True, exist_ok=True)
            draft = file.with_suffix(".draft")
            draft.write_bytes(config)
            draft.replace(file)
        await cni.run("nft", "-f", "-", text=cni.ruleset(pod_cidr=mine, pod_cidrs=list(routes)))
        await self._apply_routes(routes)
        self._applied = (mine, routes)
        self.pod_cidr = mine
        log.info("pod network ready", pod_cidr=mine, mtu=mtu, routes=len(routes))

    async def _apply_routes(self, wanted: Mapping[str, str]) -> None:
        state = cni.read_state(self._data_dir)
        for cidr in set(state.get("routes", {})) - set(wanted):
            await cni.run("ip", "route", "del", cidr, ok=False)
        # Written before the routes are: teardown must know of each one that may exist.
        cni.write_state(self._data_dir, state | {"routes": dict(wanted)})
        for cidr, address in wanted.items():
            await cni.run("ip", "route", "replace", cidr, "via", address, ok=False)


def _place(node: Mapping[str, Any]) -> tuple[str, str]:
    """Return a Node's IPv4 pod subnet and internal address; "" for what it has not got yet."""
    spec = node.get("spec") or {}
    cidrs = spec.get("podCIDRs") or [spec.get("podCIDR") or ""]
    cidr = next((one for one in cidrs if one and ipaddress.ip_network(one, strict=False).version == 4), "")
    addresses = (node.get("status") or {}).get("addresses") or []
    internal = (one["address"] for one in addresses if one["type"] == "InternalIP")
    return cidr, next((one for one in internal if ipaddress.ip_address(one).version == 4), "")
