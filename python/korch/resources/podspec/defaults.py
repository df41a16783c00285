"""Defaults of a pod and of a pod template: what a field means when nobody wrote it, made visible in the stored object.

Two levels, as upstream: `default_pod_spec` is for templates and pods alike; `default_pod` adds what is decided only when a real
pod is made (requests from limits, host ports, service links). Objects change in place; an empty string counts as missing.
Mirrors kubernetes' pkg/apis/core/v1/defaults.go.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from korch.api.pods import is_sidecar
from korch.resources.resource import Object

_FILE_MODE = 0o644
_TOKEN_EXPIRATION_S = 3600
_HANDLERS = ("livenessProbe", "readinessProbe", "startupProbe")

# Defaults of volume sources that are plain values; those below `_default_volume` need a look at more than the source.
_VOLUME_SOURCE_DEFAULTS: dict[str, dict[str, Any]] = {
    "secret": {"defaultMode": _FILE_MODE},
    "configMap": {"defaultMode": _FILE_MODE},
    "downwardAPI": {"defaultMode": _FILE_MODE},
    "projected": {"defaultMode": _FILE_MODE},
    "hostPath": {"type": ""},
    "iscsi": {"iscsiInterface": "default"},
    "rbd": {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"},
    "azureDisk": {"cachingMode": "ReadWrite", "kind": "Shared", "fsType": "ext4", "readOnly": False},
    "scaleIO": {"storageMode": "ThinProvisioned", "fsType": "xfs"},
}


def default_pod(pod: Object) -> None:
    """Fill in a Pod, in place."""
    spec = fill(pod, "spec", {})
    default_pod_spec(spec)
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    for container in containers:
        _default_requests(container.get("resources"))
        if spec.get("hostNetwork"):
            for port in container.get("ports") or ():
                fill(port, "hostPort", port.get("containerPort"))
    _default_pod_requests(spec)
    fill(spec, "enableServiceLinks", True)


def default_pod_template(template: Object | None) -> None:
    """Fill in a PodTemplateSpec, in place; the same for every workload."""
    if template is not None:
        metadata = fill(template, "metadata", {})
        if "creationTimestamp" in metadata and metadata["creationTimestamp"] is None:
            del metadata["creationTimestamp"]
        default_pod_spec(fill(template, "spec", {}))


def default_pod_spec(spec: Object) -> None:
    """Fill in a PodSpec wherever it stands, in place."""
    fill(spec, "restartPolicy", "Always")
    fill(spec, "dnsPolicy", "ClusterFirst")
    fill(spec, "schedulerName", "default-scheduler")
    fill(spec, "securityContext", {})
    fill(spec, "terminationGracePeriodSeconds", 30)
    mirror_service_account(spec)
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind) or ():
            _default_container(container)
    for volume in spec.get("volumes") or ():
        _default_volume(volume)


def mirror_service_account(spec: Object) -> None:
    """Keep `serviceAccount`, the old name of the field, equal to `serviceAccountName`."""
    name = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if name:
        spec["serviceAccountName"] = spec["serviceAccount"] = name


def image_pull_policy(image: str) -> str:
    """Return Always for the tag `latest` or no tag at all, IfNotPresent for a tag or a digest."""
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return "Always" if image and not digest and tag in ("", "latest") else "IfNotPresent"


def fill(parent: Object, key: str, value: Any) -> Any:
    """Set `parent[key]` when it is missing, null or an empty string; return what is there then."""
    found = parent.get(key)
    if found is None or found == "":
        parent[key] = found = value
    return found


def _default_container(container: Object) -> None:
    fill(container, "imagePullPolicy", image_pull_policy(container.get("image") or ""))
    fill(container, "terminationMessagePath", "/dev/termination-log")
    fill(container, "terminationMessagePolicy", "File")
    fill(container, "resources", {})
    for port in container.get("ports") or ():
        fill(port, "protocol", "TCP")
    for variable in container.get("env") or ():
        source = variable.get("valueFrom") or {}
        _default_field_ref(source)
        if (key := source.get("fileKeyRef")) is not None:
            fill(key, "optional", False)
    for name in _HANDLERS:
        if (probe := container.get(name)) is not None:
            _default_probe(probe)
    for handler in (container.get("lifecycle") or {}).values():
        _default_http_get(handler if isinstance(handler, dict) else {})


def _default_probe(probe: Object) -> None:
    # Zero stands for "not set" in these: no valid probe has a zero here.
    for key, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        if not probe.get(key):
            probe[key] = value
    _default_http_get(probe)
    if (grpc := probe.get("grpc")) is not None:
        fill(grpc, "service", "")


def _default_http_get(handler: Object) -> None:
    if (http_get := handler.get("httpGet")) is not None:
        fill(http_get, "path", "/")
        fill(http_get, "scheme", "HTTP")


def _default_field_ref(holder: Object) -> None:
    if (field_ref := holder.get("fieldRef")) is not None:
        fill(field_ref, "apiVersion", "v1")


def _default_volume(volume: Object) -> None:
    sources = [key for key, value in volume.items() if key != "name" and value is not None]
    if not sources:
        volume["emptyDir"] = {}
        return
    for source in sources:
        for key, value in _VOLUME_SOURCE_DEFAULTS.get(source, {}).items():
            fill(volume[source], key, value)
    for item in _downward_items(volume):
        _default_field_ref(item)
    for source in (volume.get("projected") or {}).get("sources") or ():
        if (token := source.get("serviceAccountToken")) is not None:
            fill(token, "expirationSeconds", _TOKEN_EXPIRATION_S)
    if (image := volume.get("image")) is not None:
        fill(image, "pullPolicy", image_pull_policy(image.get("reference") or ""))
    claim = ((volume.get("ephemeral") or {}).get("volumeClaimTemplate") or {}).get("spec")
    if claim is not None:
        fill(claim, "volumeMode", "Filesystem")


def _downward_items(volume: Object) -> Iterator[Object]:
    yield from (volume.get("downwardAPI") or {}).get("items") or ()
    for source in (volume.get("projected") or {}).get("sources") or ():
        yield from (source.get("downwardAPI") or {}).get("items") or ()


def _default_requests(resources: Object | None) -> None:
    """A limit without a request is a request of the same amount."""
    limits = (resources or {}).get("limits")
    if resources is None or not limits:
        return
    resources["requests"] = {**limits, **(resources.get("requests") or {})}


def _default_pod_requests(spec: Object) -> None:
    """A limit of the whole pod without a request asks for what its containers ask for, or for the limit where they ask for nothing."""
    resources = spec.get("resources") or {}
    limits = resources.get("limits")
    if not limits:
        return
    containers = [*(spec.get("containers") or ()), *(one for one in spec.get("initContainers") or () if is_sidecar(one))]
    asked = {name for one in containers for name in ((one.get("resources") or {}).get("requests") or {})}
    requests = fill(resources, "requests", {})
    for name, amount in limits.items():
        if name in asked:
            continue
        fill(requests, name, amount)
