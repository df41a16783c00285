"""ServiceCIDR: a range of addresses for Services."""

from __future__ import annotations

import ipaddress

from korch.api.errors import Cause, invalid, required
from korch.api.meta import at
from korch.resources.columns import AGE, NAME, cell
from korch.resources.resource import Object, Resource, Strategy
from korch.resources.subresources import STATUS


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a ServiceCIDR. Mirrors ValidateServiceCIDR."""
    causes: list[Cause] = []
    ranges = at(obj, "spec", "cidrs") or []
    if not ranges:
        return [required("spec.cidrs", "at least one CIDR required")]
    if len(ranges) > 2:
        return [invalid("spec", {"cidrs": ranges}, "may only hold up to 2 values")]
    families: list[int] = []
    for position, text in enumerate(ranges):
        path = f"spec.cidrs[{position}]"
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            causes.append(invalid(path, text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"))
            continue
        families.append(network.version)
        if str(network) != text:
            causes.append(invalid(path, text, f'must be in canonical form ("{network}")'))
    if len(families) == 2 and families[0] == families[1]:
        causes.append(
            invalid("spec", {"cidrs": ranges}, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64")
        )
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update changes a range; a second family may be added."""
    before, after = at(old, "spec", "cidrs") or [], at(new, "spec", "cidrs") or []
    if after[: len(before)] != before:
        return [invalid("spec.cidrs", after, "field is immutable")]
    return []


RESOURCE = Resource(
    group="networking.k8s.io",
    version="v1",
    kind="ServiceCIDR",
    plural="servicecidrs",
    singular="servicecidr",
    schema="io.k8s.api.networking.v1.ServiceCIDR",
    namespaced=False,
    strategy=Strategy(validate=validate, validate_update=validate_update, has_status=True),
    subresources=(STATUS,),
    columns=(NAME, cell("CIDRs", lambda obj: ",".join(at(obj, "spec", "cidrs") or ()), description="The ranges."), AGE),
)
