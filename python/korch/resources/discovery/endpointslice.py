"""EndpointSlice: a part of the addresses behind a Service."""

from __future__ import annotations

from korch.api.errors import Cause, duplicate, invalid, required
from korch.api.names import is_dns_label, is_dns_subdomain, is_ip
from korch.api.validation import check_endpoint_ip, check_enum, check_immutable, check_port, is_api_service, too_many
from korch.resources.columns import AGE, NAME, UNSET, cell, text
from korch.resources.podspec.defaults import fill
from korch.resources.resource import Object, Resource, Strategy

_SHOWN_MAX = 3


def _shorten(values: list[str]) -> str:
    more = len(values) - _SHOWN_MAX
    return ",".join(values[:_SHOWN_MAX]) + (f" + {more} more..." if more > 0 else "") or UNSET


def _ports(obj: Object) -> str:
    ports = obj.get("ports") or ()
    return _shorten([str(port["port"]) if port.get("port") is not None else port.get("name") or "*" for port in ports])


def _endpoints(obj: Object) -> str:
    return _shorten([address for endpoint in obj.get("endpoints") or () for address in endpoint.get("addresses") or ()])


def default(obj: Object) -> None:
    """Fill in an EndpointSlice, in place."""
    for port in obj.get("ports") or ():
        if port.get("name") is None:
            port["name"] = ""
        fill(port, "protocol", "TCP")


_ENDPOINTS_MAX, _ADDRESSES_MAX, _PORTS_MAX = 1000, 100, 20000
_ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with an EndpointSlice. Mirrors ValidateEndpointSlice."""
    causes: list[Cause] = []
    address_type = obj.get("addressType") or ""
    check_enum(causes, address_type, "addressType", _ADDRESS_TYPES)
    endpoints, ports = obj.get("endpoints") or (), obj.get("ports") or ()
    if len(endpoints) > _ENDPOINTS_MAX:
        causes.append(too_many("endpoints", len(endpoints), _ENDPOINTS_MAX))
    if len(ports) > _PORTS_MAX:
        causes.append(too_many("ports", len(ports), _PORTS_MAX))
    is_own = is_api_service(obj)
    for position, endpoint in enumerate(endpoints):
        _check_endpoint(causes, endpoint, address_type, f"endpoints[{position}]", allows_loopback=is_own)
    seen: set[str] = set()
    for position, port in enumerate(ports):
        path, name = f"ports[{position}]", port.get("name") or ""
        if name in seen:
            causes.append(duplicate(f"{path}.name", name))
        seen.add(name)
        if name:
            causes += [invalid(f"{path}.name", name, why) for why in is_dns_label(name)]
        if port.get("port") is not None:
            check_port(causes, port["port"], f"{path}.port")
        check_enum(causes, port.get("protocol"), f"{path}.protocol", ("SCTP", "TCP", "UDP"))
    return causes


def _check_endpoint(causes: list[Cause], endpoint: Object, address_type: str, path: str, *, allows_loopback: bool) -> None:
    addresses = endpoint.get("addresses") or ()
    if not addresses:
        causes.append(required(f"{path}.addresses", "must contain at least 1 address"))
    elif len(addresses) > _ADDRESSES_MAX:
        causes.append(too_many(f"{path}.addresses", len(addresses), _ADDRESSES_MAX))
    for position, address in enumerate(addresses):
        where = f"{path}.addresses[{position}]"
        if address_type == "FQDN":
            causes += [invalid(where, address, why) for why in is_dns_subdomain(address)]
        elif address_type in ("IPv4", "IPv6"):
            is_of_type = not is_ip(address) and (":" in address) == (address_type == "IPv6")
            if is_of_type:
                check_endpoint_ip(causes, address, where, allows_loopback=allows_loopback)
            else:
                causes.append(invalid(where, address, f"must be a valid {address_type} address"))
    if endpoint.get("hostname"):
        causes += [invalid(f"{path}.hostname", endpoint["hostname"], why) for why in is_dns_label(endpoint["hostname"])]
    if endpoint.get("nodeName"):
        causes += [invalid(f"{path}.nodeName", endpoint["nodeName"], why) for why in is_dns_subdomain(endpoint["nodeName"])]


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update changes the type of the addresses."""
    causes: list[Cause] = []
    check_immutable(causes, new.get("addressType"), old.get("addressType"), "addressType")
    return causes


RESOURCE = Resource(
    group="discovery.k8s.io",
    version="v1",
    kind="EndpointSlice",
    plural="endpointslices",
    singular="endpointslice",
    schema="io.k8s.api.discovery.v1.EndpointSlice",
    strategy=Strategy(default=default, validate=validate, validate_update=validate_update),
    columns=(
        NAME,
        text("AddressType", "addressType", description="IPv4, IPv6 or FQDN."),
        cell("Ports", _ports, description="Ports of every endpoint."),
        cell("Endpoints", _endpoints, description="Addresses."),
        AGE,
    ),
)
