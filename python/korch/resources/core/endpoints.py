"""Endpoints: the addresses behind a Service in one object; the older form of EndpointSlice."""

from __future__ import annotations

from collections.abc import Sequence

from korch.api.errors import Cause, invalid, required
from korch.api.names import is_dns_label
from korch.api.validation import check_endpoint_ip, check_enum, check_port, is_api_service
from korch.resources.columns import AGE, NAME, NONE, cell
from korch.resources.podspec.defaults import fill
from korch.resources.resource import Object, Resource, Strategy

_SHOWN_MAX = 3


def _addresses(endpoints: Object) -> str:
    shown: list[str] = []
    for subset in endpoints.get("subsets") or ():
        ready = [address.get("ip", "") for address in subset.get("addresses") or ()]
        ports = subset.get("ports") or ()
        if not ports:
            shown += ready
        for port in ports:
            shown += [f"[{ip}]:{port.get('port')}" if ":" in ip else f"{ip}:{port.get('port')}" for ip in ready]
    if not shown:
        return NONE
    more = len(shown) - _SHOWN_MAX
    return ",".join(shown[:_SHOWN_MAX]) + (f" + {more} more..." if more > 0 else "")


def default(endpoints: Object) -> None:
    """Fill in Endpoints, in place."""
    for subset in endpoints.get("subsets") or ():
        for port in subset.get("ports") or ():
            fill(port, "protocol", "TCP")


def validate(endpoints: Object) -> list[Cause]:
    """Return what is wrong with Endpoints. Mirrors ValidateEndpoints."""
    causes: list[Cause] = []
    is_own = is_api_service(endpoints)
    for position, subset in enumerate(endpoints.get("subsets") or ()):
        path = f"subsets[{position}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            causes.append(required(path, "must specify `addresses` or `notReadyAddresses`"))
        for field in ("addresses", "notReadyAddresses"):
            for index, address in enumerate(subset.get(field) or ()):
                check_endpoint_ip(causes, address.get("ip") or "", f"{path}.{field}[{index}].ip", allows_loopback=is_own)
        _check_ports(causes, subset.get("ports") or (), f"{path}.ports")
    return causes


def _check_ports(causes: list[Cause], ports: Sequence[Object], path: str) -> None:
    for position, port in enumerate(ports):
        where = f"{path}[{position}]"
        name = port.get("name")
        if not name and len(ports) > 1:
            causes.append(required(f"{where}.name"))
        elif name:
            causes += [invalid(f"{where}.name", name, why) for why in is_dns_label(name)]
        check_port(causes, port.get("port"), f"{where}.port")
        check_enum(causes, port.get("protocol"), f"{where}.protocol", ("SCTP", "TCP", "UDP"))


RESOURCE = Resource(
    group="",
    version="v1",
    kind="Endpoints",
    plural="endpoints",
    singular="endpoints",
    schema="io.k8s.api.core.v1.Endpoints",
    warning="v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    short_names=("ep",),
    strategy=Strategy(default=default, validate=validate, allows_create_on_update=True),
    columns=(NAME, cell("Endpoints", _addresses, description="Ready addresses with their ports."), AGE),
)
