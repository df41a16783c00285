"""Decides the pods of a group together: one after the other, each seeing those before it, and all of it is taken back if too few fit.

With enough of them placed, those go to be bound and the others try again; with too few, room is sought for the group as a whole, by
removing less important pods anywhere. Mirrors kube-scheduler's pod group scheduling cycle with the plugin GangScheduling.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from korch._core import native
from korch.scheduler.extenders import ExtenderError
from korch.scheduler.groups import PodGroupView
from korch.scheduler.plugins import PluginError
from korch.scheduler.pods import PodView
from korch.scheduler.queue import QueuedPod

UNSCHEDULABLE = "pod group is unschedulable"

Decide = Callable[[QueuedPod], Awaitable[native.Decision | None]]


class GroupError(Exception):
    """The group cannot be tried as it is; the words are upstream's."""


@dataclass(slots=True)
class Outcome:
    """What became of a group. `decisions` are of the pods that were tried, in order; with `is_placed` the winners among them are
    assumed, else nobody is. `message` is why not, or with `error` what failed."""

    is_placed: bool = False
    error: str = ""
    message: str = ""
    decisions: list[tuple[QueuedPod, native.Decision]] = field(default_factory=list[tuple[QueuedPod, native.Decision]])
    # What the pods after the last one that was tried are told.
    untried: str = ""
    # Whose own failure it was that ended everything.
    failed: QueuedPod | None = None


def validate(group: PodGroupView, pods: Sequence[PodView]) -> None:
    """Raise GroupError unless all pods, placed ones included, agree with each other and the group. Mirrors validatePodGroup."""
    first = pods[0].spec
    whole = "all pods in a single pod group should have the same"
    for pod in pods:
        spec = pod.spec
        if spec.schedulerName != first.schedulerName:
            raise GroupError(f'{whole} .spec.schedulerName set, got: "{spec.schedulerName}" and "{first.schedulerName}"')
        if spec.priority != group.priority:
            raise GroupError(f"{whole} priority as the pod group's priority, got {spec.priority} and {group.priority}")
        if spec.preemptionPolicy != first.preemptionPolicy:
            raise GroupError(f"{whole} preemption policy, got {spec.preemptionPolicy} and {first.preemptionPolicy}")


def obstacle(min_count: int, placed: int, remaining: int) -> tuple[str, bool]:
    """Return why so many placed pods are not enough, and whether the remaining ones can still help; "" when they are enough."""
    counts = f"{placed} scheduled, {remaining} remaining"
    if placed + remaining < min_count:
        return f"minCount ({min_count}) cannot be satisfied: {counts}", False
    if placed < min_count:
        return f"minCount ({min_count}) is not yet satisfied: {counts}", True
    return "", True


async def run(group: PodGroupView, members: Sequence[QueuedPod], placed: int, decide: Decide) -> Outcome:
    """Try the pods in order. `placed` of the group have nodes already; `decide` assumes a pod that has one. Nobody is taken back."""
    outcome = Outcome()
    remaining, any_placed = len(members), False
    words, has_hope = obstacle(group.min_count, placed, remaining)
    if not has_hope:
        outcome.message = outcome.untried = f"{UNSCHEDULABLE}, {words}"
        return outcome
    for queued in members:
        try:
            decision = await decide(queued)
        except (PluginError, ExtenderError) as error:
            outcome.error, outcome.failed = f"failed to schedule other pod from a pod group: {error}", queued
            outcome.message = str(error)
            return outcome
        remaining -= 1
        if decision is not None:
            outcome.decisions.append((queued, decision))
            placed += bool(decision.node)
            any_placed = any_placed or bool(decision.node)
        words, has_hope = obstacle(group.min_count, placed, remaining)
        if not has_hope:
            outcome.message = outcome.untried = words
            return outcome
    if words:
        outcome.message = f"{UNSCHEDULABLE}, {words}"
    elif not any_placed:
        outcome.message = UNSCHEDULABLE
    outcome.is_placed = not outcome.message
    return outcome


def preemption_words(group: PodGroupView, room: native.Room) -> str:
    """Return what came of making room, in upstream's words."""
    match room.outcome:
        case "not eligible":
            words = "not eligible due to preemptionPolicy=Never."
        case "awaited":
            words = "ongoing preemption on nominated nodes"
        case "no victims":
            words = "No preemption victims found for incoming preemptor"
        case "too little":
            why, has_hope = obstacle(group.min_count, room.placed, room.remaining)
            words = ", ".join(one for one in (UNSCHEDULABLE if has_hope else "", why) if one)
        case _:
            words = f"found a placement for podgroup, preempting {len(room.victims)} victims"
    return f"pod group preemption: {words}"
