"""Rules for a whole pod spec, in a pod or in a template. Mirrors ValidatePodSpec of kubernetes' pkg/apis/core/validation."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from korch.api import names
from korch.api.errors import Cause, duplicate, forbidden_field, invalid, required
from korch.api.validation import check_annotations, check_enum, check_labels
from korch.resources.podspec.containers import check_containers, check_resources
from korch.resources.podspec.placement import check_placement
from korch.resources.podspec.pod_security_context import check_pod_security_context
from korch.resources.podspec.volumes import check_volumes
from korch.resources.resource import Object

RESTART_POLICIES = ("Always", "OnFailure", "Never")
DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_NAMESERVERS_MAX = 3
_INT32_MAX = 2**31 - 1
_PASSED_MAX = 256
_PASSED_BYTES_MAX = 16384
# Encoded specs in which nothing was wrong: the pods of a workload have the same, and so has every update of them.
_passed: set[bytes] = set()
# The volume with a pod's token has a name of the pod's own.
_TOKEN_VOLUME = "kube-api-access-"


def validate_pod(pod: Object) -> list[Cause]:
    """Return what is wrong with a Pod's spec."""
    causes: list[Cause] = []
    check_pod_spec(causes, pod.get("spec") or {}, "spec")
    return causes


def check_pod_template(causes: list[Cause], template: Object, path: str) -> None:
    """Check a PodTemplateSpec."""
    metadata = template.get("metadata") or {}
    # Upstream's path leaves out the `metadata`.
    check_labels(causes, metadata.get("labels"), f"{path}.labels")
    check_annotations(causes, metadata.get("annotations"), f"{path}.annotations")
    spec = template.get("spec") or {}
    check_pod_spec(causes, spec, f"{path}.spec")
    if spec.get("ephemeralContainers"):
        causes.append(forbidden_field(f"{path}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template"))


def check_pod_spec(causes: list[Cause], spec: Object, path: str) -> None:
    """Check a PodSpec whose defaults are filled in."""
    known = _encoded(spec)
    if known in _passed:
        return
    before = len(causes)
    _check_whole(causes, spec, path)
    if len(causes) == before and len(known) <= _PASSED_BYTES_MAX:
        if len(_passed) >= _PASSED_MAX:
            _passed.clear()
        _passed.add(known)


def _encoded(spec: Object) -> bytes:
    """Return the spec's JSON with a token volume's name left open, by a byte that no JSON holds."""
    found = orjson.dumps(spec)
    for volume in spec.get("volumes") or ():
        name = volume.get("name") or ""
        if name.startswith(_TOKEN_VOLUME) and not names.is_dns_label(name):
            return found.replace(b'"%b"' % name.encode(), b"\0")
    return found


def _check_whole(causes: list[Cause], spec: Object, path: str) -> None:
    check_volumes(causes, spec.get("volumes") or (), f"{path}.volumes")
    check_containers(causes, spec, path)
    check_enum(causes, spec.get("restartPolicy"), f"{path}.restartPolicy", RESTART_POLICIES)
    _check_dns(causes, spec, path)
    check_labels(causes, spec.get("nodeSelector"), f"{path}.nodeSelector")
    check_pod_security_context(causes, spec, path)
    check_placement(causes, spec, path)
    check_resources(causes, spec.get("resources"), f"{path}.resources")
    _check_names(causes, spec, path)
    _check_gates(causes, spec, path)
    _check_group(causes, spec, path)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= _INT32_MAX:
        causes.append(invalid(f"{path}.activeDeadlineSeconds", deadline, f"must be between 1 and {_INT32_MAX}, inclusive"))
    _check_host_aliases(causes, spec.get("hostAliases") or (), f"{path}.hostAliases")
    for position, secret in enumerate(spec.get("imagePullSecrets") or ()):
        if not secret.get("name"):
            causes.append(required(f"{path}.imagePullSecrets[{position}].name"))


def _check_host_aliases(causes: list[Cause], aliases: Sequence[Object], path: str) -> None:
    for position, alias in enumerate(aliases):
        where, ip = f"{path}[{position}]", alias.get("ip") or ""
        causes += [invalid(f"{where}.ip", ip, why) for why in names.is_ip(ip)]
        for hostname in alias.get("hostnames") or ():
            causes += [invalid(f"{where}.hostnames", hostname, why) for why in names.is_dns_subdomain(hostname)]


def _check_dns(causes: list[Cause], spec: Object, path: str) -> None:
    check_enum(causes, spec.get("dnsPolicy"), f"{path}.dnsPolicy", DNS_POLICIES)
    config = spec.get("dnsConfig")
    servers: Sequence[str] = (config or {}).get("nameservers") or ()
    if spec.get("dnsPolicy") == "None" and not servers:
        field = f"{path}.dnsConfig" if config is None else f"{path}.dnsConfig.nameservers"
        detail = "must provide `dnsConfig`" if config is None else "must provide at least one DNS nameserver"
        causes.append(required(field, f"{detail} when `dnsPolicy` is None"))
    if len(servers) > _NAMESERVERS_MAX:
        detail = f"must not have more than {_NAMESERVERS_MAX} nameservers"
        causes.append(invalid(f"{path}.dnsConfig.nameservers", list(servers), detail))
    for position, server in enumerate(servers):
        causes += [invalid(f"{path}.dnsConfig.nameservers[{position}]", server, why) for why in names.is_ip(server)]


def _check_names(causes: list[Cause], spec: Object, path: str) -> None:
    checks = (
        ("serviceAccountName", names.is_dns_subdomain),
        ("nodeName", names.is_dns_subdomain),
        ("hostname", names.is_dns_label),
        ("subdomain", names.is_dns_label),
        ("priorityClassName", names.is_dns_subdomain),
        ("runtimeClassName", names.is_dns_subdomain),
        ("schedulerName", names.is_dns_subdomain),
    )
    for field, check in checks:
        if value := spec.get(field):
            causes += [invalid(f"{path}.{field}", value, why) for why in check(value)]


def _check_group(causes: list[Cause], spec: Object, path: str) -> None:
    group: Object | None = spec.get("schedulingGroup")
    if group is None:
        return
    name = group.get("podGroupName")
    if name is None:
        causes.append(invalid(f"{path}.schedulingGroup.podGroupName", None, "must specify one of: `podGroupName`"))
    else:
        causes += [invalid(f"{path}.schedulingGroup.podGroupName", name, why) for why in names.is_dns_subdomain(name)]


def _check_gates(causes: list[Cause], spec: Object, path: str) -> None:
    seen: set[str] = set()
    gates = spec.get("schedulingGates") or ()
    for position, gate in enumerate(gates):
        name = gate.get("name") or ""
        causes += [invalid(f"{path}.schedulingGates[{position}]", name, why) for why in names.is_qualified_name(name)]
        if name in seen:
            causes.append(duplicate(f"{path}.schedulingGates[{position}]", name))
        seen.add(name)
    if gates and spec.get("nodeName"):
        causes.append(forbidden_field(f"{path}.nodeName", "cannot be set until all schedulingGates have been cleared"))
