"""Keeps one pod of a DaemonSet on every node it belongs on, and replaces them node by node when its template changes.

Watches DaemonSets, pods, nodes and ControllerRevisions; writes pods, ControllerRevisions and DaemonSet status. A pod is tied to its node
by a required node affinity and bound by the scheduler. Invariants: at most one pod a node beside one that is being replaced (two while
surging); a rolling update makes no more than maxUnavailable nodes unavailable on its own account.
Mirrors upstream pkg/controller/daemon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from korch.api.errors import ApiError
from korch.api.gvk import CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS
from korch.api.meta import at, is_deleting, key_of, labels_of, name_of, uid_of
from korch.api.pods import available_in_s, is_available, is_ready, is_terminal, phase_of
from korch.client.controller import Requeue, Watch
from korch.client.informer import Informers
from korch.client.protocol import Client
from korch.controllers.nodes.eligibility import should_run, target_of, tie_to_node, with_daemon_tolerations
from korch.controllers.workload import revisions
from korch.controllers.workload.controller import WorkloadController, decode_object, is_namespace_ending, watch_dependents, watch_own
from korch.controllers.workload.pod_template import pod_from_template
from korch.controllers.workload.rollout import resolve
from korch.controllers.workload.slow_start import slow_start
from korch.runtime.context import Runtime

Object = dict[str, Any]

BURST = 250
FAILED_BACKOFF_S_FIRST, FAILED_BACKOFF_S_MAX = 1.0, 900.0


@dataclass(slots=True)
class Plan:
    """What to do next: nodes that need a pod, pods that must go (with the event that says why, if any)."""

    create: list[str] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)
    failed: list[tuple[Object, str]] = field(default_factory=list)


class DaemonSetController(WorkloadController):
    """Reconciles one DaemonSet a key."""

    name = "daemonset-controller"
    workers = 2
    resource = DAEMON_SETS
    watches = (
        watch_own(DAEMON_SETS),
        watch_dependents(PODS),
        watch_dependents(CONTROLLER_REVISIONS),
        Watch(NODES, keys=None, decode=decode_object),
    )

    def __init__(self, client: Client, informers: Informers, runtime: Runtime) -> None:
        super().__init__(client, informers, runtime)
        self.informer(NODES).on(add=self._node_came, update=self._node_changed, delete=self._node_came)
        # (DaemonSet uid, node) -> (pods seen failed, when the last one was): paces the killing of pods that keep failing.
        self._failures: dict[tuple[str, str], tuple[int, float]] = {}

    def _node_came(self, _node: Object) -> None:
        for one in self.informer(DAEMON_SETS).list():
            self.queue.add(key_of(one))

    def _node_changed(self, old: Object, new: Object) -> None:
        """Heartbeats change nodes all the time; only labels, taints and schedulability decide where daemons run."""
        if labels_of(old) != labels_of(new) or old.get("spec") != new.get("spec"):
            self._node_came(new)

    async def reconcile(self, key: str) -> Requeue | None:
        if (wait_s := self.pacer.wait_s(key)) > 0:
            return Requeue(after_s=wait_s)
        owner = self.informer(DAEMON_SETS).get_by_key(key)
        self.pacer.worked(key, len(self.informer(NODES)) if owner is not None else 0)
        if owner is None:
            return None
        if is_deleting(owner):
            return None
        history = await self.claimed(key, owner, CONTROLLER_REVISIONS)
        current = await revisions.current_revision(self, key, owner, history)
        if current is None:
            return Requeue()
        pods = await self.claimed(key, owner, PODS)
        nodes = {name_of(one): one for one in self.informer(NODES).list()}
        now, hash_now = self.now(), revisions.hash_of(current)
        spec = with_daemon_tolerations(owner["spec"]["template"].get("spec") or {})
        eligible = {name: should_run(spec, node) for name, node in nodes.items()}
        plan = plan_nodes(owner, by_node(pods), eligible)
        if not (plan.create or plan.delete or plan.failed) and at(owner, "spec", "updateStrategy", "type") != "OnDelete":
            plan = plan_update(owner, by_node(pods), eligible, hash_now, now)
        wait_s, failure = await self._perform(key, owner, plan, spec, hash_now, now)
        live = {hash_now} | {labels_of(pod).get(revisions.HASH_LABEL, "") for pod in pods}
        await revisions.clean_up(self, owner, history, live)
        await self.put_status(key, owner, plan_status(owner, by_node(pods), eligible, hash_now, now))
        if failure is not None:
            return Requeue()
        min_ready_s = at(owner, "spec", "minReadySeconds") or 0
        waits = [wait for pod in pods if (wait := available_in_s(pod, min_ready_s, now))]
        if wait_s:
            waits.append(wait_s)
        return Requeue(after_s=min(waits)) if waits else None

    async def _perform(self, key: str, owner: Object, plan: Plan, spec: Object, hash_now: str, now: float) -> tuple[float, ApiError | None]:
        """Carry out the plan. Return (seconds until a failed pod may be killed, why creating failed)."""
        wait_s = await self._kill_failed(key, owner, plan.failed, now)
        await asyncio.gather(*(self.delete_pod(key, owner, pod) for pod in plan.delete[:BURST]))
        names = plan.create[:BURST]

        async def create(number: int) -> Object:
            pod = pod_from_template(owner["spec"]["template"], owner, self.reference_to(owner))
            pod["metadata"]["labels"][revisions.HASH_LABEL] = hash_now
            pod["spec"] = tie_to_node(spec, names[number])
            return await self.create_prepared(key, owner, pod)

        outcome = await slow_start(len(names), create)
        for error in outcome.errors:
            if not isinstance(error, ApiError):
                raise error
            if not is_namespace_ending(error):
                return wait_s, error
        return wait_s, None

    async def _kill_failed(self, key: str, owner: Object, failed: Sequence[tuple[Object, str]], now: float) -> float:
        waits: list[float] = []
        for pod, reason in failed:
            place = (uid_of(owner), target_of(pod))
            count, last = self._failures.get(place, (0, 0.0))
            delay_s = min(FAILED_BACKOFF_S_FIRST * 2 ** min(count - 1, 20), FAILED_BACKOFF_S_MAX) if count else 0.0
            if last + delay_s > now:
                waits.append(last + delay_s - now)
                continue
            if now - last > 2 * FAILED_BACKOFF_S_MAX:
                count = 0
            self._failures[place] = (count + 1, now)
            word = "failed" if reason == "FailedDaemonPod" else "succeeded"
            event_type = "Warning" if reason == "FailedDaemonPod" else "Normal"
            message = f"Found {word} daemon pod {key_of(pod)} on node {target_of(pod)}, will try to kill it"
            self.recorder.event(owner, event_type, reason, message)
            await self.delete_pod(key, owner, pod)
        return min(waits, default=0.0)


def by_node(pods: Sequence[Object]) -> dict[str, list[Object]]:
    """Return the pods by the node they are on or tied to, oldest first."""
    found: dict[str, list[Object]] = {}
    for pod in sorted(pods, key=lambda one: (at(one, "metadata", "creationTimestamp") or "", name_of(one))):
        found.setdefault(target_of(pod), []).append(pod)
    return found


def plan_nodes(owner: Object, pods: Mapping[str, list[Object]], eligible: Mapping[str, tuple[bool, bool]]) -> Plan:
    """Return what every node needs, whatever the template's revision. Mirrors podsShouldBeOnNode."""
    plan = Plan()
    surges = max_surge(owner, 1) > 0
    for node, (wanted, may_stay) in eligible.items():
        here = pods.get(node, [])
        if not may_stay:
            plan.delete += [pod for pod in here if not is_deleting(pod)]
            continue
        over = [pod for pod in here if is_terminal(pod) and not is_deleting(pod)]
        plan.failed += [(pod, "FailedDaemonPod" if phase_of(pod) == "Failed" else "SucceededDaemonPod") for pod in over]
        running = [pod for pod in here if not is_terminal(pod) and not is_deleting(pod)]
        if wanted and not here:
            plan.create.append(node)
        elif len(running) > (2 if surges else 1):
            # The oldest stays, a bound one before one that still waits.
            running.sort(key=lambda pod: not at(pod, "spec", "nodeName"))
            plan.delete += running[1:]
    for node, here in pods.items():
        if node not in eligible:
            plan.delete += [pod for pod in here if not at(pod, "spec", "nodeName") and not is_deleting(pod)]
    return plan


def _rolling(owner: Object) -> Object:
    return at(owner, "spec", "updateStrategy", "rollingUpdate") or {}


def max_surge(owner: Object, desired: int) -> int:
    """Return how many nodes may have two pods during an update."""
    return resolve(_rolling(owner).get("maxSurge"), desired, round_up=True)


def max_unavailable(owner: Object, desired: int) -> int:
    """Return how many nodes may be without an available pod during an update: at least 1 unless it surges."""
    allowed = resolve(_rolling(owner).get("maxUnavailable", 1), desired, round_up=True)
    return max(allowed, 1) if max_surge(owner, desired) == 0 else allowed


def plan_update(
    owner: Object, pods: Mapping[str, list[Object]], eligible: Mapping[str, tuple[bool, bool]], hash_now: str, now: float
) -> Plan:
    """Return the next step of a rolling update; every node has its pod already. Mirrors pkg/controller/daemon/update.go."""
    plan = Plan()
    min_ready_s = at(owner, "spec", "minReadySeconds") or 0
    wanted = [node for node, (should, _) in eligible.items() if should]
    surge, budget = max_surge(owner, len(wanted)), max_unavailable(owner, len(wanted))
    candidates: list[Object] = []
    free_nodes: list[str] = []
    for node in wanted:
        here = [pod for pod in pods.get(node, []) if not is_deleting(pod) and not is_terminal(pod)]
        new = [pod for pod in here if labels_of(pod).get(revisions.HASH_LABEL) == hash_now]
        old = [pod for pod in here if pod not in new]
        new_serves = any(is_available(pod, min_ready_s, now) for pod in new)
        old_serves = any(is_available(pod, min_ready_s, now) for pod in old)
        if not old or (new and not surge):
            budget -= not new_serves
            plan.delete += old
        elif surge and new:
            surge -= 1
            if new_serves or not old_serves:
                plan.delete += old
        elif not old_serves:
            # Nobody misses it: replacing it costs nothing that is not lost already.
            plan.delete += old
            budget -= 1
        else:
            candidates += old
            free_nodes.append(node)
    if max_surge(owner, len(wanted)) > 0:
        plan.create = free_nodes[: max(0, surge)]
    else:
        plan.delete += candidates[: max(0, budget)]
    return plan


def plan_status(
    owner: Object, pods: Mapping[str, list[Object]], eligible: Mapping[str, tuple[bool, bool]], hash_now: str, now: float
) -> Object:
    """Return the DaemonSet's status. Mirrors updateDaemonSetStatus."""
    min_ready_s = at(owner, "spec", "minReadySeconds") or 0
    desired = current = misscheduled = ready = available = updated = 0
    for node, (wanted, _) in eligible.items():
        here = [pod for pod in pods.get(node, []) if not is_deleting(pod)]
        if not wanted:
            misscheduled += bool(here)
            continue
        desired += 1
        if not here:
            continue
        current += 1
        newest = max(here, key=lambda pod: (is_ready(pod), at(pod, "metadata", "creationTimestamp") or ""))
        ready += is_ready(newest)
        available += is_available(newest, min_ready_s, now)
        updated += labels_of(newest).get(revisions.HASH_LABEL) == hash_now
    status: Object = {
        "currentNumberScheduled": current,
        "numberMisscheduled": misscheduled,
        "desiredNumberScheduled": desired,
        "numberReady": ready,
    }
    more = {
        "observedGeneration": at(owner, "metadata", "generation") or 0,
        "updatedNumberScheduled": updated,
        "numberAvailable": available,
        "numberUnavailable": desired - available,
    }
    status |= {name: count for name, count in more.items() if count}
    for kept in ("collisionCount", "conditions"):
        if (value := at(owner, "status", kept)) is not None:
            status[kept] = value
    return status
