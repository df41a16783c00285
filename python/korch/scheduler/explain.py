"""Why a pod is where it is, or why it is nowhere: the matrix of nodes and plugins, made from what any API server shows.

Everything is listed once and given to an engine of its own, so that nothing is asked of the scheduler that runs and nothing is changed.
"""

from __future__ import annotations

from typing import Any

import orjson

from korch._core import native
from korch.api.errors import ApiError
from korch.api.gvk import NODES, PODS, ResourceRef
from korch.client.protocol import Client
from korch.scheduler.others import ALWAYS_SERVED, PERHAPS_SERVED


async def explain_pod(client: Client, namespace: str, name: str, *, config: bytes | None = None) -> dict[str, Any]:
    """Return the engine's matrix for a pod (see `_core.Scheduler.explain`), with the pod itself left out of what is on the nodes.

    Raises NotFound when there is no such pod, ValueError when `config` (a KubeSchedulerConfiguration in JSON) is not valid."""
    pod = await client.get(PODS, name, namespace=namespace)
    engine = native.Scheduler(config)
    others = [one for resource in ALWAYS_SERVED + PERHAPS_SERVED for one in await _list(client, resource)]
    nodes = list((await client.list(NODES)).items)
    engine.upsert(nodes, list((await client.list(PODS)).items), others)
    engine.remove("Pod", [f"{namespace}/{name}"])
    return orjson.loads(engine.explain(pod))


async def _list(client: Client, resource: ResourceRef) -> list[bytes]:
    """Return all objects of a kind with the kind in them; none when the server does not serve or show it."""
    try:
        items = (await client.list(resource)).items
    except ApiError:
        return []
    return [orjson.dumps(orjson.loads(raw) | {"kind": resource.kind}) for raw in items]
