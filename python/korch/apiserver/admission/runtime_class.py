"""RuntimeClass: a pod gets the overhead and the places of the class that it names.

Mirrors plugin/pkg/admission/runtimeclass/admission.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from korch.api.errors import Forbidden
from korch.api.meta import at
from korch.apiserver.admission import AdmissionRequest
from korch.apiserver.records import Records
from korch.resources.nodes import runtimeclass

if TYPE_CHECKING:
    from korch.apiserver.pod_recipes import PodFacts

Object = dict[str, Any]


class RuntimeClass:
    """Resolves `spec.runtimeClassName` of new pods."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def admit(self, request: AdmissionRequest) -> None:
        """Fill in overhead, node selector and tolerations; raise Forbidden for an unknown class or for another overhead."""
        if request.operation != "CREATE" or not request.concerns("", "pods") or request.obj is None:
            return
        spec = request.obj.setdefault("spec", {})
        name, overhead = spec.get("runtimeClassName"), spec.get("overhead")
        if name is None:
            if overhead:
                raise _refusal(request, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
            return
        found = self._records.read(runtimeclass.RESOURCE, "", name)
        if found is None:
            raise _refusal(request, f'pod rejected: RuntimeClass "{name}" not found')
        runtime_class = orjson.loads(found[0])
        fixed = at(runtime_class, "overhead", "podFixed")
        if overhead and overhead != fixed:
            why = (
                "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
                if fixed
                else ("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
            )
            raise _refusal(request, why)
        if fixed:
            spec["overhead"] = fixed
        _place(request, spec, runtime_class.get("scheduling") or {})

    def pod_footing(self, pod: PodFacts) -> object | None:
        """Return the version of the pod's class, if it names one."""
        if not pod.runtime_class:
            return True
        found = self._records.read(runtimeclass.RESOURCE, "", pod.runtime_class)
        return None if found is None else found[1]


def _place(request: AdmissionRequest, spec: Object, scheduling: Object) -> None:
    wanted, own = scheduling.get("nodeSelector") or {}, spec.get("nodeSelector") or {}
    conflicts = [key for key, value in wanted.items() if own.get(key, value) != value]
    if conflicts:
        key = conflicts[0]
        raise _refusal(
            request, f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted[key]}; pod.spec.nodeSelector[{key}] = {own[key]}"
        )
    if wanted:
        spec["nodeSelector"] = {**own, **wanted}
    for toleration in scheduling.get("tolerations") or ():
        if toleration not in (spec.get("tolerations") or []):
            spec["tolerations"] = [*(spec.get("tolerations") or []), toleration]


def _refusal(request: AdmissionRequest, why: str) -> Forbidden:
    return Forbidden("", "pods", request.name, why)
