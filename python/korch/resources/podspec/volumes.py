"""Rules for the volumes of a pod. Mirrors ValidateVolumes of kubernetes' pkg/apis/core/validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from korch.api import names, quantity
from korch.api.errors import Cause, duplicate, forbidden_field, invalid, not_supported, required
from korch.resources.podspec.containers import check_field_ref, check_relative_path
from korch.resources.resource import Object

_MODE = "must be a number between 0 and 0777 (octal), both inclusive"
_DOWNWARD_FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
_HOST_PATH_TYPES = ("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket")
_PROJECTIONS = ("secret", "downwardAPI", "configMap", "serviceAccountToken", "clusterTrustBundle", "podCertificate")
_TOKEN_EXPIRATION_S_MIN, _TOKEN_EXPIRATION_S_MAX = 600, 1 << 32


def check_volumes(causes: list[Cause], volumes: Sequence[Object], path: str) -> None:
    """Check names and sources of all volumes."""
    seen: set[str] = set()
    for position, volume in enumerate(volumes):
        where = f"{path}[{position}]"
        _check_source(causes, volume, where)
        name = volume.get("name") or ""
        if not name:
            causes.append(required(f"{where}.name"))
            continue
        causes += [invalid(f"{where}.name", name, why) for why in names.is_dns_label(name)]
        if name in seen:
            causes.append(duplicate(f"{where}.name", name))
        seen.add(name)


def _check_source(causes: list[Cause], volume: Object, path: str) -> None:
    sources = [key for key, value in volume.items() if key != "name" and value is not None]
    if not sources:
        causes.append(required(path, "must specify a volume type"))
        return
    causes += [forbidden_field(f"{path}.{one}", "may not specify more than 1 volume type") for one in sources[1:]]
    name, source = sources[0], volume[sources[0]]
    where = f"{path}.{name}"
    match name:
        case "emptyDir":
            _check_size_limit(causes, source, where)
        case "hostPath":
            _check_host_path(causes, source, where)
        case "secret":
            _check_files(causes, source, where, name_field="secretName")
        case "configMap":
            _check_files(causes, source, where, name_field="name")
        case "downwardAPI":
            _check_mode(causes, source.get("defaultMode"), f"{where}.defaultMode")
            check_downward_items(causes, source.get("items") or (), f"{where}.items")
        case "projected":
            _check_projected(causes, source, where)
        case "persistentVolumeClaim":
            if not source.get("claimName"):
                causes.append(required(f"{where}.claimName"))
        case "nfs":
            causes += [required(f"{where}.{field}") for field in ("server", "path") if not source.get(field)]
            if source.get("path") and not source["path"].startswith("/"):
                causes.append(invalid(f"{where}.path", source["path"], "must be an absolute path"))
        case "csi":
            if not source.get("driver"):
                causes.append(required(f"{where}.driver"))
        case "ephemeral":
            if source.get("volumeClaimTemplate") is None:
                causes.append(required(f"{where}.volumeClaimTemplate"))
        case _:
            pass


def check_downward_items(causes: list[Cause], items: Sequence[Object], path: str) -> None:
    """Check files that hold facts about the pod itself."""
    for position, item in enumerate(items):
        where = f"{path}[{position}]"
        if not item.get("path"):
            causes.append(required(f"{where}.path"))
        else:
            check_relative_path(causes, item["path"], f"{where}.path")
        field_ref, resource_ref = item.get("fieldRef"), item.get("resourceFieldRef")
        if field_ref is not None:
            check_field_ref(causes, field_ref, f"{where}.fieldRef", _DOWNWARD_FIELDS)
            if resource_ref is not None:
                causes.append(invalid(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
        elif resource_ref is None:
            causes.append(required(f"{where}.fieldRef", "one of fieldRef and resourceFieldRef is required"))
        elif not resource_ref.get("containerName"):
            causes.append(required(f"{where}.resourceFieldRef.containerName"))
        elif not resource_ref.get("resource"):
            causes.append(required(f"{where}.resourceFieldRef.resource"))
        _check_mode(causes, item.get("mode"), f"{where}.mode")


def _check_size_limit(causes: list[Cause], source: Object, path: str) -> None:
    limit = source.get("sizeLimit")
    if limit is not None and quantity.value(limit) < 0:
        causes.append(forbidden_field(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity"))


def _check_host_path(causes: list[Cause], source: Object, path: str) -> None:
    target = source.get("path") or ""
    if not target:
        causes.append(required(f"{path}.path"))
    elif ".." in target.split("/"):
        causes.append(invalid(f"{path}.path", target, "must not contain '..'"))
    if (source.get("type") or "") not in _HOST_PATH_TYPES:
        causes.append(not_supported(f"{path}.type", source["type"], _HOST_PATH_TYPES))


def _check_files(causes: list[Cause], source: Object, path: str, *, name_field: str) -> None:
    """Check a Secret or ConfigMap as a directory of files."""
    if not source.get(name_field):
        causes.append(required(f"{path}.{name_field}"))
    _check_mode(causes, source.get("defaultMode"), f"{path}.defaultMode")
    for position, item in enumerate(source.get("items") or ()):
        where = f"{path}.items[{position}]"
        if not item.get("key"):
            causes.append(required(f"{where}.key"))
        if not item.get("path"):
            causes.append(required(f"{where}.path"))
        else:
            check_relative_path(causes, item["path"], f"{where}.path")
            if item["path"].startswith(".."):
                causes.append(invalid(f"{where}.path", item["path"], "must not start with '..'"))
        _check_mode(causes, item.get("mode"), f"{where}.mode")


def _check_projected(causes: list[Cause], source: Object, path: str) -> None:
    _check_mode(causes, source.get("defaultMode"), f"{path}.defaultMode")
    for position, projection in enumerate(source.get("sources") or ()):
        where = f"{path}.sources[{position}]"
        named = [one for one in _PROJECTIONS if projection.get(one) is not None]
        if not named:
            causes.append(required(where, "must specify one of: `secret`, `downwardAPI`, `configMap`, `serviceAccountToken`"))
        causes += [forbidden_field(f"{where}.{one}", "may not specify more than 1 volume type per source") for one in named[1:]]
        for one in named[:1]:
            _check_projection(causes, one, projection[one], f"{where}.{one}")


def _check_projection(causes: list[Cause], name: str, projection: Object, path: str) -> None:
    if name in ("secret", "configMap"):
        _check_files(causes, projection, path, name_field="name")
    elif name == "downwardAPI":
        check_downward_items(causes, projection.get("items") or (), f"{path}.items")
    elif name == "serviceAccountToken":
        seconds = projection.get("expirationSeconds") or 0
        if seconds < _TOKEN_EXPIRATION_S_MIN:
            causes.append(invalid(f"{path}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes"))
        elif seconds > _TOKEN_EXPIRATION_S_MAX:
            causes.append(invalid(f"{path}.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds"))
        if not projection.get("path"):
            causes.append(required(f"{path}.path"))
        else:
            check_relative_path(causes, projection["path"], f"{path}.path")


def _check_mode(causes: list[Cause], mode: Any, path: str) -> None:
    if mode is not None and not 0 <= mode <= 0o777:
        causes.append(invalid(path, mode, _MODE))
