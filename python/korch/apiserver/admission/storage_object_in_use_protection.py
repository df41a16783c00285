"""StorageObjectInUseProtection: new claims and volumes get the finalizer that keeps them while somebody uses them.

The protection controllers take it away. Mirrors plugin/pkg/admission/storage/storageobjectinuseprotection.
"""

from __future__ import annotations

from korch.apiserver.admission import AdmissionRequest

FINALIZERS = {
    "persistentvolumeclaims": "kubernetes.io/pvc-protection",
    "persistentvolumes": "kubernetes.io/pv-protection",
}


class StorageObjectInUseProtection:
    """Changes new claims and volumes."""

    def admit(self, request: AdmissionRequest) -> None:
        """Add the finalizer."""
        finalizer = FINALIZERS.get(request.resource.plural)
        if request.operation != "CREATE" or finalizer is None or request.resource.group or request.subresource or request.obj is None:
            return
        metadata = request.obj["metadata"]
        if finalizer not in (metadata.get("finalizers") or []):
            metadata["finalizers"] = [*(metadata.get("finalizers") or []), finalizer]
