"""Says of every FlowSchema whether the priority level that it names exists.

Watches flow schemas and priority levels; writes the condition `Dangling` of flow schemas. Invariant: the condition is what the present
priority levels say. Mirrors the status writer of apiserver's pkg/util/flowcontrol, which is a part of the server upstream.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from korch.api.conditions import set_condition
from korch.api.gvk import ResourceRef
from korch.api.meta import at, name_of
from korch.client.controller import Controller, Requeue, Watch
from korch.controllers.workload.controller import decode_object

Object = dict[str, Any]

_GROUP = "flowcontrol.apiserver.k8s.io"
FLOW_SCHEMAS = ResourceRef(_GROUP, "v1", "flowschemas", "FlowSchema", namespaced=False)
PRIORITY_LEVELS = ResourceRef(_GROUP, "v1", "prioritylevelconfigurations", "PriorityLevelConfiguration", namespaced=False)
# Who writes it, as upstream's server calls itself.
_MANAGER = "api-priority-and-fairness-config-consumer-v1"


def _level(schema: Object) -> str:
    return at(schema, "spec", "priorityLevelConfiguration", "name") or ""


class FlowSchemaController(Controller):
    """Reconciles one flow schema a key."""

    name = "flow-schema-controller"
    workers = 1
    watches = (
        Watch(FLOW_SCHEMAS, decode=decode_object, indexes={"level": lambda schema: (_level(schema),)}),
        Watch(PRIORITY_LEVELS, keys="keys_of_level"),
    )

    def keys_of_level(self, level: Any) -> Iterable[str]:
        """Map a priority level to the flow schemas that name it."""
        return [name_of(schema) for schema in self.informer(FLOW_SCHEMAS).by_index("level", level.name)]

    async def reconcile(self, key: str) -> Requeue | None:
        schema = self.informer(FLOW_SCHEMAS).get_by_key(key)
        if schema is None:
            return None
        level = _level(schema)
        is_there = self.informer(PRIORITY_LEVELS).get_by_key(level) is not None
        status: Object = {"conditions": list(at(schema, "status", "conditions") or ())}
        value, reason, told = ("False", "Found", "and it exists") if is_there else ("True", "NotFound", "but there is no such object")
        message = f'This FlowSchema references the PriorityLevelConfiguration object named "{level}" {told}'
        if set_condition(status, "Dangling", value, now=self.runtime.clock.now(), reason=reason, message=message):
            [condition] = [one for one in status["conditions"] if one["type"] == "Dangling"]
            applied = {
                "apiVersion": FLOW_SCHEMAS.api_version,
                "kind": FLOW_SCHEMAS.kind,
                "metadata": {"name": key},
                "status": {"conditions": [condition]},
            }
            written = await self.client.patch(
                FLOW_SCHEMAS, key, applied, subresource="status", patch_type="apply", field_manager=_MANAGER, force=True
            )
            self.wrote(key, FLOW_SCHEMAS, written)
        return None
