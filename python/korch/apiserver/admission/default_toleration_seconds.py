"""DefaultTolerationSeconds: a pod stays five minutes on a node that is not ready or unreachable, unless it says otherwise.

Mirrors plugin/pkg/admission/defaulttolerationseconds/admission.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from korch.apiserver.admission import AdmissionRequest

if TYPE_CHECKING:
    from korch.apiserver.pod_recipes import PodFacts

Object = dict[str, Any]

TOLERATION_S_DEFAULT = 300
_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


class DefaultTolerationSeconds:
    """Adds the two tolerations."""

    def __init__(self, toleration_s: int = TOLERATION_S_DEFAULT) -> None:
        self._toleration_s = toleration_s

    def admit(self, request: AdmissionRequest) -> None:
        """Change pods on create and update."""
        if request.operation == "DELETE" or not request.concerns("", "pods") or request.obj is None:
            return
        spec = request.obj.setdefault("spec", {})
        tolerations: list[Object] = spec.get("tolerations") or []
        missing = [taint for taint in _TAINTS if not any(_tolerates(one, taint) for one in tolerations)]
        if missing:
            spec["tolerations"] = tolerations + [
                {"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": self._toleration_s} for taint in missing
            ]

    def pod_footing(self, pod: PodFacts) -> object | None:
        """Return the tolerations' length, on which alone they depend."""
        return self._toleration_s


def _tolerates(toleration: Object, taint: str) -> bool:
    return (toleration.get("key") or "") in ("", taint) and (toleration.get("effect") or "") in ("", "NoExecute")
