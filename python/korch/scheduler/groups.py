"""The pod groups that the scheduler knows, and how many pods each has. Mirrors kube-scheduler's PodGroupManager.

A group is one object of scheduling.k8s.io; its pods name it in spec.schedulingGroup. Counted are pods that have not ended, whoever
schedules them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from korch.client.projections import Meta, decoder
from korch.scheduler.pods import PodView

INITIALLY_SCHEDULED = "PodGroupInitiallyScheduled"


class Gang(msgspec.Struct, frozen=True):
    """schedulingPolicy.gang: all or nothing."""

    minCount: int = 1


class SchedulingPolicy(msgspec.Struct, frozen=True):
    """Without `gang` one pod placed is enough."""

    gang: Gang | None = None


class DisruptionMode(msgspec.Struct, frozen=True):
    """`all` is there when its pods can only be disrupted together."""

    all: dict[str, Any] | None = None


class PodGroupSpec(msgspec.Struct, frozen=True):
    """What a group says of its scheduling."""

    schedulingPolicy: SchedulingPolicy = SchedulingPolicy()
    disruptionMode: DisruptionMode | None = None
    priority: int | None = None


class GroupCondition(msgspec.Struct, frozen=True):
    """One entry of status.conditions."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    observedGeneration: int = 0
    lastTransitionTime: str = ""


class PodGroupStatus(msgspec.Struct, frozen=True):
    """What the scheduler has written."""

    conditions: list[GroupCondition] = []


class PodGroupView(Meta, frozen=True):
    """A PodGroup as the scheduler sees it."""

    spec: PodGroupSpec = PodGroupSpec()
    status: PodGroupStatus = PodGroupStatus()

    @property
    def priority(self) -> int:
        """Return its priority, 0 when it has none."""
        return self.spec.priority or 0

    @property
    def min_count(self) -> int:
        """Return how many of its pods must be placed for any of them to be."""
        gang = self.spec.schedulingPolicy.gang
        return gang.minCount if gang is not None else 1

    @property
    def leaves_as_one(self) -> bool:
        """Return whether its pods can only be disrupted together."""
        mode = self.spec.disruptionMode
        return mode is not None and mode.all is not None


decode_pod_group = decoder(PodGroupView)


class PodGroups:
    """Groups by `namespace/name`, and the pods of each. `changed` is called with the key of a group that, or whose pods, changed."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._groups: dict[str, PodGroupView] = {}
        self._pods: dict[str, dict[str, PodView]] = {}

    def get(self, key: str) -> PodGroupView | None:
        """Return a group, or None."""
        return self._groups.get(key)

    def upsert(self, group: PodGroupView) -> None:
        """A group came or changed."""
        self._groups[group.key] = group
        self._changed(group.key)

    def remove(self, group: PodGroupView) -> None:
        """A group is gone."""
        self._groups.pop(group.key, None)
        self._changed(group.key)

    def pod_changed(self, pod: PodView) -> None:
        """A pod came or changed."""
        key = pod.group_key
        if not key:
            return
        if pod.is_terminal:
            self.pod_gone(pod)
            return
        pods = self._pods.setdefault(key, {})
        is_new = pod.key not in pods
        pods[pod.key] = pod
        if is_new:
            self._changed(key)

    def pod_gone(self, pod: PodView) -> None:
        """A pod was deleted or has ended."""
        pods = self._pods.get(pod.group_key)
        if pods is None or pods.pop(pod.key, None) is None:
            return
        if not pods:
            del self._pods[pod.group_key]
        self._changed(pod.group_key)

    def placed(self, key: str) -> list[PodView]:
        """Return the pods of a group that have a node."""
        return [pod for pod in self._pods.get(key, {}).values() if pod.spec.nodeName]

    def is_complete(self, key: str) -> bool:
        """Return whether the group exists and has as many pods as it needs."""
        group = self._groups.get(key)
        if group is None:
            return False
        return group.spec.schedulingPolicy.gang is None or len(self._pods.get(key, {})) >= group.min_count

    def priority(self, key: str) -> int:
        """Return the group's priority, 0 when it does not exist."""
        group = self._groups.get(key)
        return group.priority if group is not None else 0

    def units(self, assumed: Iterable[PodView]) -> list[tuple[list[str], int]]:
        """Return the pods that can only be disrupted together, those included that are about to be bound, with their group's priority."""
        about_to_be: dict[str, set[str]] = {}
        for pod in assumed:
            about_to_be.setdefault(pod.group_key, set()).add(pod.key)
        found: list[tuple[list[str], int]] = []
        for key, group in self._groups.items():
            if group.leaves_as_one:
                keys = {pod.key for pod in self.placed(key)} | about_to_be.get(key, set())
                if keys:
                    found.append((sorted(keys), group.priority))
        return found
