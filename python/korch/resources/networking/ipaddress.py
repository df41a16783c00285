"""IPAddress: an address of the cluster's service range that is in use, and by whom. Its name is the address."""

from __future__ import annotations

import ipaddress

from korch.api.errors import Cause, invalid, required
from korch.api.meta import at
from korch.api.names import is_dns_subdomain, is_path_segment
from korch.resources.columns import AGE, NAME, NONE, cell
from korch.resources.resource import Object, Resource, Strategy


def check_name(name: str) -> list[str]:
    """Return why `name` is not an address in its one written form."""
    try:
        shown = str(ipaddress.ip_address(name))
    except ValueError:
        return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
    return [] if shown == name else [f'must be in canonical form ("{shown}")']


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with an IPAddress. Mirrors ValidateIPAddress."""
    reference = at(obj, "spec", "parentRef")
    if reference is None:
        return [required("spec.parentRef")]
    causes: list[Cause] = []
    group = reference.get("group") or ""
    causes += [invalid("spec.parentRef.group", group, why) for why in is_dns_subdomain(group)] if group else []
    for field in ("resource", "name"):
        value = reference.get(field) or ""
        if not value:
            causes.append(required(f"spec.parentRef.{field}"))
        causes += [invalid(f"spec.parentRef.{field}", value, why) for why in is_path_segment(value)] if value else []
    namespace = reference.get("namespace") or ""
    causes += [invalid("spec.parentRef.namespace", namespace, why) for why in is_path_segment(namespace)] if namespace else []
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update gives the address to somebody else."""
    if at(new, "spec", "parentRef") != at(old, "spec", "parentRef"):
        return [invalid("spec.parentRef", at(new, "spec", "parentRef"), "field is immutable")]
    return []


def _parent(obj: Object) -> str:
    reference = at(obj, "spec", "parentRef")
    if not reference:
        return NONE
    group = f".{reference['group']}" if reference.get("group") else ""
    namespace = f"/{reference['namespace']}" if reference.get("namespace") else ""
    return f"{reference.get('resource') or ''}{group}".lower() + f"{namespace}/{reference.get('name') or ''}"


RESOURCE = Resource(
    group="networking.k8s.io",
    version="v1",
    kind="IPAddress",
    plural="ipaddresses",
    singular="ipaddress",
    schema="io.k8s.api.networking.v1.IPAddress",
    short_names=("ip",),
    namespaced=False,
    strategy=Strategy(validate=validate, validate_update=validate_update, validate_name=check_name),
    selectable_fields={},
    columns=(NAME, cell("ParentRef", _parent, description="Who uses it."), AGE),
)
