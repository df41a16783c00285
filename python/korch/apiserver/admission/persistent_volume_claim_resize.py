"""PersistentVolumeClaimResize: a claim grows only when its class allows that.

Mirrors plugin/pkg/admission/storage/persistentvolume/resize.
"""

from __future__ import annotations

import orjson

from korch.api import quantity
from korch.api.errors import Forbidden
from korch.api.meta import at
from korch.api.volumes import class_of
from korch.apiserver.admission import AdmissionRequest
from korch.apiserver.records import Records
from korch.resources.storage import storageclass


class PersistentVolumeClaimResize:
    """Looks at updates of claims."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def admit(self, request: AdmissionRequest) -> None:
        """Raise Forbidden when a claim grows that must not."""
        if request.operation != "UPDATE" or not request.concerns("", "persistentvolumeclaims") or not request.obj or not request.old:
            return
        path = ("spec", "resources", "requests", "storage")
        new, old = at(request.obj, *path), at(request.old, *path)
        try:
            grows = new is not None and old is not None and quantity.milli(new) > quantity.milli(old)
        except ValueError:
            return
        if not grows:
            return
        if at(request.old, "status", "phase") != "Bound":
            raise Forbidden("", "persistentvolumeclaims", request.name, "Only bound persistent volume claims can be expanded")
        name = class_of(request.obj)
        found = self._records.read(storageclass.RESOURCE, "", name) if name else None
        if found is None or not orjson.loads(found[0]).get("allowVolumeExpansion"):
            why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
            raise Forbidden("", "persistentvolumeclaims", request.name, why)
