"""Priority: a pod's class becomes a number. Without PriorityClass objects only the two of the system are known.

Mirrors plugin/pkg/admission/priority/admission.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from korch.api.errors import Forbidden
from korch.api.meta import at
from korch.apiserver.admission import AdmissionRequest
from korch.apiserver.admission.configurations import Configurations
from korch.apiserver.records import Records
from korch.resources.resource import Catalogue, Object
from korch.resources.scheduling.priorityclass import SYSTEM_CLASSES

if TYPE_CHECKING:
    from korch.apiserver.pod_recipes import PodFacts

_DEFAULT_PREEMPTION = "PreemptLowerPriority"


class Priority:
    """Resolves `spec.priorityClassName` of new pods and pod groups."""

    def __init__(self, records: Records, catalogue: Catalogue, *, ranks_groups: bool = False) -> None:
        """`ranks_groups`: PodGroups have a priority too (the gate GenericWorkload)."""
        self._ranks_groups = ranks_groups
        self._classes = Configurations(records.storage, catalogue, "scheduling.k8s.io", "priorityclasses")

    def admit(self, request: AdmissionRequest) -> None:
        """Fill in `spec.priority` and (of pods) `spec.preemptionPolicy`; raise Forbidden for an unknown class or another number."""
        if request.operation != "CREATE" or request.obj is None:
            return
        if self._ranks_groups and request.concerns("scheduling.k8s.io", "podgroups"):
            self._rank_group(request.obj)
        if not request.concerns("", "pods"):
            return
        pod = request.obj
        spec = pod.setdefault("spec", {})
        name = at(pod, "metadata", "name") or at(pod, "metadata", "generateName") or ""
        class_name = spec.get("priorityClassName") or ""
        value, policy = self._resolve(class_name)
        if value is None:
            raise Forbidden("", "pods", name, f"no PriorityClass with name {class_name} was found")
        given = spec.get("priority")
        if given is not None and given != value:
            why = (
                f"the integer value of priority ({given}) must not be provided in pod spec; "
                f"priority admission controller computed {value} from the given PriorityClass name"
            )
            raise Forbidden("", "pods", name, why)
        spec["priority"] = value
        spec.setdefault("preemptionPolicy", policy)

    def pod_footing(self, pod: PodFacts) -> object | None:
        """Return all classes."""
        return self._classes.all()

    def _rank_group(self, group: Object) -> None:
        spec = group.setdefault("spec", {})
        name = at(group, "metadata", "name") or at(group, "metadata", "generateName") or ""
        class_name = spec.get("priorityClassName") or ""
        value, _ = self._resolve(class_name)
        if value is None:
            raise Forbidden("scheduling.k8s.io", "podgroups", name, f"no PriorityClass with name {class_name} was found")
        given = spec.get("priority")
        if given is not None and given != value:
            why = (
                f"priority set in the pod group ({given}) must match the priority computed ({value}) "
                "based on the priority class set in the spec"
            )
            raise Forbidden("scheduling.k8s.io", "podgroups", name, why)
        spec["priority"] = value

    def _resolve(self, class_name: str) -> tuple[int | None, str]:
        if not class_name:
            return self._default()
        if class_name in SYSTEM_CLASSES:
            return SYSTEM_CLASSES[class_name], _DEFAULT_PREEMPTION
        priority_class = self._classes.get(class_name)
        if priority_class is None:
            return None, ""
        return priority_class.get("value") or 0, priority_class.get("preemptionPolicy") or _DEFAULT_PREEMPTION

    def _default(self) -> tuple[int, str]:
        """Return what pods without a class get: the global default of lowest value, or 0."""
        defaults = [one for one in self._classes.all() if one.get("globalDefault")]
        if not defaults:
            return 0, _DEFAULT_PREEMPTION
        chosen = min(defaults, key=lambda one: one.get("value") or 0)
        return chosen.get("value") or 0, chosen.get("preemptionPolicy") or _DEFAULT_PREEMPTION
