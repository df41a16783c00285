"""Service: one stable address for the pods that a selector finds."""

from __future__ import annotations

from korch.api.meta import at
from korch.api.names import is_dns_1035_label
from korch.resources.columns import AGE, NAME, NONE, cell, format_labels, text
from korch.resources.podspec.defaults import fill
from korch.resources.resource import Context, Object, Resource, Strategy
from korch.resources.service_rules import keep_allocated, validate_service, validate_service_update
from korch.resources.subresources import STATUS, proxy


def _cluster_ip(service: Object) -> str:
    addresses = at(service, "spec", "clusterIPs") or ()
    return (addresses[0] if addresses else at(service, "spec", "clusterIP")) or NONE


def _external_ip(service: Object) -> str:
    external = at(service, "spec", "externalIPs") or []
    kind = at(service, "spec", "type")
    if kind == "ExternalName":
        return at(service, "spec", "externalName") or ""
    if kind == "LoadBalancer":
        ingress = at(service, "status", "loadBalancer", "ingress") or ()
        balancers = sorted({one.get("ip") or one.get("hostname") or "" for one in ingress} - {""})
        return ",".join([*balancers, *external]) or "<pending>"
    return ",".join(external) or NONE


def _ports(service: Object) -> str:
    def render(port: Object) -> str:
        node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
        return f"{port.get('port')}{node_port}/{port.get('protocol') or 'TCP'}"

    return ",".join(render(port) for port in at(service, "spec", "ports") or ()) or NONE


_AFFINITY_TIMEOUT_S = 10800


def default(service: Object) -> None:
    """Fill in a Service, in place; addresses and node ports come from the allocators. Mirrors SetDefaults_Service."""
    spec = fill(service, "spec", {})
    if fill(spec, "sessionAffinity", "None") == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP":
        client_ip = fill(fill(spec, "sessionAffinityConfig", {}), "clientIP", {})
        fill(client_ip, "timeoutSeconds", _AFFINITY_TIMEOUT_S)
    kind = fill(spec, "type", "ClusterIP")
    for port in spec.get("ports") or ():
        fill(port, "protocol", "TCP")
        if not port.get("targetPort"):
            port["targetPort"] = port.get("port")
    if kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and spec.get("externalIPs")):
        fill(spec, "externalTrafficPolicy", "Cluster")
    if kind != "ExternalName":
        fill(spec, "internalTrafficPolicy", "Cluster")
    if kind == "LoadBalancer":
        fill(spec, "allocateLoadBalancerNodePorts", True)


def prepare_create(service: Object, _context: Context) -> None:
    """Start with an empty load balancer status."""
    service["status"] = {"loadBalancer": {}}


def prepare_update(new: Object, old: Object, _context: Context) -> None:
    """Keep what was allocated to the service."""
    keep_allocated(new, old)


RESOURCE = Resource(
    group="",
    version="v1",
    kind="Service",
    plural="services",
    singular="service",
    schema="io.k8s.api.core.v1.Service",
    short_names=("svc",),
    categories=("all",),
    strategy=Strategy(
        default=default,
        prepare_create=prepare_create,
        prepare_update=prepare_update,
        validate=validate_service,
        validate_update=validate_service_update,
        validate_name=is_dns_1035_label,
        has_status=True,
        keeps_status_on_create=True,
    ),
    subresources=(proxy("ServiceProxyOptions"), STATUS),
    selectable_fields={
        "spec.clusterIP": lambda service: at(service, "spec", "clusterIP") or "",
        "spec.type": lambda service: at(service, "spec", "type") or "",
    },
    columns=(
        NAME,
        text("Type", "spec", "type", description="How the service is reached."),
        cell("Cluster-IP", _cluster_ip, description="Virtual address inside the cluster."),
        cell("External-IP", _external_ip, description="Addresses outside the cluster."),
        cell("Port(s)", _ports, description="Ports, with the node port behind the colon."),
        AGE,
        cell("Selector", lambda service: format_labels(at(service, "spec", "selector")), description="Which pods it finds.", priority=1),
    ),
)
