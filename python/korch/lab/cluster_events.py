"""What a change of a simulated cluster means for the pods that wait, by the plugins that rejected them.

Coarser than the hints by which the scheduler itself wakes pods, and decided without looking at any pod: a simulation knows only of which
kind its pods are.
"""

from __future__ import annotations

import enum

import msgspec

from korch.client.projections import Meta, decoder


class Taint(msgspec.Struct, frozen=True):
    """One entry of spec.taints."""

    key: str = ""
    value: str = ""
    effect: str = ""


class NodeSpec(msgspec.Struct, frozen=True):
    """The part of a node's spec that keeps pods out."""

    unschedulable: bool = False
    taints: list[Taint] = []


class NodeStatus(msgspec.Struct, frozen=True):
    """What a node has to give."""

    allocatable: dict[str, str | int | float] = {}
    declaredFeatures: list[str] = []


class NodeView(Meta, frozen=True):
    """A node as far as its changes can make waiting pods schedulable."""

    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


decode_node = decoder(NodeView)


class ClusterEvent(enum.Enum):
    """A change of the cluster that can make pods schedulable; the value names the plugins whose rejection it can cure (None: all)."""

    NODE_ADD = None
    NODE_ALLOCATABLE = frozenset({"NodeResourcesFit"})
    NODE_LABEL = frozenset({"NodeAffinity", "PodTopologySpread", "InterPodAffinity", "VolumeBinding", "VolumeZone"})
    NODE_TAINT = frozenset({"TaintToleration", "NodeUnschedulable", "PodTopologySpread"})
    NODE_FEATURES = frozenset({"NodeDeclaredFeatures"})
    POD_GONE = frozenset(
        {"NodeResourcesFit", "NodePorts", "PodTopologySpread", "InterPodAffinity", "VolumeRestrictions", "NodeVolumeLimits"}
    )
    POD_BOUND = frozenset({"PodTopologySpread", "InterPodAffinity"})
    STORAGE = frozenset({"VolumeBinding", "VolumeZone", "VolumeRestrictions", "NodeVolumeLimits"})

    def may_help(self, plugins: frozenset[str]) -> bool:
        """Return whether a pod that these plugins rejected (none: something else went wrong) deserves another try."""
        return self.value is None or not plugins or not self.value.isdisjoint(plugins)


def node_events(old: NodeView | None, new: NodeView) -> list[ClusterEvent]:
    """Return what it means for waiting pods that a node came (`old` is None) or changed."""
    if old is None:
        return [ClusterEvent.NODE_ADD]
    changes = {
        ClusterEvent.NODE_ALLOCATABLE: old.status.allocatable != new.status.allocatable,
        ClusterEvent.NODE_FEATURES: old.status.declaredFeatures != new.status.declaredFeatures,
        ClusterEvent.NODE_LABEL: old.labels != new.labels,
        ClusterEvent.NODE_TAINT: old.spec != new.spec,
    }
    return [event for event, has_changed in changes.items() if has_changed]
