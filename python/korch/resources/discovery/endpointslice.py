"""EndpointSlice: a part of the addresses behind a Service."""

from __future__ import annotations

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


RESOURCE = Resource(
    group="discovery.k8s.io",
    version="v1",
    kind="EndpointSlice",
    plural="endpointslices",
    singular="endpointslice",
    schema="io.k8s.api.discovery.v1.EndpointSlice",
    strategy=Strategy(default=default),
    columns=(
        NAME,
        text("AddressType", "addressType", description="IPv4, IPv6 or FQDN."),
        cell("Ports", _ports, description="Ports of every endpoint."),
        cell("Endpoints", _endpoints, description="Addresses."),
        AGE,
    ),
)
