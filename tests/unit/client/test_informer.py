"""Informers: an exact copy, whatever happens to the connection, and handlers that hear of every difference."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import orjson
import pytest

from korch.api.errors import ApiError, BadRequest, InternalError, ServiceUnavailable
from korch.api.gvk import CONFIG_MAPS, PODS, ResourceRef
from korch.client.informer import Informer, Informers
from korch.client.projections import Meta, decoder
from korch.client.protocol import ListOptions, WatchEvent
from korch.runtime.context import Runtime, simulated
from korch.testing.bare import BareClient
from korch.testing.loop import SimLoop
from korch.testing.network import Faults, SimNetwork

T = TypeVar("T")


class ConfigView(Meta, frozen=True):
    data: dict[str, str] = {}


decode_config = decoder(ConfigView)


def simulate(story: Callable[[BareClient, Runtime], Awaitable[T]], seed: int = 1) -> T:
    runtime = simulated(seed)

    async def main() -> T:
        return await story(BareClient(runtime), runtime)

    loop = SimLoop()
    result = loop.run(main())
    assert loop.errors == []
    return result


class Following:
    """An informer that runs, and what its handlers heard."""

    def __init__(self, informer: Informer[Any]) -> None:
        self.informer = informer
        self.heard: list[str] = []
        informer.on(
            add=lambda new: self.heard.append(f"+{new.name}"),
            update=lambda old, new: self.heard.append(f"~{new.name}:{old.resource_version}<{new.resource_version}"),
            delete=lambda old: self.heard.append(f"-{old.name}"),
        )

    async def __aenter__(self) -> Following:
        self._task = asyncio.get_running_loop().create_task(self.informer.run())
        await self.informer.wait_synced()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def create(client: BareClient, name: str, **data: str) -> None:
    await client.create(CONFIG_MAPS, {"metadata": {"name": name}, "data": data}, namespace="d")


def test_what_was_there_and_what_comes_later_is_heard_in_order() -> None:
    async def story(client: BareClient, runtime: Runtime) -> list[str]:
        await create(client, "a")
        async with Following(Informer(client, CONFIG_MAPS, runtime=runtime)) as following:
            await create(client, "b")
            await client.patch(CONFIG_MAPS, "a", {"data": {"x": "1"}}, namespace="d")
            await client.delete(CONFIG_MAPS, "b", namespace="d")
            await asyncio.sleep(1)
            assert following.informer.resource_version == client.revision
            return following.heard

    assert simulate(story) == ["+a", "+b", "~a:2<4", "-b"]


def test_a_cut_watch_resumes_without_hearing_anything_twice() -> None:
    async def story(client: BareClient, runtime: Runtime) -> list[str]:
        await create(client, "a")
        async with Following(Informer(client, CONFIG_MAPS, runtime=runtime)) as following:
            client.cut_watches()
            await create(client, "b")
            await asyncio.sleep(10)
            assert following.informer.reflector.relists == 1
            return following.heard

    assert simulate(story) == ["+a", "+b"]


def test_after_compaction_the_difference_is_told_deletions_too() -> None:
    async def story(client: BareClient, runtime: Runtime) -> list[str]:
        for name in ("gone", "kept", "changed", "replaced"):
            await create(client, name)
        async with Following(Informer(client, CONFIG_MAPS, runtime=runtime)) as following:
            following.heard.clear()
            client.cut_watches()
            await client.delete(CONFIG_MAPS, "gone", namespace="d")
            await client.patch(CONFIG_MAPS, "changed", {"data": {"x": "1"}}, namespace="d")
            await client.delete(CONFIG_MAPS, "replaced", namespace="d")
            await create(client, "replaced")
            await create(client, "new")
            client.compact()
            await asyncio.sleep(10)
            assert following.informer.reflector.relists == 2
            assert sorted(one.name for one in following.informer.list()) == ["changed", "kept", "new", "replaced"]
            return following.heard

    heard = simulate(story)
    assert heard[0] == "-gone"
    assert set(heard[1:]) == {"~changed:4<7", "-replaced", "+replaced", "+new"}
    assert heard.index("-replaced") < heard.index("+replaced")


class WithoutInitialEvents(BareClient):
    """A server that knows no sendInitialEvents."""

    refusal: ApiError = BadRequest("")

    async def watch(
        self, resource: ResourceRef, options: ListOptions = ListOptions(), *, send_initial_events: bool = False, timeout_s: float = 0
    ) -> AsyncIterator[WatchEvent]:
        if send_initial_events:
            raise self.refusal
        async for event in super().watch(resource, options, timeout_s=timeout_s):
            yield event


@pytest.mark.parametrize(
    "refusal",
    [
        BadRequest("sendInitialEvents is forbidden"),
        InternalError("a watch stream was requested by the client but the required storage feature RequestWatchProgress is disabled"),
    ],
)
def test_a_server_without_initial_events_is_listed_page_by_page(refusal: ApiError) -> None:
    async def main() -> None:
        runtime = simulated(1)
        client = WithoutInitialEvents(runtime)
        client.refusal = refusal
        for number in range(1203):
            await create(client, f"c{number}")
        async with Following(Informer(client, CONFIG_MAPS, runtime=runtime)) as following:
            assert len(following.informer) == 1203
            assert sum(verb == "list" for verb, _, _ in client.calls) == 3
            await create(client, "later")
            await asyncio.sleep(1)
            assert following.heard[-1] == "+later"

    SimLoop().run(main())


def test_a_server_that_is_away_is_tried_again_ever_more_rarely() -> None:
    async def story(client: BareClient, runtime: Runtime) -> int:
        def away(_verb: str, _resource: ResourceRef) -> None:
            raise ServiceUnavailable("starting")

        client.fault = away
        informer = Informer(client, CONFIG_MAPS, runtime=runtime)
        task = asyncio.get_running_loop().create_task(informer.run())
        await asyncio.sleep(600)
        tries = len(client.calls)
        client.fault = None
        async with asyncio.timeout(61):
            await informer.wait_synced()
        task.cancel()
        return tries

    assert 12 <= simulate(story) <= 30


@pytest.mark.parametrize("seed", range(20))
def test_the_copy_equals_the_server_after_any_sequence_of_faults(seed: int) -> None:
    async def story(server: BareClient, runtime: Runtime) -> None:
        network = SimNetwork(runtime.rng, Faults(delay_s_mean=0.05, lose_request=0.1, cut_watch_s_mean=3))
        random = runtime.rng.stream("story")
        informer = Informer(network.client(server, "n1"), CONFIG_MAPS, runtime=runtime, decode=decode_config)
        shadow: dict[str, str] = {}
        informer.on(
            add=lambda new: shadow.__setitem__(new.name, new.uid + new.data.get("n", "")),
            update=lambda _old, new: shadow.__setitem__(new.name, new.uid + new.data.get("n", "")),
            delete=lambda old: shadow.__delitem__(old.name),
        )
        task = asyncio.get_running_loop().create_task(informer.run())
        names = [f"c{number}" for number in range(8)]
        for step in range(300):
            name = random.choice(names)
            here = any(orjson.loads(raw)["metadata"]["name"] == name for raw in (await server.list(CONFIG_MAPS)).items)
            if not here:
                await create(server, name, n=str(step))
            elif random.random() < 0.4:
                await server.delete(CONFIG_MAPS, name, namespace="d")
            else:
                await server.patch(CONFIG_MAPS, name, {"data": {"n": str(step)}}, namespace="d")
            if random.random() < 0.02:
                server.compact()
            if random.random() < 0.02:
                network.partition("n1")
            if random.random() < 0.05:
                network.heal_all()
            await asyncio.sleep(random.random())
        network.heal_all()
        network.calm()
        await asyncio.sleep(120)
        truth = {view.name: view.uid + view.data["n"] for view in map(decode_config, (await server.list(CONFIG_MAPS)).items)}
        assert {one.name: one.uid + one.data["n"] for one in informer.list()} == truth
        assert shadow == truth
        task.cancel()

    simulate(story, seed)


def test_an_index_follows_additions_changes_and_deletions() -> None:
    async def story(client: BareClient, runtime: Runtime) -> None:
        await create(client, "a", team="red")
        informer = Informer(client, CONFIG_MAPS, runtime=runtime, decode=decode_config)
        informer.add_index("team", lambda view: [view.data["team"]] if "team" in view.data else [])
        async with Following(informer):
            await create(client, "b", team="blue")
            await create(client, "c", team="red")
            await asyncio.sleep(1)
            assert [one.name for one in informer.by_index("team", "red")] == ["a", "c"]
            await client.patch(CONFIG_MAPS, "a", {"data": {"team": "blue"}}, namespace="d")
            await client.delete(CONFIG_MAPS, "b", namespace="d")
            await asyncio.sleep(1)
            assert [one.name for one in informer.by_index("team", "red")] == ["c"]
            assert [one.name for one in informer.by_index("team", "blue")] == ["a"]
            assert informer.by_index("team", "green") == []

    simulate(story)


def test_readers_of_one_collection_share_one_watch_and_keep_their_own_projections() -> None:
    async def story(client: BareClient, runtime: Runtime) -> None:
        await create(client, "a", x="1")
        informers = Informers(client, runtime)
        views = informers.informer(CONFIG_MAPS, decode=decode_config)
        metas = informers.informer(CONFIG_MAPS)
        assert informers.informer(CONFIG_MAPS, decode=decoder(ConfigView)) is views
        async with informers.running():
            await informers.wait_synced()
            late = informers.informer(CONFIG_MAPS, decode=orjson.loads)
            pods = informers.informer(PODS)
            await pods.wait_synced()
            assert views.get("d", "a").data == {"x": "1"}  # type: ignore[union-attr]
            assert metas.get("d", "a").name == "a"  # type: ignore[union-attr]
            assert late.get_by_key("d/a")["data"] == {"x": "1"}
        assert [call for call in client.calls if call[0] == "watch"] == [("watch", "configmaps", ""), ("watch", "pods", "")]

    simulate(story)


def test_waiting_for_a_version_ends_when_the_cache_shows_it() -> None:
    async def story(client: BareClient, runtime: Runtime) -> None:
        network = SimNetwork(runtime.rng, Faults(delay_s_mean=5))
        async with Following(Informer(network.client(client, "n1"), CONFIG_MAPS, runtime=runtime)) as following:
            await create(client, "a")
            assert following.informer.get("d", "a") is None
            await following.informer.wait_for_version(client.revision)
            assert following.informer.get("d", "a") is not None

    simulate(story)


def test_an_object_that_does_not_fit_the_projection_is_left_out_and_the_rest_lives() -> None:
    class Strict(Meta, frozen=True):
        data: dict[str, int] = {}

    async def story(client: BareClient, runtime: Runtime) -> list[str]:
        await create(client, "text", x="1")
        await create(client, "empty")
        async with Following(Informer(client, CONFIG_MAPS, runtime=runtime, decode=decoder(Strict))) as following:
            return following.heard

    assert simulate(story) == ["+empty"]


def test_nulls_read_as_absent() -> None:
    raw = b'{"metadata":{"name":"a","labels":null,"creationTimestamp":null},"data":null}'
    view = decode_config(raw)
    assert (view.labels, view.data, view.metadata.creationTimestamp) == ({}, {}, "")
    with pytest.raises(msgspec.ValidationError):
        decode_config(b'{"metadata":{"name":5}}')
