"""What the scheduler's Python half reads of pods and nodes; the rest goes to the engine as bytes."""

from __future__ import annotations

import msgspec

from korch.client.projections import Meta, decoder


class SchedulingGate(msgspec.Struct, frozen=True):
    """One entry of spec.schedulingGates."""

    name: str = ""


class Condition(msgspec.Struct, frozen=True):
    """One entry of status.conditions, as far as the scheduler writes it."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    lastTransitionTime: str = ""


class SchedulingGroup(msgspec.Struct, frozen=True):
    """spec.schedulingGroup: the pods that it is scheduled with."""

    podGroupName: str | None = None


class PodSpec(msgspec.Struct, frozen=True):
    """The part of spec that decides whether and when a pod is tried."""

    nodeName: str = ""
    schedulerName: str = "default-scheduler"
    priority: int = 0
    schedulingGates: list[SchedulingGate] = []
    schedulingGroup: SchedulingGroup | None = None
    preemptionPolicy: str = "PreemptLowerPriority"


class ClaimStatus(msgspec.Struct, frozen=True):
    """One entry of status.resourceClaimStatuses: which claim was made from a template."""

    name: str = ""
    resourceClaimName: str | None = None


class PodStatus(msgspec.Struct, frozen=True):
    """The part of status that says whether a pod has ended and what the scheduler said about it last."""

    phase: str = ""
    nominatedNodeName: str = ""
    resourceClaimStatuses: list[ClaimStatus] = []
    conditions: list[Condition] = []


class PodView(Meta, frozen=True):
    """A pod as the queue sees it."""

    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def is_terminal(self) -> bool:
        """Return whether it ran to its end, so that its resources are free."""
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def holds_node(self) -> bool:
        """Return whether it takes room on a node."""
        return bool(self.spec.nodeName) and not self.is_terminal

    @property
    def is_gated(self) -> bool:
        """Return whether somebody still holds it back (spec.schedulingGates)."""
        return bool(self.spec.schedulingGates)

    @property
    def group_key(self) -> str:
        """Return `namespace/name` of its pod group, or ""."""
        group = self.spec.schedulingGroup
        return f"{self.namespace}/{group.podGroupName}" if group is not None and group.podGroupName else ""

    def condition(self, condition_type: str) -> Condition | None:
        """Return the condition of this type, or None."""
        return next((one for one in self.status.conditions if one.type == condition_type), None)


decode_pod = decoder(PodView)
