"""Rules for the containers of a pod: names, images, ports, environment, mounts, probes, lifecycle, resources.

Mirrors validateContainers and its helpers in kubernetes' pkg/apis/core/validation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from korch.api import names, quantity
from korch.api.errors import Cause, duplicate, forbidden_field, invalid, not_supported, required
from korch.api.pods import is_sidecar
from korch.api.validation import check_enum, check_not_negative, check_port, check_port_or_name, not_found
from korch.resources.podspec.pod_security_context import check_seccomp_profile
from korch.resources.resource import Object

PROTOCOLS = ("SCTP", "TCP", "UDP")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_ENV_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_ENV_FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_OVERCOMMIT = frozenset({"cpu", "memory", "ephemeral-storage"})
_ONLY_FOR_SIDECARS = ("lifecycle", *_PROBES)
# What differs between the containers of one workload's pods: tokens are mounted under a name of the pod's own.
_CHECKED_APART = ("name", "volumeMounts")
_PASSED_MAX = 512
_PASSED_BYTES_MAX = 8192
# Containers, encoded, in which nothing was wrong: all pods of a workload have the same, and so has every update of them.
_passed: set[bytes] = set()


def check_containers(causes: list[Cause], spec: Object, path: str) -> None:
    """Check all containers of a pod spec whose volumes have been checked."""
    volumes = {volume.get("name") for volume in spec.get("volumes") or ()}
    containers = spec.get("containers") or ()
    if not containers:
        causes.append(required(f"{path}.containers"))
    seen: set[str] = set()
    for where, container, kind in _all(spec, path):
        _check_name(causes, container.get("name") or "", f"{where}.name", seen)
        _check_container(causes, container, where, volumes)
        if kind == "initContainers":
            _check_init_container(causes, container, where)
    _check_host_ports(causes, spec, path)


def check_resources(causes: list[Cause], resources: Object | None, path: str) -> None:
    """Check a ResourceRequirements: known names, no negative amounts, requests within limits."""
    limits, requests = (resources or {}).get("limits") or {}, (resources or {}).get("requests") or {}
    for field, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            _check_amount(causes, name, amount, f"{path}.{field}[{name}]")
    for name, amount in requests.items():
        limit = limits.get(name)
        if limit is None:
            if not _may_overcommit(name):
                causes.append(required(f"{path}.limits", "Limit must be set for non overcommitable resources"))
            continue
        asked, most = _number(name, amount), _number(name, limit)
        if asked is None or most is None:
            continue
        if asked != most and not _may_overcommit(name):
            causes.append(invalid(f"{path}.requests", str(amount), f"must be equal to {name} limit of {limit}"))
        elif asked > most:
            causes.append(invalid(f"{path}.requests", str(amount), f"must be less than or equal to {name} limit of {limit}"))


def _all(spec: Object, path: str) -> Iterator[tuple[str, Object, str]]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for position, container in enumerate(spec.get(kind) or ()):
            yield f"{path}.{kind}[{position}]", container, kind


def _check_name(causes: list[Cause], name: str, path: str, seen: set[str]) -> None:
    if not name:
        causes.append(required(path))
        return
    causes += [invalid(path, name, why) for why in names.is_dns_label(name)]
    if name in seen:
        causes.append(duplicate(path, name))
    seen.add(name)


def _check_container(causes: list[Cause], container: Object, path: str, volumes: set[Any]) -> None:
    _check_mounts(causes, container.get("volumeMounts") or (), f"{path}.volumeMounts", volumes)
    known = orjson.dumps({key: value for key, value in container.items() if key not in _CHECKED_APART})
    if known in _passed:
        return
    before = len(causes)
    _check_alone(causes, container, path)
    if len(causes) == before and len(known) <= _PASSED_BYTES_MAX:
        if len(_passed) >= _PASSED_MAX:
            _passed.clear()
        _passed.add(known)


def _check_alone(causes: list[Cause], container: Object, path: str) -> None:
    """Check what does not depend on anything outside of the container."""
    image = container.get("image") or ""
    if not image:
        causes.append(required(f"{path}.image"))
    elif image != image.strip():
        causes.append(invalid(f"{path}.image", image, "must not have leading or trailing whitespace"))
    check_enum(causes, container.get("imagePullPolicy"), f"{path}.imagePullPolicy", PULL_POLICIES)
    check_enum(causes, container.get("terminationMessagePolicy"), f"{path}.terminationMessagePolicy", ("File", "FallbackToLogsOnError"))
    _check_ports(causes, container.get("ports") or (), f"{path}.ports")
    check_env(causes, container.get("env") or (), f"{path}.env")
    _check_env_from(causes, container.get("envFrom") or (), f"{path}.envFrom")
    check_resources(causes, container.get("resources"), f"{path}.resources")
    for name in _PROBES:
        if (probe := container.get(name)) is not None:
            _check_probe(causes, probe, f"{path}.{name}", name)
    for name in ("postStart", "preStop"):
        if (handler := (container.get("lifecycle") or {}).get(name)) is not None:
            _check_handler(causes, handler, f"{path}.lifecycle.{name}")
    _check_security_context(causes, container.get("securityContext") or {}, f"{path}.securityContext")


def _check_init_container(causes: list[Cause], container: Object, path: str) -> None:
    if is_sidecar(container):
        return
    if container.get("restartPolicy"):
        causes.append(not_supported(f"{path}.restartPolicy", container["restartPolicy"], ("Always",)))
    for field in _ONLY_FOR_SIDECARS:
        if container.get(field) is not None:
            causes.append(forbidden_field(f"{path}.{field}", "may not be set for init containers without restartPolicy=Always"))


def _check_ports(causes: list[Cause], ports: Sequence[Object], path: str) -> None:
    seen: set[str] = set()
    for position, port in enumerate(ports):
        where = f"{path}[{position}]"
        if name := port.get("name"):
            reasons = names.is_port_name(name)
            causes += [invalid(f"{where}.name", name, why) for why in reasons]
            if not reasons and name in seen:
                causes.append(duplicate(f"{where}.name", name))
            seen.add(name)
        if not port.get("containerPort"):
            causes.append(required(f"{where}.containerPort"))
        else:
            check_port(causes, port["containerPort"], f"{where}.containerPort")
        if port.get("hostPort"):
            check_port(causes, port["hostPort"], f"{where}.hostPort")
        check_enum(causes, port.get("protocol"), f"{where}.protocol", PROTOCOLS)


def _check_host_ports(causes: list[Cause], spec: Object, path: str) -> None:
    """Two containers cannot have one host port; on the host's network a port is the host's port."""
    seen: set[str] = set()
    for where, container, kind in _all(spec, path):
        if kind != "containers":
            continue
        for position, port in enumerate(container.get("ports") or ()):
            host_port = port.get("hostPort")
            if spec.get("hostNetwork") and host_port != port.get("containerPort"):
                field = f"{where}.ports[{position}].containerPort"
                causes.append(invalid(field, port.get("containerPort"), "must match `hostPort` when `hostNetwork` is true"))
            if not host_port:
                continue
            key = f"{port.get('protocol')}/{port.get('hostIP') or ''}/{host_port}"
            if key in seen:
                causes.append(duplicate(f"{where}.ports[{position}].hostPort", key))
            seen.add(key)


def check_env(causes: list[Cause], env: Sequence[Object], path: str) -> None:
    """Check a list of EnvVar."""
    for position, variable in enumerate(env):
        where = f"{path}[{position}]"
        name = variable.get("name") or ""
        if not name:
            causes.append(required(f"{where}.name"))
        else:
            causes += [invalid(f"{where}.name", name, why) for why in names.is_env_name(name)]
        if (source := variable.get("valueFrom")) is not None:
            _check_env_source(causes, variable, source, f"{where}.valueFrom")


def _check_env_source(causes: list[Cause], variable: Object, source: Object, path: str) -> None:
    named = [one for one in _ENV_SOURCES if source.get(one) is not None]
    if not named:
        listed = "`fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        causes.append(invalid(path, "", f"must specify one of: {listed}"))
    elif variable.get("value"):
        causes.append(invalid(path, "", "may not be specified when `value` is not empty"))
    elif len(named) > 1:
        causes.append(invalid(path, "", "may not have more than one field specified at a time"))
    if (field_ref := source.get("fieldRef")) is not None:
        check_field_ref(causes, field_ref, f"{path}.fieldRef", _ENV_FIELDS)
    if (resource := source.get("resourceFieldRef")) is not None and not resource.get("resource"):
        causes.append(required(f"{path}.resourceFieldRef.resource"))
    for one in ("configMapKeyRef", "secretKeyRef"):
        if (reference := source.get(one)) is not None:
            if not reference.get("key"):
                causes.append(required(f"{path}.{one}.key"))
            else:
                causes += [invalid(f"{path}.{one}.key", reference["key"], why) for why in names.is_config_key(reference["key"])]


def check_field_ref(causes: list[Cause], field_ref: Object, path: str, allowed: Sequence[str]) -> None:
    """Check an ObjectFieldSelector against the fields that may be read in its place."""
    field = field_ref.get("fieldPath") or ""
    if not field:
        causes.append(required(f"{path}.fieldPath"))
        return
    base, bracket, key = field.partition("['")
    if bracket and key.endswith("']") and base in ("metadata.labels", "metadata.annotations"):
        causes += [invalid(path, key[:-2], why) for why in names.is_qualified_name(key[:-2].lower())]
    elif field in ("metadata.labels", "metadata.annotations") and field not in allowed:
        causes.append(not_supported(f"{path}.fieldPath", field, allowed))
    elif field not in (*_ENV_FIELDS, "metadata.labels", "metadata.annotations"):
        causes.append(invalid(f"{path}.fieldPath", field, f"error converting fieldPath: field label not supported: {field}"))
    elif field not in allowed:
        causes.append(not_supported(f"{path}.fieldPath", field, allowed))


def _check_env_from(causes: list[Cause], sources: Sequence[Object], path: str) -> None:
    for position, source in enumerate(sources):
        where = f"{path}[{position}]"
        if prefix := source.get("prefix"):
            causes += [invalid(f"{where}.prefix", prefix, why) for why in names.is_env_name(prefix)]
        named = [one for one in ("configMapRef", "secretRef") if source.get(one) is not None]
        if not named:
            causes.append(invalid(where, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(named) > 1:
            causes.append(invalid(where, "", "may not have more than one field specified at a time"))
        causes += [required(f"{where}.{one}.name") for one in named if not source[one].get("name")]


def _check_mounts(causes: list[Cause], mounts: Sequence[Object], path: str, volumes: set[Any]) -> None:
    seen: set[str] = set()
    for position, mount in enumerate(mounts):
        where = f"{path}[{position}]"
        if not mount.get("name"):
            causes.append(required(f"{where}.name"))
        elif mount["name"] not in volumes:
            causes.append(not_found(f"{where}.name", mount["name"]))
        target = mount.get("mountPath") or ""
        if not target:
            causes.append(required(f"{where}.mountPath"))
        elif target in seen:
            causes.append(invalid(f"{where}.mountPath", target, "must be unique"))
        seen.add(target)
        for field in ("subPath", "subPathExpr"):
            if mount.get(field):
                check_relative_path(causes, mount[field], f"{where}.{field}")
        if mount.get("subPath") and mount.get("subPathExpr"):
            causes.append(invalid(f"{where}.subPathExpr", mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive"))


def check_relative_path(causes: list[Cause], value: str, path: str) -> None:
    """Check a path that must stay below where it starts."""
    if value.startswith("/"):
        causes.append(invalid(path, value, "must be a relative path"))
    if ".." in value.split("/"):
        causes.append(invalid(path, value, "must not contain '..'"))


def _check_probe(causes: list[Cause], probe: Object, path: str, kind: str) -> None:
    _check_handler(causes, probe, path)
    for field in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        check_not_negative(causes, probe.get(field), f"{path}.{field}")
    grace = probe.get("terminationGracePeriodSeconds")
    if kind == "readinessProbe":
        if grace is not None:
            causes.append(invalid(f"{path}.terminationGracePeriodSeconds", grace, "must not be set for readinessProbes"))
        return
    if grace is not None and grace <= 0:
        causes.append(invalid(f"{path}.terminationGracePeriodSeconds", grace, "must be greater than 0"))
    if probe.get("successThreshold") not in (None, 1):
        causes.append(invalid(f"{path}.successThreshold", probe["successThreshold"], "must be 1"))


def _check_handler(causes: list[Cause], handler: Object, path: str) -> None:
    named = [one for one in _HANDLERS if handler.get(one) is not None]
    if not named:
        causes.append(required(path, "must specify a handler type"))
    causes += [forbidden_field(f"{path}.{one}", "may not specify more than 1 handler type") for one in named[1:]]
    if (action := handler.get("exec")) is not None and not action.get("command"):
        causes.append(required(f"{path}.exec.command"))
    if (http_get := handler.get("httpGet")) is not None:
        if not http_get.get("path"):
            causes.append(required(f"{path}.httpGet.path"))
        check_port_or_name(causes, http_get.get("port"), f"{path}.httpGet.port")
        check_enum(causes, http_get.get("scheme"), f"{path}.httpGet.scheme", ("HTTP", "HTTPS"))
    if (socket := handler.get("tcpSocket")) is not None:
        check_port_or_name(causes, socket.get("port"), f"{path}.tcpSocket.port")
    if (grpc := handler.get("grpc")) is not None:
        check_port(causes, grpc.get("port"), f"{path}.grpc.port")


def _check_security_context(causes: list[Cause], context: Object, path: str) -> None:
    for field in ("runAsUser", "runAsGroup"):
        if context.get(field) is not None and not 0 <= context[field] <= 2**31 - 1:
            causes.append(invalid(f"{path}.{field}", context[field], "must be between 0 and 2147483647, inclusive"))
    check_seccomp_profile(causes, context.get("seccompProfile"), f"{path}.seccompProfile")
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            causes.append(invalid(path, context, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"))
        if "CAP_SYS_ADMIN" in ((context.get("capabilities") or {}).get("add") or ()):
            detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            causes.append(invalid(path, context, detail))


def _check_amount(causes: list[Cause], name: str, amount: Any, path: str) -> None:
    reasons = names.is_qualified_name(name)
    causes += [invalid(path, name, why) for why in reasons]
    if not reasons and "/" not in name and not _is_standard(name):
        causes.append(invalid(path, name, "must be a standard resource for containers"))
    number = _number(name, amount)
    if number is None:
        causes.append(invalid(path, amount, "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]+)?$'"))
    elif number < 0:
        causes.append(invalid(path, str(amount), "must be greater than or equal to 0"))
    elif name != "cpu" and not _may_overcommit(name) and quantity.milli(amount) % 1000:
        causes.append(invalid(path, str(amount), "must be an integer"))


def _is_standard(name: str) -> bool:
    return name in _OVERCOMMIT or name.startswith("hugepages-")


def _may_overcommit(name: str) -> bool:
    """Whether a request may be lower than its limit: native resources except huge pages."""
    return name in _OVERCOMMIT or ("/" not in name and not name.startswith("hugepages-"))


def _number(name: str, amount: Any) -> int | None:
    try:
        return quantity.milli(amount) if name == "cpu" else quantity.value(amount)
    except ValueError:
        return None
