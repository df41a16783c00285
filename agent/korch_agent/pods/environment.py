"""The environment of a container: `env`, `envFrom`, the downward API, `$(NAME)` references, and variables of Services.

Everything that has to be fetched (ConfigMaps, Secrets) is handed in, so that this is arithmetic on text. Mirrors kubelet's
makeEnvironmentVariables, third_party/forked/golang/expansion and envvars.FromServices.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from korch_agent.pods.observed import Pod, app_containers, init_containers
from korch_agent.pods.resources import quantity
from korch_agent.pods.security import ConfigError

MASTER_SERVICES = ("kubernetes",)


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """What an environment is made from. Objects are looked up by name in the pod's namespace; None: not found."""

    config_maps: Mapping[str, dict[str, Any] | None] = {}
    secrets: Mapping[str, dict[str, Any] | None] = {}
    services: tuple[dict[str, Any], ...] = ()
    node_name: str = ""
    host_ips: tuple[str, ...] = ()
    pod_ips: tuple[str, ...] = ()
    allocatable: Mapping[str, str] = {}


def references(container: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """Return the names of the ConfigMaps and of the Secrets that the container's environment needs."""
    config_maps: set[str] = set()
    secrets: set[str] = set()
    for one in container.get("envFrom") or []:
        if one.get("configMapRef"):
            config_maps.add(one["configMapRef"].get("name", ""))
        if one.get("secretRef"):
            secrets.add(one["secretRef"].get("name", ""))
    for one in container.get("env") or []:
        source = one.get("valueFrom") or {}
        if source.get("configMapKeyRef"):
            config_maps.add(source["configMapKeyRef"].get("name", ""))
        if source.get("secretKeyRef"):
            secrets.add(source["secretKeyRef"].get("name", ""))
    return config_maps, secrets


def environment(pod: Pod, container: Mapping[str, Any], sources: Sources) -> list[tuple[str, str]]:
    """Return the variables in order. Raises ConfigError for a reference that cannot be followed and is not optional."""
    services = _service_variables(pod, sources)
    result: dict[str, str] = {}
    for one in container.get("envFrom") or []:
        result |= _bulk(pod, one, sources)
    for one in container.get("env") or []:
        value = one.get("value") or ""
        if value:
            value = expand(value, lambda name: result.get(name, services.get(name)))
        elif one.get("valueFrom"):
            found = _value_from(pod, container, one["valueFrom"], sources)
            if found is None:
                continue
            value = found
        result[one["name"]] = value
    return list((services | result).items())


def expand(text: str, lookup: Any) -> str:
    """Replace `$(NAME)` by what `lookup` returns; `$$` is `$`, and what is not found stays as it stands."""
    out: list[str] = []
    at = 0
    while at < len(text):
        if text[at] != "$" or at + 1 >= len(text):
            out.append(text[at])
            at += 1
        elif text[at + 1] == "$":
            out.append("$")
            at += 2
        elif text[at + 1] == "(" and (end := text.find(")", at + 2)) >= 0:
            name = text[at + 2 : end]
            value = lookup(name)
            out.append(f"$({name})" if value is None else value)
            at = end + 1
        else:
            out.append("$")
            at += 1
    return "".join(out)


def _bulk(pod: Pod, source: Mapping[str, Any], sources: Sources) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    if source.get("configMapRef"):
        reference = source["configMapRef"]
        found = sources.config_maps.get(reference.get("name", ""))
        data = dict((found or {}).get("data") or {})
        sort = "configmap"
    else:
        reference = source.get("secretRef") or {}
        found = sources.secrets.get(reference.get("name", ""))
        data = {key: _text(value) for key, value in ((found or {}).get("data") or {}).items()}
        sort = "secret"
    if found is None and not reference.get("optional"):
        raise ConfigError(f'{sort} "{reference.get("name", "")}" not found')
    return {prefix + key: value for key, value in data.items()}


def _value_from(pod: Pod, container: Mapping[str, Any], source: Mapping[str, Any], sources: Sources) -> str | None:
    if source.get("fieldRef"):
        return field_value(pod, source["fieldRef"]["fieldPath"], sources)
    if source.get("resourceFieldRef"):
        return resource_value(pod, source["resourceFieldRef"], sources.allocatable, container)
    namespace = pod["metadata"]["namespace"]
    if source.get("configMapKeyRef"):
        reference = source["configMapKeyRef"]
        found = sources.config_maps.get(reference.get("name", ""))
        if found is None:
            return _missing(reference, f'configmap "{reference.get("name", "")}" not found')
        if reference["key"] not in (found.get("data") or {}):
            return _missing(reference, f"couldn't find key {reference['key']} in ConfigMap {namespace}/{reference['name']}")
        return found["data"][reference["key"]]
    if source.get("secretKeyRef"):
        reference = source["secretKeyRef"]
        found = sources.secrets.get(reference.get("name", ""))
        if found is None:
            return _missing(reference, f'secret "{reference.get("name", "")}" not found')
        if reference["key"] not in (found.get("data") or {}):
            return _missing(reference, f"couldn't find key {reference['key']} in Secret {namespace}/{reference['name']}")
        return _text(found["data"][reference["key"]])
    return ""


def _missing(reference: Mapping[str, Any], message: str) -> None:
    if not reference.get("optional"):
        raise ConfigError(message)


def field_value(pod: Pod, path: str, sources: Sources) -> str:
    """Return a field of the pod as text, for `fieldRef`. Raises ConfigError for a path that is not supported."""
    meta, spec = pod["metadata"], pod["spec"]
    for sort in ("annotations", "labels"):
        if path.startswith(f"metadata.{sort}['") and path.endswith("']"):
            return (meta.get(sort) or {}).get(path[len(f"metadata.{sort}['") : -2], "")
        if path == f"metadata.{sort}":
            return "\n".join(f"{key}={_quote(value)}" for key, value in sorted((meta.get(sort) or {}).items()))
    match path:
        case "metadata.name" | "metadata.namespace" | "metadata.uid":
            return meta[path.removeprefix("metadata.")]
        case "spec.nodeName":
            return spec.get("nodeName") or sources.node_name
        case "spec.serviceAccountName":
            return spec.get("serviceAccountName") or "default"
        case "status.hostIP":
            return sources.host_ips[0] if sources.host_ips else ""
        case "status.hostIPs":
            return ",".join(sources.host_ips)
        case "status.podIP":
            return sources.pod_ips[0] if sources.pod_ips else ""
        case "status.podIPs":
            return ",".join(sources.pod_ips)
    raise ConfigError(f"unsupported fieldPath: {path}")


def resource_value(
    pod: Pod, reference: Mapping[str, Any], allocatable: Mapping[str, str], container: Mapping[str, Any] | None = None
) -> str:
    """Return a request or limit in units of the divisor, rounded up; a limit that is not set is what the node can allocate."""
    name = reference.get("containerName")
    if name or container is None:
        found = next((one for one in (*init_containers(pod), *app_containers(pod)) if one["name"] == name), None)
        if found is None:
            raise ConfigError(f"container {name} not found")
        container = found
    sort, _, resource = reference["resource"].partition(".")
    resources = container.get("resources") or {}
    value = (resources.get(sort) or {}).get(resource)
    if value is None and sort == "requests":
        value = (resources.get("limits") or {}).get(resource)
        value = "0" if value is None else value
    if value is None:
        value = allocatable.get(resource, "0")
    divisor = quantity(reference.get("divisor")) or 1.0
    return str(math.ceil(round(quantity(value) / divisor, 6)))


def _service_variables(pod: Pod, sources: Sources) -> dict[str, str]:
    links = pod["spec"].get("enableServiceLinks", True)
    namespace = pod["metadata"]["namespace"]
    chosen: dict[str, dict[str, Any]] = {}
    for service in sources.services:
        meta, address = service["metadata"], (service.get("spec") or {}).get("clusterIP")
        if not address or address == "None":
            continue
        is_master = meta["namespace"] == "default" and meta["name"] in MASTER_SERVICES
        if is_master:
            chosen.setdefault(meta["name"], service)
        if links and meta["namespace"] == namespace:
            chosen[meta["name"]] = service
    variables: dict[str, str] = {}
    for service in _by_age(chosen.values()):
        variables |= _variables_of(service)
    return variables


def _by_age(services: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(services, key=lambda one: (one["metadata"].get("creationTimestamp") or "", one["metadata"]["name"]))


def _variables_of(service: Mapping[str, Any]) -> dict[str, str]:
    """Return NAME_SERVICE_HOST and the variables that Docker links had."""
    spec, name = service["spec"], _variable(service["metadata"]["name"])
    address, ports = spec["clusterIP"], spec.get("ports") or []
    if not ports:
        return {f"{name}_SERVICE_HOST": address}
    host = f"[{address}]" if ":" in address else address
    variables = {f"{name}_SERVICE_HOST": address, f"{name}_SERVICE_PORT": str(ports[0]["port"])}
    for port in ports:
        if port.get("name"):
            variables[f"{name}_SERVICE_PORT_{_variable(port['name'])}"] = str(port["port"])
    for index, port in enumerate(ports):
        protocol = (port.get("protocol") or "TCP").lower()
        url = f"{protocol}://{host}:{port['port']}"
        prefix = f"{name}_PORT_{port['port']}_{protocol.upper()}"
        if index == 0:
            variables[f"{name}_PORT"] = url
        variables |= {prefix: url, f"{prefix}_PROTO": protocol, f"{prefix}_PORT": str(port["port"]), f"{prefix}_ADDR": address}
    return variables


def _variable(name: str) -> str:
    return name.upper().replace("-", "_")


def _text(value: str) -> str:
    return base64.b64decode(value).decode(errors="surrogateescape")


def _quote(value: str) -> str:
    """Return a value as Go's strconv.Quote prints it."""
    return json.dumps(value, ensure_ascii=False)
