"""Ingress: which requests from outside reach which Service."""

from __future__ import annotations

import re

from korch.api.errors import Cause, invalid, required
from korch.api.meta import annotations_of, at
from korch.api.names import is_dns_1035_label, is_dns_subdomain, is_ip, is_path_segment, is_port_name, is_port_number
from korch.api.validation import check_enum
from korch.resources.columns import AGE, NAME, NONE, cell
from korch.resources.resource import Object, Resource, Strategy
from korch.resources.subresources import STATUS

_CLASS_ANNOTATION = "kubernetes.io/ingress.class"
_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_WILDCARD = re.compile(r"\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_BAD_SEQUENCES = ("//", "/./", "/../", "%2f", "%2F")
_BAD_SUFFIXES = ("/..", "/.")
_SHOWN_MAX = 3


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with an Ingress. Mirrors ValidateIngressSpec."""
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    if not spec.get("rules") and spec.get("defaultBackend") is None:
        causes.append(invalid("spec", [], "either `defaultBackend` or `rules` must be specified"))
    if spec.get("defaultBackend") is not None:
        _check_backend(causes, spec["defaultBackend"], "spec.defaultBackend")
    for position, rule in enumerate(spec.get("rules") or ()):
        path, host = f"spec.rules[{position}]", rule.get("host") or ""
        if host:
            _check_host(causes, host, f"{path}.host")
        _check_paths(causes, rule.get("http"), f"{path}.http")
    for position, tls in enumerate(spec.get("tls") or ()):
        for index, host in enumerate(tls.get("hosts") or ()):
            _check_host(causes, host, f"spec.tls[{position}].hosts[{index}]")
        secret = tls.get("secretName") or ""
        causes += [invalid(f"spec.tls[{position}].secretName", secret, why) for why in is_dns_subdomain(secret)] if secret else []
    name = spec.get("ingressClassName")
    if name is not None:
        causes += [invalid("spec.ingressClassName", name, why) for why in is_dns_subdomain(name)]
        if _CLASS_ANNOTATION in annotations_of(obj) and "resourceVersion" not in obj["metadata"]:
            why = "can not be set when the class field is also set"
            causes.append(invalid(f"metadata.annotations.{_CLASS_ANNOTATION}", annotations_of(obj)[_CLASS_ANNOTATION], why))
    return causes


def _check_host(causes: list[Cause], host: str, path: str) -> None:
    if not is_ip(host):
        causes.append(invalid(path, host, "must be a DNS name, not an IP address"))
        return
    if "*" in host:
        if not _WILDCARD.fullmatch(host):
            why = (
                "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case "
                "alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for "
                r"validation is '\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            )
            causes.append(invalid(path, host, why))
        return
    causes += [invalid(path, host, why) for why in is_dns_subdomain(host)]


def _check_paths(causes: list[Cause], http: Object | None, path: str) -> None:
    if http is None:
        return
    if not http.get("paths"):
        causes.append(required(f"{path}.paths"))
    for position, one in enumerate(http.get("paths") or ()):
        where, text = f"{path}.paths[{position}]", one.get("path") or ""
        kind = one.get("pathType")
        if kind is None:
            causes.append(required(f"{where}.pathType", "pathType must be specified"))
        elif kind in ("Exact", "Prefix"):
            if not text.startswith("/"):
                causes.append(invalid(f"{where}.path", text, "must be an absolute path"))
            if text:
                for bad in _BAD_SEQUENCES:
                    if bad in text:
                        causes.append(invalid(f"{where}.path", text, f"must not contain '{bad}'"))
                for bad in _BAD_SUFFIXES:
                    if text.endswith(bad):
                        causes.append(invalid(f"{where}.path", text, f"cannot end with '{bad}'"))
        elif kind == "ImplementationSpecific":
            if text and not text.startswith("/"):
                causes.append(invalid(f"{where}.path", text, "must be an absolute path"))
        else:
            check_enum(causes, kind, f"{where}.pathType", _PATH_TYPES)
        _check_backend(causes, one.get("backend") or {}, f"{where}.backend")


def _check_backend(causes: list[Cause], backend: Object, path: str) -> None:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        causes.append(invalid(path, "", "cannot set both resource and service backends"))
    elif resource is not None:
        for field in ("kind", "name"):
            value = resource.get(field) or ""
            if not value:
                causes.append(required(f"{path}.resource.{field}"))
            causes += [invalid(f"{path}.resource.{field}", value, why) for why in is_path_segment(value)] if value else []
    elif service is not None:
        name, port = service.get("name") or "", service.get("port") or {}
        if not name:
            causes.append(required(f"{path}.service.name"))
        causes += [invalid(f"{path}.service.name", name, why) for why in is_dns_1035_label(name)] if name else []
        port_name, number = port.get("name") or "", port.get("number") or 0
        where = f"{path}.service.port"
        if port_name and number:
            causes.append(invalid(where, "", "cannot set both port name & port number"))
        elif port_name:
            causes += [invalid(f"{where}.name", port_name, why) for why in is_port_name(port_name)]
        elif number:
            causes += [invalid(f"{where}.number", number, why) for why in is_port_number(number)]
        else:
            causes.append(required(where, "port name or number is required"))
    else:
        causes.append(invalid(path, "", "resource or service backend is required"))


def validate_status_update(new: Object, _old: Object) -> list[Cause]:
    """Return what is wrong with the load balancer of a status."""
    causes: list[Cause] = []
    for position, one in enumerate(at(new, "status", "loadBalancer", "ingress") or ()):
        path, host = f"status.loadBalancer.ingress[{position}]", one.get("hostname") or ""
        if one.get("ip"):
            causes += [invalid(f"{path}.ip", one["ip"], why) for why in is_ip(one["ip"])]
        if host:
            if not is_ip(host):
                causes.append(invalid(f"{path}.hostname", host, "must be a DNS name, not an IP address"))
            causes += [invalid(f"{path}.hostname", host, why) for why in is_dns_subdomain(host)]
    return causes


def _class(obj: Object) -> str:
    return at(obj, "spec", "ingressClassName") or annotations_of(obj).get(_CLASS_ANNOTATION) or NONE


def _hosts(obj: Object) -> str:
    hosts = [one["host"] for one in at(obj, "spec", "rules") or () if one.get("host")]
    more = len(hosts) - _SHOWN_MAX
    return ",".join(hosts[:_SHOWN_MAX]) + (f" + {more} more..." if more > 0 else "") if hosts else "*"


def _address(obj: Object) -> str:
    balancers = {one.get("ip") or one.get("hostname") or "" for one in at(obj, "status", "loadBalancer", "ingress") or ()}
    return ",".join(sorted(balancers - {""}))


RESOURCE = Resource(
    group="networking.k8s.io",
    version="v1",
    kind="Ingress",
    plural="ingresses",
    singular="ingress",
    schema="io.k8s.api.networking.v1.Ingress",
    short_names=("ing",),
    strategy=Strategy(validate=validate, validate_status_update=validate_status_update, has_status=True, has_generation=True),
    subresources=(STATUS,),
    columns=(
        NAME,
        cell("Class", _class, description="Which controller serves it."),
        cell("Hosts", _hosts, description="Names that it answers for."),
        cell("Address", _address, description="Where it is reached."),
        cell("Ports", lambda obj: "80, 443" if at(obj, "spec", "tls") else "80", description="Ports that it listens on."),
        AGE,
    ),
)
