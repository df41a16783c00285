"""Flow schemas say whether their priority level exists, and say it anew when that changes."""

from __future__ import annotations

from typing import Any

from tests.unit.controllers.cluster import Cluster, cluster_story

from korch.api.conditions import condition_status, get_condition
from korch.controllers.flow_schema import FLOW_SCHEMAS, PRIORITY_LEVELS

LEVEL = {"metadata": {"name": "mine"}, "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}}


def test_a_schema_dangles_as_long_as_its_priority_level_is_missing() -> None:
    async def story(cluster: Cluster) -> None:
        async def dangles(value: str, name: str = "mine") -> dict[str, Any] | None:
            schema = await cluster.get(FLOW_SCHEMAS, name)
            return schema if condition_status(schema, "Dangling") == value else None

        for schema in await cluster.all(FLOW_SCHEMAS):
            await cluster.until(lambda name=schema["metadata"]["name"]: dangles("False", name))
        spec = {"priorityLevelConfiguration": {"name": "mine"}, "matchingPrecedence": 500}
        await cluster.make(FLOW_SCHEMAS, {"metadata": {"name": "mine"}, "spec": spec})
        told = get_condition(await cluster.until(lambda: dangles("True")), "Dangling") or {}
        names = 'This FlowSchema references the PriorityLevelConfiguration object named "mine"'
        assert (told["reason"], told["message"]) == ("NotFound", f"{names} but there is no such object")
        await cluster.make(PRIORITY_LEVELS, LEVEL)
        told = get_condition(await cluster.until(lambda: dangles("False")), "Dangling") or {}
        assert (told["reason"], told["message"]) == ("Found", f"{names} and it exists")
        await cluster.delete(PRIORITY_LEVELS, "mine")
        schema = await cluster.until(lambda: dangles("True"))
        [owner] = [one for one in schema["metadata"]["managedFields"] if one.get("subresource") == "status"]
        assert (owner["manager"], owner["operation"]) == ("api-priority-and-fairness-config-consumer-v1", "Apply")

    cluster_story(story, nodes=1)
