"""What stands in configMap, secret, downwardAPI and projected volumes: pure functions from objects to files.

Mirrors kubelet's volume plugins configmap, secret, downwardapi and projected.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from korch_agent.pods.environment import Sources, field_value, resource_value
from korch_agent.pods.observed import Pod
from korch_agent.pods.security import ConfigError
from korch_agent.volumes.atomic import File

DEFAULT_MODE = 0o644


class VolumeError(Exception):
    """A volume cannot be set up now; the message is what an event says."""


def config_map_files(source: Mapping[str, Any], found: Mapping[str, Any] | None, *, namespace: str, mode: int) -> dict[str, File]:
    """Return the files of a ConfigMap, all keys or the chosen `items`. Raises VolumeError when it or a key is missing."""
    name = source.get("name", "")
    if found is None:
        if source.get("optional"):
            return {}
        raise VolumeError(f'configmap "{name}" not found')
    data = {key: value.encode() for key, value in (found.get("data") or {}).items()}
    data |= {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}
    return _chosen(source, data, mode=mode, missing=f"configmap references non-existent config key: {{key}} ({namespace}/{name})")


def secret_files(source: Mapping[str, Any], found: Mapping[str, Any] | None, *, namespace: str, mode: int) -> dict[str, File]:
    """Return the files of a Secret. Raises VolumeError when it or a key is missing."""
    name = source.get("secretName") or source.get("name") or ""
    if found is None:
        if source.get("optional"):
            return {}
        raise VolumeError(f'secret "{name}" not found')
    data = {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
    return _chosen(source, data, mode=mode, missing=f"references non-existent secret key: {{key}} ({namespace}/{name})")


def _chosen(source: Mapping[str, Any], data: Mapping[str, bytes], *, mode: int, missing: str) -> dict[str, File]:
    items = source.get("items")
    if not items:
        return {key: File(value, mode) for key, value in data.items()}
    files: dict[str, File] = {}
    for item in items:
        value = data.get(item["key"])
        if value is None:
            if source.get("optional"):
                continue
            raise VolumeError(missing.format(key=item["key"]))
        files[item["path"]] = File(value, mode if item.get("mode") is None else item["mode"])
    return files


def downward_files(pod: Pod, items: list[dict[str, Any]], sources: Sources, *, mode: int) -> dict[str, File]:
    """Return the files of a downwardAPI volume. Raises VolumeError for a field that is not there."""
    files: dict[str, File] = {}
    for item in items:
        try:
            if item.get("fieldRef"):
                text = field_value(pod, item["fieldRef"]["fieldPath"], sources)
            else:
                text = resource_value(pod, item["resourceFieldRef"], sources.allocatable)
        except ConfigError as error:
            raise VolumeError(str(error)) from error
        files[item["path"]] = File(text.encode(), mode if item.get("mode") is None else item["mode"])
    return files
