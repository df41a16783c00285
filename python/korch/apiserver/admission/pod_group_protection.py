"""PodGroupProtection: new pod groups get the finalizer that keeps them while they have pods.

The controller of the same name takes it away. Mirrors plugin/pkg/admission/scheduling/podgroupprotection.
"""

from __future__ import annotations

from korch.apiserver.admission import AdmissionRequest

FINALIZER = "scheduling.k8s.io/podgroup-protection"


class PodGroupProtection:
    """Changes new pod groups."""

    def admit(self, request: AdmissionRequest) -> None:
        """Add the finalizer."""
        if request.operation != "CREATE" or request.obj is None or not request.concerns("scheduling.k8s.io", "podgroups"):
            return
        metadata = request.obj["metadata"]
        if FINALIZER not in (metadata.get("finalizers") or []):
            metadata["finalizers"] = [*(metadata.get("finalizers") or []), FINALIZER]
