"""Plugins written in Python filter and score all nodes at once, in the profiles that enable them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from scheduler_world import Object, add_node, add_pod, bare, configuration, leaving, placed, preempted_for, scheduling, told, until

from korch._core import native
from korch.scheduler.config import read_config, settings
from korch.scheduler.plugins import Curable, NodeTable, Plugin
from korch.testing.bare import BareClient


class OnRack(Plugin):
    """Lets pods on nodes of one rack only, and prefers full ones."""

    name = "OnRack"

    def __init__(self, args: Mapping[str, Any]) -> None:
        self._rack = args["rack"]

    def filter(self, pod: Object, nodes: NodeTable) -> Sequence[str]:
        return ["" if rack == self._rack else "node(s) on another rack" for rack in nodes.labels("rack")]

    def score(self, pod: Object, nodes: NodeTable) -> Sequence[int]:
        total, used = nodes.allocatable("cpu"), nodes.requested("cpu")
        return [int(100 * used[at] / total[at]) for at in range(len(nodes))]


class Broken(Plugin):
    """Fails where its arguments say so."""

    def __init__(self, args: Mapping[str, Any]) -> None:
        self._at = args["at"]

    def filter(self, pod: Object, nodes: NodeTable) -> Sequence[str]:
        if self._at == "filter":
            raise RuntimeError("out of luck")
        return [""] if self._at == "short" else [""] * len(nodes)

    def score(self, pod: Object, nodes: NodeTable) -> Sequence[int]:
        if self._at == "score":
            raise RuntimeError("out of luck")
        return [101] * len(nodes)


class Picky(Plugin):
    """Refuses pods without a nickname, whatever the node; has nothing to say about those in black."""

    def __init__(self, args: Mapping[str, Any]) -> None:
        del args

    def concerns(self, pod: bytes) -> bool:
        return b'"black"' not in pod

    def pre_filter(self, pod: Object) -> str:
        return "" if "nick" in pod["metadata"].get("labels", {}) else "pod has no nickname"


class OnePerTeam(Plugin):
    """Lets one pod of a team on a node: pods are named TEAM-NUMBER."""

    placed: dict[str, str]

    def __init__(self, args: Mapping[str, Any]) -> None:
        self.placed = args["placed"]

    def filter(self, pod: Object, nodes: NodeTable) -> Sequence[str]:
        team = pod["metadata"]["name"].partition("-")[0]
        there = {node for key, node in self.placed.items() if key.startswith(f"d/{team}-") and key not in nodes.gone}
        return [Curable("node(s) with the team") if name in there else "" for name in nodes.names]


class HalfFull(Plugin):
    """Keeps half of each node free."""

    def __init__(self, args: Mapping[str, Any]) -> None:
        del args

    def filter(self, pod: Object, nodes: NodeTable) -> Sequence[str]:
        total, used = nodes.allocatable("cpu"), nodes.requested("cpu")
        return ["" if used[at] + 1000 <= total[at] / 2 else Curable("node(s) half full") for at in range(len(nodes))]


HERE = __name__


def enabling(name: str, args: Object, *, weight: int = 0, entry_point: str = "") -> bytes:
    config = [{"name": name, "args": args | ({"plugin": entry_point} if entry_point else {})}]
    plugins = {"multiPoint": {"enabled": [{"name": name, "weight": weight}]}}
    return configuration(profiles=[{"plugins": plugins, "pluginConfig": config}])


@pytest.fixture
def client() -> BareClient:
    return bare()


async def test_a_plugin_filters_and_scores_with_its_weight(client: BareClient) -> None:
    for name, rack in (("n1", "a"), ("n2", "b"), ("n3", "b")):
        await add_node(client, name, labels={"rack": rack})
    config = enabling("OnRack", {"rack": "b"}, weight=50)
    async with scheduling(client, config, {"OnRack": OnRack}):
        await add_pod(client, "p0")
        first = await placed(client, "p0")
        for number in (1, 2, 3):
            await add_pod(client, f"p{number}")
            # kube-scheduler's own scores would spread them; the heavier plugin fills one node.
            assert await placed(client, f"p{number}") == first != "n1"
        await add_pod(client, "p4")
        assert {await placed(client, "p4"), first} == {"n2", "n3"}


async def test_a_plugin_is_found_by_its_entry_point(client: BareClient) -> None:
    await add_node(client, "n1", labels={"rack": "a"})
    await add_pod(client, "p")
    async with scheduling(client, enabling("Racks", {"rack": "b"}, entry_point=f"{HERE}:OnRack")) as scheduler:
        reason, message = await told(client, "p")
        assert reason == "Unschedulable"
        assert message == (
            "0/1 nodes are available: 1 node(s) on another rack. "
            "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        )
        assert scheduler.queue.rejected_by("Racks") == ["d/p"]
        await add_node(client, "n2", labels={"rack": "b"})
        assert await placed(client, "p") == "n2"


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("filter", 'running "Broken" filter plugin: out of luck'),
        ("short", 'running "Broken" filter plugin: 1 answers for 2 nodes'),
        ("score", 'running Score plugins: plugin "Broken" failed with: out of luck'),
        (
            "range",
            "applying score defaultWeights on Score plugins: "
            'plugin "Broken" returns an invalid score 101, it should in the range of [0, 100] after normalizing',
        ),
    ],
)
async def test_a_plugins_failure_is_the_error_of_the_pod_alone(client: BareClient, at: str, words: str) -> None:
    await add_node(client, "n1")
    await add_node(client, "n2")
    await add_pod(client, "p")
    other = {"schedulerName": "other"}
    plugins = {"multiPoint": {"enabled": [{"name": "Broken"}]}}
    config = [{"name": "Broken", "args": {"at": at}}]
    both = configuration(profiles=[{"plugins": plugins, "pluginConfig": config}, other])
    async with scheduling(client, both, {"Broken": Broken}):
        assert await told(client, "p") == ("SchedulerError", words)
        await add_pod(client, "q", schedulerName="other")
        assert await placed(client, "q")


async def test_a_plugin_may_refuse_a_pod_whatever_the_node_and_leave_others_alone(client: BareClient) -> None:
    await add_node(client, "n1")
    await add_pod(client, "p")
    await add_pod(client, "q", nodeSelector={}, containers=[{"name": "black", "image": "black"}])
    async with scheduling(client, enabling("Picky", {}), {"Picky": Picky}):
        assert await placed(client, "q") == "n1"
        _, message = await told(client, "p")
    assert message == (
        "0/1 nodes are available: pod has no nickname. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )


async def test_preemption_leaves_nodes_alone_that_a_plugin_would_refuse_all_the_same(client: BareClient) -> None:
    await add_node(client, "n1", cpu="1", labels={"rack": "a"})
    await add_node(client, "n2", cpu="1", labels={"rack": "b"})
    for name in ("n1", "n2"):
        await add_pod(client, f"low-{name}", nodeName=name, priority=0)
    await add_pod(client, "high", priority=10)
    async with scheduling(client, enabling("OnRack", {"rack": "b"}), {"OnRack": OnRack}):
        assert await preempted_for(client, "high") == ("n2", ["low-n2"])


async def test_preemption_takes_those_away_whom_a_plugin_minds_and_no_others(client: BareClient) -> None:
    placed_pods = {"d/red-1": "n1", "d/blue-1": "n1"}
    config = enabling("OnePerTeam", {"placed": placed_pods})
    async with scheduling(client, config, {"OnePerTeam": OnePerTeam}):
        await add_node(client, "n1")
        for name in ("red-1", "blue-1"):
            await add_pod(client, name, nodeName="n1")
        await add_pod(client, "red-2", priority=5)
        assert await until(lambda: leaving(client)) == ["red-1"]


async def test_a_plugin_sees_what_nodes_would_have_without_the_pods_that_might_leave(client: BareClient) -> None:
    async with scheduling(client, enabling("HalfFull", {}), {"HalfFull": HalfFull}):
        await add_node(client, "n1")
        for name in ("a", "b", "c"):
            await add_pod(client, name, nodeName="n1")
        await add_pod(client, "high", priority=5)
        node, victims = await preempted_for(client, "high")
        assert (node, len(victims)) == ("n1", 2)


async def test_nobody_leaves_when_a_plugin_would_still_refuse_the_node(client: BareClient) -> None:
    placed_pods = {"d/red-1": "n1", "d/red-0": "n1"}
    async with scheduling(client, enabling("OnePerTeam", {"placed": placed_pods}), {"OnePerTeam": OnePerTeam}):
        await add_node(client, "n1")
        await add_pod(client, "red-1", nodeName="n1")
        await add_pod(client, "red-0", nodeName="n1", priority=9)
        await add_pod(client, "red-2", priority=5)
        why = "0/1 nodes are available: 1 node(s) with the team."
        vain = "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        assert (await told(client, "red-2"))[1] == f"{why} {vain}"


def test_points_and_weights_follow_the_profile() -> None:
    profile = {
        "plugins": {
            "multiPoint": {"enabled": [{"name": "OnRack", "weight": 3}]},
            "filter": {"disabled": [{"name": "OnRack"}]},
            "score": {"enabled": [{"name": "OnRack", "weight": 7}, {"name": "ImageLocality", "weight": 2}]},
        },
        "pluginConfig": [{"name": "OnRack", "args": {"rack": "a"}}],
    }
    read = settings(configuration(profiles=[profile]), {"OnRack": OnRack})
    [enabled] = read.plugins["default-scheduler"]
    assert (enabled.plugin.name, enabled.filters, enabled.weight) == ("OnRack", False, 7)
    assert native.Scheduler(read.engine).profiles() == ["default-scheduler"], "the engine knows its own part only"


@pytest.mark.parametrize(
    ("entry_point", "words"),
    [
        ("nowhere", "'nowhere' is not module:attribute"),
        ("korch.no_such_module:X", "cannot load 'korch.no_such_module:X': No module named 'korch.no_such_module'"),
        ("math:pi", "'math:pi' is not callable"),
        (f"{HERE}:OnRack", "'rack'"),
    ],
)
def test_a_plugin_that_cannot_be_made_is_named(entry_point: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        settings(enabling("Mine", {}, entry_point=entry_point))
    assert str(caught.value) == f'profiles[0].pluginConfig: initializing plugin "Mine": {words}'


def test_a_plugin_that_nobody_knows_is_refused_by_the_engine() -> None:
    with pytest.raises(ValueError, match=r'profiles\[0\]\.plugins: Invalid value: "Nope": no such plugin'):
        native.Scheduler(settings(enabling("Nope", {})).engine)


async def test_the_example_keeps_pods_on_their_rack(client: BareClient, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[3] / "examples" / "scheduler"
    monkeypatch.syspath_prepend(str(folder))
    for name, rack in (("n1", "a"), ("n2", "b"), ("n3", "b")):
        await add_node(client, name, labels={"example.com/rack": rack})
    async with scheduling(client, read_config(folder / "scheduler.yaml")):
        nodes: set[str] = set()
        for number in range(3):
            await add_pod(client, f"p{number}", schedulerName="racks", labels={"rack": "b"})
            nodes.add(await placed(client, f"p{number}"))
        assert len(nodes) == 1 and nodes < {"n2", "n3"}
