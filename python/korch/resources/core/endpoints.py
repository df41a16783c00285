"""Endpoints: the addresses behind a Service in one object; the older form of EndpointSlice."""

from __future__ import annotations

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


RESOURCE = Resource(
    group="",
    version="v1",
    kind="Endpoints",
    plural="endpoints",
    singular="endpoints",
    schema="io.k8s.api.core.v1.Endpoints",
    short_names=("ep",),
    strategy=Strategy(default=default, allows_create_on_update=True),
    columns=(NAME, cell("Endpoints", _addresses, description="Ready addresses with their ports."), AGE),
)
