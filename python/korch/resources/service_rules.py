"""Rules of a Service: ports, type, addresses, traffic policies; and what an update keeps when it does not say otherwise.

Cluster addresses and node ports are handed out once and then belong to the Service, so an update that leaves them out gets the old
ones back, and one that changes the type gives up what the new type has no use for. Mirrors ValidateService and ValidateServiceUpdate
of kubernetes' pkg/apis/core/validation, and patchAllocatedValues and dropTypeDependentFields of its service strategy.
"""

from __future__ import annotations

from collections.abc import Sequence

from korch.api import names
from korch.api.errors import Cause, duplicate, forbidden_field, invalid, required
from korch.api.validation import check_enum, check_labels, check_port, check_port_or_name
from korch.resources.resource import Object

TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_WITH_CLUSTER_IP = frozenset({"ClusterIP", "NodePort", "LoadBalancer"})
_WITH_NODE_PORTS = frozenset({"NodePort", "LoadBalancer"})
_CLUSTER_IP_FIELDS = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")
_AFFINITY_TIMEOUT_S_MAX = 86400
_KUBELET_PORT = 10250


def validate_service(service: Object) -> list[Cause]:
    """Return what is wrong with a Service whose defaults are filled in."""
    causes: list[Cause] = []
    spec = service.get("spec") or {}
    kind = spec.get("type") or ""
    check_enum(causes, kind, "spec.type", TYPES)
    _check_type(causes, spec, kind)
    _check_ports(causes, spec.get("ports") or (), kind)
    check_labels(causes, spec.get("selector"), "spec.selector")
    _check_affinity(causes, spec)
    _check_addresses(causes, spec, kind)
    _check_traffic_policies(causes, spec, kind)
    return causes


def validate_service_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update changes the cluster address."""
    new_spec, old_spec = new.get("spec") or {}, old.get("spec") or {}
    if not {new_spec.get("type"), old_spec.get("type")} <= _WITH_CLUSTER_IP:
        return []
    had, has = old_spec.get("clusterIPs") or [old_spec.get("clusterIP")], new_spec.get("clusterIPs") or [new_spec.get("clusterIP")]
    if had[0] and had[0] != has[0]:
        return [invalid("spec.clusterIPs[0]", has, "may not change once set")]
    return []


def keep_allocated(new: Object, old: Object) -> None:
    """Carry over what was allocated and drop what the new type has no use for, in `new`, in place."""
    new_spec, old_spec = new.setdefault("spec", {}), old.get("spec") or {}
    new_type, old_type = new_spec.get("type"), old_spec.get("type")
    if {new_type, old_type} <= _WITH_CLUSTER_IP:
        _follow_change(new_spec, old_spec)
        if not new_spec.get("clusterIP") and not new_spec.get("clusterIPs"):
            for field in ("clusterIP", "clusterIPs"):
                _copy(new_spec, old_spec, field)
        for field in ("ipFamilies", "ipFamilyPolicy"):
            if not new_spec.get(field):
                _copy(new_spec, old_spec, field)
        _pair_addresses(new_spec)
    elif new_type == "ExternalName":
        _drop_unchanged(new_spec, old_spec, (*_CLUSTER_IP_FIELDS, "internalTrafficPolicy"))
    if {new_type, old_type} <= _WITH_NODE_PORTS:
        _copy_node_ports(new_spec, old_spec)
    elif old_type in _WITH_NODE_PORTS:
        _drop_node_ports(new_spec, old_spec)
        if not (new_type == "ClusterIP" and new_spec.get("externalIPs")):
            _drop_unchanged(new_spec, old_spec, ("externalTrafficPolicy",))
    if not _needs_health_check(new_spec):
        _drop_unchanged(new_spec, old_spec, ("healthCheckNodePort",))
    elif _needs_health_check(old_spec) and not new_spec.get("healthCheckNodePort"):
        _copy(new_spec, old_spec, "healthCheckNodePort")
    if new_type != "LoadBalancer" and old_type == "LoadBalancer":
        _drop_unchanged(new_spec, old_spec, ("allocateLoadBalancerNodePorts", "loadBalancerClass"))


def _needs_health_check(spec: Object) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _follow_change(new_spec: Object, old_spec: Object) -> None:
    """An old client changes or clears clusterIP and sends clusterIPs back as it was: the list follows. Mirrors NormalizeClusterIPs."""
    first, addresses = new_spec.get("clusterIP"), new_spec.get("clusterIPs")
    if first == old_spec.get("clusterIP") or addresses != old_spec.get("clusterIPs"):
        return
    if not first:
        new_spec.pop("clusterIPs", None)
    elif addresses:
        new_spec["clusterIPs"] = [first, *addresses[1:]]


def _pair_addresses(spec: Object) -> None:
    """Keep clusterIP and the first of clusterIPs the same when only one of them was written."""
    first, all_addresses = spec.get("clusterIP"), spec.get("clusterIPs")
    if first and not all_addresses:
        spec["clusterIPs"] = [first]
    elif all_addresses and not first:
        spec["clusterIP"] = all_addresses[0]


def _copy(new_spec: Object, old_spec: Object, field: str) -> None:
    if old_spec.get(field):
        new_spec[field] = old_spec[field]


def _drop_unchanged(new_spec: Object, old_spec: Object, fields: Sequence[str]) -> None:
    for field in fields:
        if field in new_spec and new_spec[field] == old_spec.get(field):
            del new_spec[field]


def _port_key(port: Object) -> tuple[str, int]:
    return (port.get("protocol") or "TCP", port.get("port") or 0)


def _copy_node_ports(new_spec: Object, old_spec: Object) -> None:
    had = {_port_key(port): port["nodePort"] for port in old_spec.get("ports") or () if port.get("nodePort")}
    taken = {port["nodePort"] for port in new_spec.get("ports") or () if port.get("nodePort")}
    for port in new_spec.get("ports") or ():
        old_port = had.get(_port_key(port))
        if not port.get("nodePort") and old_port and old_port not in taken:
            port["nodePort"] = old_port


def _drop_node_ports(new_spec: Object, old_spec: Object) -> None:
    had = {port.get("nodePort") for port in old_spec.get("ports") or ()}
    for port in new_spec.get("ports") or ():
        if port.get("nodePort") in had:
            port.pop("nodePort", None)


def _check_type(causes: list[Cause], spec: Object, kind: str) -> None:
    is_headless = spec.get("clusterIP") == "None"
    if not spec.get("ports") and not is_headless and kind != "ExternalName":
        causes.append(required("spec.ports"))
    if kind == "LoadBalancer":
        for position, port in enumerate(spec.get("ports") or ()):
            if port.get("port") == _KUBELET_PORT:
                detail = f"may not expose port {_KUBELET_PORT} externally since it is used by kubelet"
                causes.append(invalid(f"spec.ports[{position}].port", _KUBELET_PORT, detail))
        if is_headless:
            causes.append(invalid("spec.clusterIPs[0]", "None", "may not be set to 'None' for LoadBalancer services"))
    elif kind == "NodePort":
        if is_headless:
            causes.append(invalid("spec.clusterIPs[0]", "None", "may not be set to 'None' for NodePort services"))
    elif kind == "ExternalName":
        if spec.get("clusterIP") or spec.get("clusterIPs"):
            causes.append(forbidden_field("spec.clusterIPs", "may not be set for ExternalName services"))
        external_name = spec.get("externalName") or ""
        if not external_name:
            causes.append(required("spec.externalName"))
        else:
            bare = external_name.removesuffix(".")
            causes += [invalid("spec.externalName", bare, why) for why in names.is_dns_subdomain(bare)]


def _check_ports(causes: list[Cause], ports: Sequence[Object], kind: str) -> None:
    seen_names: set[str] = set()
    seen_ports: set[tuple[str, int]] = set()
    seen_node_ports: set[tuple[str, int]] = set()
    for position, port in enumerate(ports):
        path = f"spec.ports[{position}]"
        _check_port_name(causes, port.get("name"), f"{path}.name", seen_names, is_required=len(ports) > 1)
        check_port(causes, port.get("port"), f"{path}.port")
        check_enum(causes, port.get("protocol"), f"{path}.protocol", ("SCTP", "TCP", "UDP"))
        check_port_or_name(causes, port.get("targetPort"), f"{path}.targetPort")
        if port.get("appProtocol"):
            causes += [invalid(f"{path}.appProtocol", port["appProtocol"], why) for why in names.is_qualified_name(port["appProtocol"])]
        if _port_key(port) in seen_ports:
            causes.append(duplicate(path, {"protocol": port.get("protocol"), "port": port.get("port")}))
        seen_ports.add(_port_key(port))
        node_port = port.get("nodePort")
        if not node_port:
            continue
        if kind not in _WITH_NODE_PORTS:
            causes.append(forbidden_field(f"{path}.nodePort", f"may not be used when `type` is '{kind}'"))
        key = (port.get("protocol") or "TCP", node_port)
        if key in seen_node_ports:
            causes.append(duplicate(f"{path}.nodePort", node_port))
        seen_node_ports.add(key)


def _check_port_name(causes: list[Cause], name: str | None, path: str, seen: set[str], *, is_required: bool) -> None:
    if not name:
        if is_required:
            causes.append(required(path))
        return
    causes += [invalid(path, name, why) for why in names.is_dns_label(name)]
    if name in seen:
        causes.append(duplicate(path, name))
    seen.add(name)


def _check_affinity(causes: list[Cause], spec: Object) -> None:
    check_enum(causes, spec.get("sessionAffinity"), "spec.sessionAffinity", ("ClientIP", "None"))
    if spec.get("sessionAffinity") == "ClientIP":
        seconds = ((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds")
        path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
        if seconds is None:
            causes.append(required(path, "is required when `sessionAffinity` is ClientIP"))
        elif not 0 < seconds <= _AFFINITY_TIMEOUT_S_MAX:
            causes.append(invalid(path, seconds, f"must be greater than 0 and less than {_AFFINITY_TIMEOUT_S_MAX}"))


def _check_addresses(causes: list[Cause], spec: Object, kind: str) -> None:
    first, addresses = spec.get("clusterIP"), spec.get("clusterIPs") or ()
    if kind in _WITH_CLUSTER_IP:
        for position, address in enumerate(addresses or ([first] if first else [])):
            path = f"spec.clusterIPs[{position}]"
            if address == "None":
                if position:
                    causes.append(invalid(path, address, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"))
            else:
                causes += [invalid(path, address, why) for why in names.is_ip(address)]
        if first and addresses and first != addresses[0]:
            causes.append(invalid("spec.clusterIPs", list(addresses), "first value must match `clusterIP`"))
        if addresses and not first:
            causes.append(invalid("spec.clusterIPs", list(addresses), "must be empty when `clusterIP` is not specified"))
    for position, address in enumerate(spec.get("externalIPs") or ()):
        causes += [invalid(f"spec.externalIPs[{position}]", address, why) for why in names.is_ip(address)]


def _check_traffic_policies(causes: list[Cause], spec: Object, kind: str) -> None:
    external, internal = spec.get("externalTrafficPolicy"), spec.get("internalTrafficPolicy")
    is_external = kind in _WITH_NODE_PORTS or (kind == "ClusterIP" and bool(spec.get("externalIPs")))
    path = "spec.externalTrafficPolicy"
    if not is_external:
        if external:
            causes.append(invalid(path, external, "may only be set for externally-accessible services"))
    else:
        check_enum(causes, external, path, ("Cluster", "Local"))
    check_enum(causes, internal, "spec.internalTrafficPolicy", ("Cluster", "Local"), is_required=kind in _WITH_CLUSTER_IP)
    if spec.get("healthCheckNodePort") and not _needs_health_check(spec):
        detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        causes.append(invalid("spec.healthCheckNodePort", spec["healthCheckNodePort"], detail))
