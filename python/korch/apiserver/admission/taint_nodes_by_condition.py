"""TaintNodesByCondition: a new node takes no pods until it has been seen ready.

Mirrors plugin/pkg/admission/nodetaint/admission.go.
"""

from __future__ import annotations

from korch.apiserver.admission import AdmissionRequest

_TAINT = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}


class TaintNodesByCondition:
    """Adds a taint to new nodes; the node lifecycle controller takes it away."""

    def admit(self, request: AdmissionRequest) -> None:
        """Change a new node."""
        if request.operation != "CREATE" or not request.concerns("", "nodes") or request.obj is None:
            return
        spec = request.obj.setdefault("spec", {})
        taints = spec.get("taints") or []
        if not any(one.get("key") == _TAINT["key"] and one.get("effect") == _TAINT["effect"] for one in taints):
            spec["taints"] = [*taints, dict(_TAINT)]
