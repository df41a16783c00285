"""Making room: less important pods are told why and deleted. Mirrors kube-scheduler's preemption executor."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import orjson

from korch.api.errors import ApiError, Conflict, NotFound
from korch.api.gvk import PODS
from korch.client.events import EventRecorder
from korch.client.protocol import Client, DeleteOptions
from korch.runtime.clock import rfc3339
from korch.runtime.context import Runtime
from korch.runtime.log import get_logger
from korch.scheduler.groups import PodGroupView
from korch.scheduler.pods import PodView, decode_pod

log = get_logger("scheduler")


@dataclass(frozen=True, slots=True)
class Preemption:
    """`victims` (key and uid) have to leave `node` for a pod, or for a pod group, where `node` is "cluster"; `displaced` (key and node)
    no longer wait for that node."""

    preemptor: PodView | PodGroupView
    scheduler_name: str
    node: str
    victims: tuple[tuple[str, str], ...]
    displaced: tuple[tuple[str, str], ...]

    @property
    def kind(self) -> str:
        """Return what is made room for, as events call it."""
        return "pod" if isinstance(self.preemptor, PodView) else "podgroup"


async def evict(client: Client, recorder: EventRecorder, runtime: Runtime, preemption: Preemption) -> None:
    """Delete the victims, each with the condition DisruptionTarget before, and take back nominations of the displaced.

    A victim that is gone, or was replaced by another of its name, is left alone. What fails is logged: the pod that wanted the room
    is tried again in any case, and finds victims anew."""
    for key, node in preemption.displaced:
        await _withdraw_nomination(client, key, node)
    async with asyncio.TaskGroup() as group:
        for key, uid in preemption.victims:
            group.create_task(_evict_one(client, recorder, runtime, preemption, key, uid))


async def _evict_one(client: Client, recorder: EventRecorder, runtime: Runtime, preemption: Preemption, key: str, uid: str) -> None:
    namespace, name = key.split("/", 1)
    preemptor = preemption.preemptor
    condition: dict[str, Any] = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": f"{preemption.scheduler_name}: preempting to accommodate a higher priority {preemption.kind}",
        "lastTransitionTime": rfc3339(runtime.clock.now()),
    }
    patch = {"metadata": {"uid": uid}, "status": {"conditions": [condition]}}
    try:
        await client.patch(PODS, name, patch, namespace=namespace, subresource="status", patch_type="strategic")
        victim = decode_pod(await client.get(PODS, name, namespace=namespace))
        if victim.uid != uid:
            return
        await client.delete(PODS, name, namespace=namespace, options=DeleteOptions(uid=uid))
    except (NotFound, Conflict):
        return
    except (ApiError, OSError) as error:
        log.warning("victim not deleted", pod=key, preemptor=preemptor.key, error=str(error))
        return
    log.info("pod preempted", pod=key, preemptor=preemptor.key, node=preemption.node)
    recorder.event(victim, "Normal", "Preempted", f"Preempted by {preemption.kind} {preemptor.uid} on node {preemption.node}")


async def _withdraw_nomination(client: Client, key: str, node: str) -> None:
    namespace, name = key.split("/", 1)
    try:
        pod = orjson.loads(await client.get(PODS, name, namespace=namespace))
        if pod.get("status", {}).get("nominatedNodeName") == node:
            patch = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": {"nominatedNodeName": None}}
            await client.patch(PODS, name, patch, namespace=namespace, subresource="status", patch_type="strategic")
    except NotFound:
        return
    except (ApiError, OSError) as error:
        log.warning("nomination not withdrawn", pod=key, error=str(error))
