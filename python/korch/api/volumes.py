"""What persistent volumes and claims say about themselves."""

from __future__ import annotations

from typing import Any

from korch.api.meta import annotations_of, at

CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"


def class_of(obj: dict[str, Any]) -> str:
    """Return the storage class of a volume or claim, from the annotation that came before the field if that is set."""
    beta = annotations_of(obj).get(CLASS_ANNOTATION)
    return beta if beta is not None else at(obj, "spec", "storageClassName") or ""
