"""Making pods from a pod template. Mirrors upstream pkg/controller/controller_utils.go, GetPodFromTemplate."""

from __future__ import annotations

from typing import Any

from korch.api.meta import name_of, namespace_of

Object = dict[str, Any]


def pod_from_template(template: Object, owner: Object, owner_reference: Object) -> Object:
    """Return a new pod of `owner`; the server completes its name. The template's parts are shared with the result, not copied."""
    meta = template.get("metadata") or {}
    metadata: Object = {
        "generateName": f"{name_of(owner)}-",
        "namespace": namespace_of(owner),
        "labels": dict(meta.get("labels") or {}),
        "annotations": dict(meta.get("annotations") or {}),
        "ownerReferences": [owner_reference],
    }
    if meta.get("finalizers"):
        metadata["finalizers"] = list(meta["finalizers"])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": dict(template.get("spec") or {})}
