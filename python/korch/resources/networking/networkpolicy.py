"""NetworkPolicy: who may talk to the pods that it selects, and to whom they may talk."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from korch.api.errors import Cause, forbidden_field, invalid, not_supported, required
from korch.api.meta import at
from korch.api.names import is_port_name, is_port_number
from korch.api.validation import check_label_selector
from korch.resources.columns import AGE, NAME, cell, format_selector
from korch.resources.podspec.defaults import fill
from korch.resources.resource import Object, Resource, Strategy

_PROTOCOLS = ("SCTP", "TCP", "UDP")
_TYPES = ("Egress", "Ingress")


def default(obj: Object) -> None:
    """Fill in a NetworkPolicy, in place. Mirrors SetDefaults_NetworkPolicy."""
    spec = fill(obj, "spec", {})
    fill(spec, "podSelector", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for direction in ("ingress", "egress"):
        for rule in spec.get(direction) or ():
            for port in rule.get("ports") or ():
                fill(port, "protocol", "TCP")


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a NetworkPolicy. Mirrors ValidateNetworkPolicySpec."""
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    check_label_selector(causes, spec.get("podSelector"), "spec.podSelector")
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for position, rule in enumerate(spec.get(direction) or ()):
            path = f"spec.{direction}[{position}]"
            _check_ports(causes, rule.get("ports") or (), f"{path}.ports")
            for index, peer in enumerate(rule.get(peers) or ()):
                _check_peer(causes, peer, f"{path}.{peers}[{index}]")
    types = spec.get("policyTypes") or ()
    if len(types) > len(_TYPES):
        causes.append(invalid("spec.policyTypes", list(types), "may not specify more than two policyTypes"))
    else:
        causes += [not_supported(f"spec.policyTypes[{position}]", one, _TYPES) for position, one in enumerate(types) if one not in _TYPES]
    return causes


def _check_ports(causes: list[Cause], ports: Sequence[Object], path: str) -> None:
    for position, port in enumerate(ports):
        where, value, end = f"{path}[{position}]", port.get("port"), port.get("endPort")
        if port.get("protocol") not in _PROTOCOLS:
            causes.append(not_supported(f"{where}.protocol", port.get("protocol") or "", _PROTOCOLS))
        if isinstance(value, int):
            causes += [invalid(f"{where}.port", value, why) for why in is_port_number(value)]
            if end is not None:
                if end < value:
                    causes.append(invalid(f"{where}.endPort", end, "must be greater than or equal to `port`"))
                causes += [invalid(f"{where}.endPort", end, why) for why in is_port_number(end)]
        else:
            if end is not None:
                why = "may not be specified when `port` is non-numeric" if value else "may not be specified when `port` is not specified"
                causes.append(invalid(f"{where}.endPort", end, why))
            if value is not None:
                causes += [invalid(f"{where}.port", value, why) for why in is_port_name(value)]


def _check_peer(causes: list[Cause], peer: Object, path: str) -> None:
    selectors = [field for field in ("podSelector", "namespaceSelector") if peer.get(field) is not None]
    for field in selectors:
        check_label_selector(causes, peer[field], f"{path}.{field}")
    block = peer.get("ipBlock")
    if block is not None:
        if selectors:
            causes.append(forbidden_field(path, "may not specify both ipBlock and another peer"))
        _check_block(causes, block, f"{path}.ipBlock")
    elif not selectors:
        causes.append(required(path, "must specify a peer"))


def _check_block(causes: list[Cause], block: Object, path: str) -> None:
    text = block.get("cidr") or ""
    if not text:
        causes.append(required(f"{path}.cidr"))
        return
    outer = _network(text)
    if outer is None:
        causes.append(invalid(f"{path}.cidr", text, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"))
        return
    for position, one in enumerate(block.get("except") or ()):
        where, inner = f"{path}.except[{position}]", _network(one)
        if inner is None:
            causes.append(invalid(where, one, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"))
        elif inner.version != outer.version or inner == outer or inner.network_address not in outer or inner.prefixlen < outer.prefixlen:
            causes.append(invalid(where, one, "must be a strict subset of `cidr`"))


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None


RESOURCE = Resource(
    group="networking.k8s.io",
    version="v1",
    kind="NetworkPolicy",
    plural="networkpolicies",
    singular="networkpolicy",
    schema="io.k8s.api.networking.v1.NetworkPolicy",
    short_names=("netpol",),
    strategy=Strategy(default=default, validate=validate, has_generation=True),
    columns=(
        NAME,
        cell("Pod-Selector", lambda obj: format_selector(at(obj, "spec", "podSelector")), description="The pods that it guards."),
        AGE,
    ),
)
