"""NamespaceLifecycle: nothing is created in a namespace that is missing or ending, and the system's namespaces stay.

Mirrors plugin/namespace/lifecycle/admission.go.
"""

from __future__ import annotations

from korch.api.errors import ApiError, Forbidden, NotFound
from korch.api.meta import at
from korch.apiserver.admission import AdmissionRequest
from korch.apiserver.records import Records, load
from korch.resources.resource import Catalogue, Resource

IMMORTAL_NAMESPACES = ("default", "kube-system", "kube-public")


class NamespaceLifecycle:
    """Looks at the namespace of every write."""

    def __init__(self, records: Records, catalogue: Catalogue) -> None:
        self._records = records
        self._catalogue = catalogue

    def admit(self, request: AdmissionRequest) -> None:
        """Raise NotFound for a missing namespace, Forbidden for one that is ending or may not be deleted."""
        if request.operation == "DELETE":
            if request.concerns("", "namespaces") and request.name in IMMORTAL_NAMESPACES:
                raise Forbidden("", "namespaces", request.name, "this namespace may not be deleted")
            return
        if request.operation != "CREATE" or not request.resource.namespaced or not request.namespace:
            return
        if request.resource.is_virtual and request.resource.group == "authorization.k8s.io":
            return
        namespaces = self._catalogue.get("", "v1", "namespaces")
        if namespaces is None:
            return
        found = self._records.storage.get(namespaces.key("", request.namespace))
        if found is None:
            raise NotFound("", "namespaces", request.namespace)
        # Most namespaces carry no trace of deletion, so most writes decode nothing here.
        if b'"deletionTimestamp"' in found.value:
            namespace = load(namespaces, found.value)
            if at(namespace, "metadata", "deletionTimestamp"):
                raise _terminating(request.resource, request)


def _terminating(resource: Resource, request: AdmissionRequest) -> ApiError:
    name = request.name or (request.obj or {}).get("metadata", {}).get("generateName", "")
    why = f"unable to create new content in namespace {request.namespace} because it is being terminated"
    error = Forbidden(resource.group, resource.plural, name, why)
    error.details["causes"] = [
        {"reason": "NamespaceTerminating", "message": f"namespace {request.namespace} is being terminated", "field": "metadata.namespace"}
    ]
    return error
