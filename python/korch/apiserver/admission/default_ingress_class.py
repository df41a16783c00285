"""DefaultIngressClass: an ingress that names no class gets the cluster's default one, the newest if there are several.

Mirrors plugin/pkg/admission/network/defaultingressclass.
"""

from __future__ import annotations

import orjson

from korch.api.meta import annotations_of, at
from korch.apiserver.admission import AdmissionRequest
from korch.apiserver.records import Records
from korch.resources.networking import ingressclass

_DEFAULT = "ingressclass.kubernetes.io/is-default-class"
_OLD_ANNOTATION = "kubernetes.io/ingress.class"


class DefaultIngressClass:
    """Fills in new ingresses."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def admit(self, request: AdmissionRequest) -> None:
        """Set spec.ingressClassName of a new ingress that has neither field nor annotation."""
        if request.operation != "CREATE" or not request.concerns("networking.k8s.io", "ingresses") or request.obj is None:
            return
        spec = request.obj.setdefault("spec", {})
        if spec.get("ingressClassName") is not None or _OLD_ANNOTATION in annotations_of(request.obj):
            return
        found = [orjson.loads(value) for value in self._records.storage.range(ingressclass.RESOURCE.key_prefix()).values]
        defaults = sorted(
            (one for one in found if annotations_of(one).get(_DEFAULT) == "true"), key=lambda one: at(one, "metadata", "name")
        )
        if defaults:
            spec["ingressClassName"] = max(defaults, key=lambda one: at(one, "metadata", "creationTimestamp") or "")["metadata"]["name"]
