"""Addresses and node ports of Services: who has which, decided before a Service is stored and given back when it goes.

The truth is in the Services themselves; the sets here are rebuilt from the store at start and follow every write. Where several
servers share the store it is in a `Ledger` there instead, and the sets hold only what writes in flight have taken. A claim
takes what a write needs at once, so that two writes in flight never get the same; `confirm` after the commit gives back what
the old Service no longer needs, `cancel` gives back what the new one took. Mirrors registry/core/service/storage/alloc.go.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from korch.api.errors import Cause, InternalError, Invalid, invalid
from korch.apiserver.ledger import Ledger
from korch.resources.service_rules import keep_allocated
from korch.runtime.rng import Rng

if TYPE_CHECKING:
    from korch._core._native import Op

Object = dict[str, Any]

_WITH_CLUSTER_IP = ("ClusterIP", "NodePort", "LoadBalancer")
_WITH_NODE_PORTS = ("NodePort", "LoadBalancer")


class RangeFull(InternalError):
    """Every address or port of the range is taken, as far as this server knows: another may have given one back."""


@dataclass(slots=True)
class Claim:
    """What one write took for `service` (namespace/name) and what it will give back."""

    allocator: ServiceAllocator
    service: str = ""
    taken_addresses: set[str] = field(default_factory=set)
    taken_ports: set[int] = field(default_factory=set)
    freed_addresses: set[str] = field(default_factory=set)
    freed_ports: set[int] = field(default_factory=set)

    def ops(self) -> list[Op]:
        """Return what must be committed together with the Service: nothing where this server is the only one."""
        ledger = self.allocator.ledger
        if ledger is None:
            return []
        taken = ledger.taking(self.service, self.taken_addresses, self.taken_ports)
        return taken + ledger.freeing(self.freed_addresses, self.freed_ports)

    def confirm(self) -> None:
        """The write is stored: give back what the Service had and has no more."""
        if self.allocator.ledger is not None:
            self.cancel()
        self.allocator.release(self.freed_addresses, self.freed_ports)

    def cancel(self) -> None:
        """The write is not stored: give back what it took."""
        self.allocator.release(self.taken_addresses, self.taken_ports)


class ServiceAllocator:
    """The cluster addresses of one CIDR and the node ports of one range (both ends included)."""

    def __init__(self, *, cidr: str, node_ports: tuple[int, int], rng: Rng, ledger: Ledger | None = None) -> None:
        self.ledger = ledger
        self._network = ipaddress.ip_network(cidr)
        self._ports = node_ports
        self._random = rng.stream("service-allocation")
        self._used_addresses: set[str] = set()
        self._used_ports: set[int] = set()

    @property
    def first_address(self) -> str:
        """The address of the Service `kubernetes`."""
        return str(self._network.network_address + 1)

    def rebuild(self, services: Iterable[Object]) -> None:
        """Take as used what `services` hold, and forget all else."""
        self._used_addresses.clear()
        self._used_ports.clear()
        if self.ledger is not None:
            return
        for service in services:
            self._used_addresses |= _addresses(service)
            self._used_ports |= _node_ports(service)

    async def enter(self, services: Iterable[Object]) -> None:
        """Enter in the ledger what `services` hold, where there is a ledger. Raises ApiError."""
        if self.ledger is not None:
            await self.ledger.enter({_name(service): (_addresses(service), _node_ports(service)) for service in services})

    def claim_create(self, service: Object) -> Claim:
        """Fill in a new Service's addresses and ports. Raises Invalid for what is taken or outside the ranges."""
        return self._claim(service, None)

    def claim_update(self, service: Object, old: Object) -> Claim:
        """Fill in what a changed Service needs, keeping what the old one has. Raises Invalid."""
        keep_allocated(service, old)
        return self._claim(service, old)

    def claim_delete(self, service: Object) -> Claim:
        """Return a claim that gives everything back once confirmed."""
        return Claim(self, _name(service), freed_addresses=_addresses(service), freed_ports=_node_ports(service))

    def release(self, addresses: set[str], ports: set[int]) -> None:
        """Give back; what was never taken is no error."""
        self._used_addresses -= addresses
        self._used_ports -= ports

    def _claim(self, service: Object, old: Object | None) -> Claim:
        claim = Claim(self, _name(service))
        had_addresses = _addresses(old) if old else set()
        had_ports = _node_ports(old) if old else set()
        causes: list[Cause] = []
        try:
            self._claim_addresses(service, had_addresses, claim, causes)
            self._claim_ports(service, had_ports, claim, causes)
        except InternalError:
            claim.cancel()
            raise
        if causes:
            claim.cancel()
            raise Invalid("", "Service", service["metadata"].get("name") or "", causes)
        claim.freed_addresses = had_addresses - _addresses(service)
        claim.freed_ports = had_ports - _node_ports(service)
        return claim

    def _claim_addresses(self, service: Object, had: set[str], claim: Claim, causes: list[Cause]) -> None:
        spec = service.setdefault("spec", {})
        if spec.get("type", "ClusterIP") not in _WITH_CLUSTER_IP:
            return
        given: list[str] = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        if given == ["None"]:
            spec["clusterIP"], spec["clusterIPs"] = "None", ["None"]
            spec.setdefault("ipFamilies", ["IPv4"])
            return
        if not given:
            given = [self._any_address()]
            self._take_address(given[0], claim)
        else:
            for address in given:
                if address in had:
                    continue
                if why := self._address_problem(address):
                    causes.append(invalid("spec.clusterIPs", given, f"failed to allocate IP {address}: {why}"))
                else:
                    self._take_address(address, claim)
        spec["clusterIP"], spec["clusterIPs"] = given[0], given
        spec.setdefault("ipFamilies", ["IPv6" if ":" in address else "IPv4" for address in given])

    def _address_problem(self, address: str) -> str:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
        if parsed not in self._network or parsed in (self._network.network_address, self._network.broadcast_address):
            return f"the provided IP ({address}) is not in the valid range. The range of valid IPs is {self._network}"
        return "provided IP is already allocated" if self._has_address(address) else ""

    def _any_address(self) -> str:
        """Return a free address, from above the band that is kept for addresses asked for by name while there is one."""
        size = self._network.num_addresses - 2
        band = min(max(16, size // 16), 256) if size > 16 else 0
        for low, high in ((band + 1, size), (1, band)):
            if high < low:
                continue
            start = self._random.randint(low, high)
            for step in range(high - low + 1):
                address = str(self._network.network_address + (low + (start - low + step) % (high - low + 1)))
                if not self._has_address(address):
                    return address
        raise RangeFull("failed to allocate a serviceIP: range is full")

    def _has_address(self, address: str) -> bool:
        return address in self._used_addresses or (self.ledger is not None and self.ledger.has_address(address))

    def _has_port(self, port: int) -> bool:
        return port in self._used_ports or (self.ledger is not None and self.ledger.has_port(port))

    def _take_address(self, address: str, claim: Claim) -> None:
        self._used_addresses.add(address)
        claim.taken_addresses.add(address)

    def _claim_ports(self, service: Object, had: set[int], claim: Claim, causes: list[Cause]) -> None:
        spec = service["spec"]
        kind = spec.get("type", "ClusterIP")
        if kind not in _WITH_NODE_PORTS or (kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is False):
            return
        ports: list[Object] = spec.get("ports") or []
        ours = set(had)
        for index, port in enumerate(ports):
            wanted = port.get("nodePort") or 0
            if wanted and wanted not in ours:
                path = f"spec.ports[{index}].nodePort"
                if not self._ports[0] <= wanted <= self._ports[1]:
                    detail = f"provided port is not in the valid range. The range of valid ports is {self._ports[0]}-{self._ports[1]}"
                    causes.append(invalid(path, wanted, detail))
                elif self._has_port(wanted):
                    causes.append(invalid(path, wanted, "provided port is already allocated"))
                else:
                    self._take_port(wanted, claim)
                    ours.add(wanted)
        if causes:
            return
        for port in ports:
            if not port.get("nodePort"):
                # The same port for TCP and UDP gets one node port.
                twin = next((one["nodePort"] for one in ports if one is not port and _is_twin(one, port)), 0)
                port["nodePort"] = twin or self._any_port()
                if not twin:
                    self._take_port(port["nodePort"], claim)

    def _any_port(self) -> int:
        low, high = self._ports
        start = self._random.randint(low, high)
        for step in range(high - low + 1):
            port = low + (start - low + step) % (high - low + 1)
            if not self._has_port(port):
                return port
        raise RangeFull("failed to allocate a nodePort: range is full")

    def _take_port(self, port: int, claim: Claim) -> None:
        self._used_ports.add(port)
        claim.taken_ports.add(port)


def _is_twin(one: Object, other: Object) -> bool:
    return bool(one.get("nodePort")) and one.get("port") == other.get("port") and one.get("protocol", "TCP") != other.get("protocol", "TCP")


def _name(service: Object) -> str:
    metadata = service["metadata"]
    return f"{metadata.get('namespace') or ''}/{metadata.get('name') or ''}"


def _addresses(service: Object) -> set[str]:
    spec = service.get("spec") or {}
    if spec.get("type", "ClusterIP") not in _WITH_CLUSTER_IP:
        return set()
    given = spec.get("clusterIPs") or [spec.get("clusterIP") or ""]
    return {address for address in given if address not in ("", "None")}


def _node_ports(service: Object) -> set[int]:
    return {port["nodePort"] for port in (service.get("spec") or {}).get("ports") or [] if port.get("nodePort")}
