"""Events: the same one again is counted, many alike are combined, a chatterbox is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from korch.api.gvk import EVENTS, ResourceRef
from korch.client.events import EventRecorder
from korch.client.protocol import DeleteOptions
from korch.runtime.context import Runtime, simulated
from korch.testing.bare import BareClient
from korch.testing.loop import SimLoop

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "d", "uid": "u", "resourceVersion": "5"}}


def simulate(story: Callable[[BareClient, EventRecorder], Awaitable[None]]) -> None:
    runtime: Runtime = simulated(1)

    async def main() -> None:
        client = BareClient(runtime)
        recorder = EventRecorder(client, "kubelet", runtime, host="n1")
        task = asyncio.get_running_loop().create_task(recorder.run())
        await story(client, recorder)
        task.cancel()

    SimLoop().run(main())


async def written(client: BareClient) -> list[dict[str, Any]]:
    return [orjson.loads(raw) for raw in (await client.list(EVENTS)).items]


def test_an_event_says_who_saw_what_and_when() -> None:
    async def story(client: BareClient, recorder: EventRecorder) -> None:
        recorder.event(POD, "Normal", "Started", "Started container c", field_path="spec.containers{c}")
        await asyncio.sleep(1)
        (event,) = await written(client)
        assert event["involvedObject"] == {
            "kind": "Pod",
            "namespace": "d",
            "name": "p",
            "uid": "u",
            "apiVersion": "v1",
            "resourceVersion": "5",
            "fieldPath": "spec.containers{c}",
        }
        assert (event["type"], event["reason"], event["message"], event["count"]) == ("Normal", "Started", "Started container c", 1)
        assert (event["reportingComponent"], event["source"]) == ("kubelet", {"component": "kubelet", "host": "n1"})
        assert event["firstTimestamp"] == event["lastTimestamp"] == "2027-01-15T08:00:00Z"
        assert event["metadata"]["name"].startswith("p.")

    simulate(story)


def test_the_same_event_again_is_counted_even_when_the_object_has_changed() -> None:
    async def story(client: BareClient, recorder: EventRecorder) -> None:
        for version in range(5):
            changed = POD | {"metadata": POD["metadata"] | {"resourceVersion": str(version)}}  # type: ignore[operator]
            recorder.event(changed, "Warning", "BackOff", "Back-off restarting failed container")
            await asyncio.sleep(10)
        (event,) = await written(client)
        assert event["count"] == 5
        assert event["lastTimestamp"] == "2027-01-15T08:00:40Z"

    simulate(story)


def test_an_event_that_expired_on_the_server_is_written_anew() -> None:
    async def story(client: BareClient, recorder: EventRecorder) -> None:
        recorder.event(POD, "Normal", "Pulled", "x")
        await asyncio.sleep(1)
        (event,) = await written(client)
        await client.delete(EVENTS, event["metadata"]["name"], namespace="d", options=DeleteOptions())
        recorder.event(POD, "Normal", "Pulled", "x")
        await asyncio.sleep(1)
        (event,) = await written(client)
        assert event["count"] == 1

    simulate(story)


def test_many_alike_are_combined() -> None:
    async def story(client: BareClient, recorder: EventRecorder) -> None:
        for number in range(20):
            recorder.event(POD, "Warning", "Unhealthy", f"probe failed: {number}")
        await asyncio.sleep(1)
        events = await written(client)
        combined = [one for one in events if one["message"].startswith("(combined from similar events): ")]
        assert (len(events), len(combined), combined[0]["count"]) == (10, 1, 11)
        assert combined[0]["message"].endswith("probe failed: 19")

    simulate(story)


def test_an_object_that_never_stops_is_cut_off_and_others_are_heard() -> None:
    async def story(client: BareClient, recorder: EventRecorder) -> None:
        for number in range(100):
            recorder.event(POD, "Warning", f"Reason{number}", "x")
        recorder.event(POD | {"metadata": {"name": "other", "namespace": "d"}}, "Normal", "Started", "x")
        await asyncio.sleep(1)
        names = [one["involvedObject"]["name"] for one in await written(client)]
        assert (names.count("p"), names.count("other"), recorder.dropped) == (25, 1, 75)

    simulate(story)


def test_a_server_that_is_away_costs_events_and_nothing_else() -> None:
    async def story(client: BareClient, recorder: EventRecorder) -> None:
        def away(_verb: str, _resource: ResourceRef) -> None:
            raise ConnectionError("away")

        client.fault = away
        recorder.event(POD, "Normal", "Lost", "x")
        await asyncio.sleep(1)
        client.fault = None
        recorder.event(POD, "Normal", "Kept", "x")
        await asyncio.sleep(1)
        assert [one["reason"] for one in await written(client)] == ["Kept"]
        assert recorder.dropped == 1

    simulate(story)
