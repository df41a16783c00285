"""Claims that wait for their first consumer are told which node it goes to, so that their volume is made or chosen there."""

from __future__ import annotations

from typing import Any

import orjson

from korch.api.errors import NotFound
from korch.api.gvk import ResourceRef
from korch.client.protocol import Client

PERSISTENT_VOLUME_CLAIMS = ResourceRef("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
STORAGE_CLASSES = ResourceRef("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)
SELECTED_NODE = "volume.kubernetes.io/selected-node"


def may_wait_for_consumer(pod: bytes) -> bool:
    """Return whether the pod has claims, one of which may wait for its first consumer."""
    return b'"persistentVolumeClaim"' in pod or b'"ephemeral"' in pod


async def select_node(client: Client, pod: bytes, node: str) -> None:
    """Write the node into each of the pod's claims that has no volume and whose class waits for the first consumer.

    Raises ApiError, OSError. Mirrors the VolumeBinding plugin's PreBind, without waiting for the volumes: the node's agent does."""
    if not may_wait_for_consumer(pod):
        return
    read = orjson.loads(pod)
    for name in _claims(read):
        namespace = read["metadata"].get("namespace", "")
        try:
            claim = orjson.loads(await client.get(PERSISTENT_VOLUME_CLAIMS, name, namespace=namespace))
            spec = claim.get("spec", {})
            if spec.get("volumeName") or not spec.get("storageClassName"):
                continue
            storage_class = orjson.loads(await client.get(STORAGE_CLASSES, spec["storageClassName"]))
        except NotFound:
            continue
        if storage_class.get("volumeBindingMode") == "WaitForFirstConsumer":
            patch = {"metadata": {"uid": claim["metadata"]["uid"], "annotations": {SELECTED_NODE: node}}}
            await client.patch(PERSISTENT_VOLUME_CLAIMS, name, patch, namespace=namespace)


def _claims(pod: dict[str, Any]) -> list[str]:
    names: list[str] = []
    for volume in pod["spec"].get("volumes", []):
        if "persistentVolumeClaim" in volume:
            names.append(volume["persistentVolumeClaim"]["claimName"])
        elif "ephemeral" in volume:
            names.append(f"{pod['metadata']['name']}-{volume['name']}")
    return names
