"""Which pods stand behind a Service, in which state, and on which port.

Pure functions over plain dicts, shared by the EndpointSlice and the Endpoints controller.
Mirrors k8s.io/endpointslice/util and pkg/api/v1/pod.FindPort.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from korch.api.meta import at, is_deleting, labels_of, name_of, namespace_of, uid_of
from korch.api.pods import is_sidecar, is_terminal

Object = dict[str, Any]

HEADLESS_LABEL = "service.kubernetes.io/headless"


def selects(service: Object, labels: dict[str, str]) -> bool:
    """Whether the Service's selector matches; a Service without one selects nothing."""
    selector = at(service, "spec", "selector")
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())


def is_managed(service: Object) -> bool:
    """Whether endpoints of this Service are made by controllers: it has a selector and is no alias."""
    return bool(at(service, "spec", "selector")) and at(service, "spec", "type") != "ExternalName"


def is_headless(service: Object) -> bool:
    return at(service, "spec", "clusterIP") == "None"


def families(service: Object) -> list[str]:
    """Return `IPv4` and or `IPv6`, the address families the Service asks for; IPv4 when it does not say."""
    return at(service, "spec", "ipFamilies") or ["IPv4"]


def address_of(pod: Object, family: str) -> str:
    """Return the pod's first address of the family, empty when it has none."""
    found = [one.get("ip", "") for one in at(pod, "status", "podIPs") or ()]
    if not found and (single := at(pod, "status", "podIP")):
        found = [single]
    return next((ip for ip in found if (":" in ip) == (family == "IPv6") and ip), "")


def members(service: Object, pods: Sequence[Object], *, with_terminating: bool) -> list[Object]:
    """Return the pods of the Service's namespace that belong to its endpoints, by name: selected, with an address, not over."""
    chosen = [
        pod
        for pod in pods
        if selects(service, labels_of(pod))
        and not is_terminal(pod)
        and (at(pod, "status", "podIP") or at(pod, "status", "podIPs"))
        and (with_terminating or not is_deleting(pod))
    ]
    return sorted(chosen, key=name_of)


def target_port(pod: Object, port: Object) -> int | None:
    """Return the number of a service port's target in this pod; None when no container has a port of that name and protocol."""
    target = port.get("targetPort")
    if target is None or target in (0, ""):
        return port["port"]
    if isinstance(target, int):
        return target
    sidecars = [one for one in at(pod, "spec", "initContainers") or () if is_sidecar(one)]
    for container in [*(at(pod, "spec", "containers") or ()), *sidecars]:
        for candidate in container.get("ports") or ():
            if candidate.get("name") == target and candidate.get("protocol", "TCP") == port.get("protocol", "TCP"):
                return candidate["containerPort"]
    return None


def ports_of(service: Object, pod: Object, *, with_app_protocol: bool = True) -> list[Object]:
    """Return the endpoint ports of one pod, in the Service's order; ports it does not have are left out."""
    found: list[Object] = []
    for port in at(service, "spec", "ports") or ():
        number = target_port(pod, port)
        if number is None:
            continue
        one: Object = {"name": port.get("name", ""), "port": number, "protocol": port.get("protocol", "TCP")}
        if with_app_protocol and port.get("appProtocol"):
            one["appProtocol"] = port["appProtocol"]
        found.append(one)
    return found


def hostname_in(service: Object, pod: Object) -> str:
    """Return the pod's own DNS name under this Service, empty when it has none: spec.hostname with spec.subdomain naming the Service."""
    if at(pod, "spec", "subdomain") == name_of(service) and namespace_of(pod) == namespace_of(service):
        return at(pod, "spec", "hostname") or ""
    return ""


def pod_reference(pod: Object) -> Object:
    return {"kind": "Pod", "namespace": namespace_of(pod), "name": name_of(pod), "uid": uid_of(pod)}
