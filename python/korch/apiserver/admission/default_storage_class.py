"""DefaultStorageClass: a claim that names no class gets the cluster's default one, the newest if there are several.

Mirrors plugin/pkg/admission/storage/storageclass/setdefault.
"""

from __future__ import annotations

import orjson

from korch.api.meta import annotations_of, at
from korch.api.volumes import CLASS_ANNOTATION
from korch.apiserver.admission import AdmissionRequest
from korch.apiserver.records import Records
from korch.resources.storage import storageclass


class DefaultStorageClass:
    """Fills in new claims."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def admit(self, request: AdmissionRequest) -> None:
        """Set spec.storageClassName of a new claim that says nothing about it ("" says: none)."""
        if request.operation != "CREATE" or not request.concerns("", "persistentvolumeclaims") or request.obj is None:
            return
        spec = request.obj.setdefault("spec", {})
        if spec.get("storageClassName") is not None or CLASS_ANNOTATION in annotations_of(request.obj):
            return
        found = [orjson.loads(value) for value in self._records.storage.range(storageclass.RESOURCE.key_prefix()).values]
        defaults = sorted((one for one in found if storageclass.is_default(one)), key=lambda one: at(one, "metadata", "name"))
        if defaults:
            newest = max(defaults, key=lambda one: at(one, "metadata", "creationTimestamp") or "")
            spec["storageClassName"] = newest["metadata"]["name"]
