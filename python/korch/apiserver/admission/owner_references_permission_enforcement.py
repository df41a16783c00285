"""OwnerReferencesPermissionEnforcement: who sets blockOwnerDeletion must be allowed to update the owner's finalizers.

Off unless asked for, as upstream. Mirrors plugin/pkg/admission/gc/gc_admission.go.
"""

from __future__ import annotations

from typing import Any

from korch.api.errors import Forbidden
from korch.api.meta import at
from korch.apiserver.admission import AdmissionRequest
from korch.apiserver.identity import Authorizer
from korch.apiserver.request_info import RequestInfo
from korch.resources.resource import Catalogue

Object = dict[str, Any]


class OwnerReferencesPermissionEnforcement:
    """Looks at every write that adds or changes owners."""

    def __init__(self, authorizer: Authorizer, catalogue: Catalogue) -> None:
        self._authorizer = authorizer
        self._catalogue = catalogue

    def admit(self, request: AdmissionRequest) -> None:
        """Raise Forbidden for a blocking reference to an owner whose finalizers the user may not update."""
        if request.obj is None or request.subresource or request.operation == "DELETE":
            return
        before = [_identity(one) for one in at(request.old, "metadata", "ownerReferences") or () if one.get("blockOwnerDeletion")]
        for reference in at(request.obj, "metadata", "ownerReferences") or ():
            if not reference.get("blockOwnerDeletion") or _identity(reference) in before:
                continue
            group, _, version = (reference.get("apiVersion") or "").rpartition("/")
            owner = self._catalogue.by_kind(group, version, reference.get("kind") or "")
            if owner is None:
                continue
            asked = RequestInfo(
                verb="update",
                path="",
                is_resource=True,
                group=group,
                version=version,
                namespace=request.namespace if owner.namespaced else "",
                resource=owner.plural,
                subresource="finalizers",
                name=reference.get("name") or "",
            )
            if not self._authorizer.authorize(request.user, asked).is_allowed:
                why = "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>"
                raise Forbidden(request.resource.group, request.resource.plural, request.name, why)


def _identity(reference: Object) -> tuple[str, str]:
    return reference.get("uid") or "", reference.get("name") or ""
