"""What the cluster's DNS knows, derived from Services and EndpointSlices: pure functions from objects to records.

Follows the Kubernetes DNS-based service discovery specification 1.1.0: A and SRV of ClusterIP services, A and SRV of the
endpoints of headless ones, CNAME of ExternalName, PTR for both, and the TXT record with the version.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

T = TypeVar("T")
SCHEMA_VERSION = "1.1.0"
SERVICE_LABEL = "kubernetes.io/service-name"


class ServicePort(msgspec.Struct, frozen=True):
    name: str = ""
    port: int = 0
    protocol: str = "TCP"


class _Metadata(msgspec.Struct, frozen=True):
    name: str
    namespace: str = ""
    labels: dict[str, str] = {}


class ServiceSpec(msgspec.Struct, frozen=True):
    type: str = "ClusterIP"
    clusterIP: str = ""
    externalName: str = ""
    ports: list[ServicePort] = []
    publishNotReadyAddresses: bool = False


class Service(msgspec.Struct, frozen=True):
    """The part of a Service that DNS reads."""

    metadata: _Metadata
    spec: ServiceSpec = ServiceSpec()


class Conditions(msgspec.Struct, frozen=True):
    ready: bool | None = None


class Endpoint(msgspec.Struct, frozen=True):
    addresses: list[str] = []
    hostname: str | None = None
    conditions: Conditions = Conditions()


class SlicePort(msgspec.Struct, frozen=True):
    name: str | None = None
    port: int | None = None
    protocol: str | None = None


class Slice(msgspec.Struct, frozen=True):
    """The part of an EndpointSlice that DNS reads."""

    metadata: _Metadata
    addressType: str = "IPv4"
    endpoints: list[Endpoint] | None = None
    ports: list[SlicePort] | None = None


@dataclass(slots=True)
class Records:
    """All records of the cluster zone. Names are lower case, absolute, without the last dot.

    `names` holds every name that exists, empty ones in between included: a name that is here but has no record of the asked
    type is NODATA, one that is not is NXDOMAIN, and resolvers' search lists depend on the difference.
    """

    addresses: dict[str, list[str]] = field(default_factory=dict)
    services: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    pointers: dict[str, list[str]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def note(self, name: str, zone: str) -> None:
        """Record that `name`, and every name between it and the zone, exists."""
        while name != zone and name.endswith(zone):
            if name in self.names:
                return
            self.names.add(name)
            name = name.partition(".")[2]


def build(services: Iterable[Service], slices: Iterable[Slice], zone: str) -> Records:
    """Return the records of all services under `zone` (such as `cluster.local`)."""
    records = Records(names={zone, f"svc.{zone}", f"pod.{zone}"})
    records.texts[f"dns-version.{zone}"] = SCHEMA_VERSION
    records.note(f"dns-version.{zone}", zone)
    by_service: dict[tuple[str, str], list[Slice]] = {}
    for one in slices:
        name = one.metadata.labels.get(SERVICE_LABEL)
        if name and one.addressType in ("IPv4", "IPv6"):
            by_service.setdefault((one.metadata.namespace, name), []).append(one)
    for service in services:
        _add_service(records, service, by_service.get((service.metadata.namespace, service.metadata.name), ()), zone)
    return records


def _add_service(records: Records, service: Service, slices: Sequence[Slice], zone: str) -> None:
    name = f"{service.metadata.name}.{service.metadata.namespace}.svc.{zone}"
    spec = service.spec
    records.note(name, zone)
    if spec.type == "ExternalName":
        records.aliases[name] = spec.externalName.rstrip(".").lower()
    elif spec.clusterIP == "None":
        _add_headless(records, name, slices, zone, is_unready_welcome=spec.publishNotReadyAddresses)
    elif spec.clusterIP:
        records.addresses[name] = [spec.clusterIP]
        records.pointers.setdefault(reverse_name(spec.clusterIP), []).append(name)
        for port in spec.ports:
            _add_port(records, name, port.name, port.protocol, port.port, name, zone)


def _add_headless(records: Records, name: str, slices: Sequence[Slice], zone: str, *, is_unready_welcome: bool) -> None:
    for one in slices:
        for endpoint in one.endpoints or ():
            if endpoint.conditions.ready is False and not is_unready_welcome:
                continue
            for address in endpoint.addresses:
                label = endpoint.hostname or address.replace(".", "-").replace(":", "-")
                target = f"{label}.{name}"
                records.note(target, zone)
                _append(records.addresses, name, address)
                _append(records.addresses, target, address)
                if endpoint.hostname:
                    _append(records.pointers, reverse_name(address), target)
                for port in one.ports or ():
                    _add_port(records, name, port.name or "", port.protocol or "TCP", port.port or 0, target, zone)


def _add_port(records: Records, service: str, port_name: str, protocol: str, port: int, target: str, zone: str) -> None:
    if not port_name:
        return
    owner = f"_{port_name}._{protocol.lower()}.{service}"
    records.note(owner, zone)
    _append(records.services, owner, (port, target))


def _append(table: dict[str, list[T]], name: str, value: T) -> None:
    values = table.setdefault(name, [])
    if value not in values:
        values.append(value)


def reverse_name(address: str) -> str:
    """Return the name under in-addr.arpa or ip6.arpa that stands for `address`. Raises ValueError for what is no address."""
    return ipaddress.ip_address(address).reverse_pointer


def pod_address(name: str, zone: str, namespaces: Mapping[str, object] | set[str]) -> str:
    """Return the address in a name such as `10-244-0-7.<namespace>.pod.<zone>`, "" when it is none."""
    suffix = f".pod.{zone}"
    if not name.endswith(suffix):
        return ""
    label, _, namespace = name.removesuffix(suffix).partition(".")
    if namespace not in namespaces:
        return ""
    try:
        return str(ipaddress.IPv4Address(label.replace("-", ".")))
    except ValueError:
        return ""
