"""Priority and fairness: who is served when more is asked than can be done, on virtual time and over the whole request chain."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from access import HeaderAuthenticator
from api_exchange import ADDRESS, Answer, Api, config_map

from korch.apiserver.flow_objects import flow_schemas, priority_levels
from korch.apiserver.flowcontrol.flow_control import FlowControl, Refused, Seat
from korch.apiserver.flowcontrol.level import deal
from korch.apiserver.identity import User
from korch.apiserver.request_info import RequestInfo, parse
from korch.apiserver.server import ApiServer, ServerConfig
from korch.resources import catalogue
from korch.runtime.clock import LoopClock
from korch.runtime.context import simulated
from korch.storage import Storage
from korch.testing.loop import SimLoop

Object = dict[str, Any]
FLOW = "/apis/flowcontrol.apiserver.k8s.io/v1"
PODS = parse("GET", "/api/v1/namespaces/d/pods/p", {})


def virtual(story: Any) -> None:
    loop = SimLoop()
    loop.run(story)
    assert loop.errors == []


class World:
    """Flow control alone, with the default objects and others; what is asked takes time, and what was served is counted."""

    def __init__(self, *, total_seats: int = 100, objects: int = 0) -> None:
        self.schemas, self.levels = flow_schemas(), priority_levels()
        self.flow = FlowControl(
            lambda: self.schemas, lambda: self.levels, LoopClock(), lambda *_: objects, total_seats=total_seats, wait_s_max=15
        )
        self.served: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.order: list[str] = []

    def add(self, name: str, user: str, *, shares: int = 10, **limited: Any) -> None:
        """Give a user a priority level of his own."""
        limited = {"nominalConcurrencyShares": shares, "limitResponse": {"type": "Reject"}} | limited
        level = {"metadata": {"name": name, "uid": f"level-{name}"}, "spec": {"type": "Limited", "limited": limited}}
        self.levels = [*self.levels, level]
        rule = {
            "subjects": [{"kind": "User", "user": {"name": user}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": True, "namespaces": ["*"]}],
        }
        spec = {"priorityLevelConfiguration": {"name": name}, "matchingPrecedence": 50, "rules": [rule]}
        self.schemas = [*self.schemas, {"metadata": {"name": name, "uid": f"schema-{name}"}, "spec": spec}]

    async def ask(self, user: str, *groups: str, seconds: float = 1.0, info: RequestInfo = PODS, **query: str) -> None:
        try:
            seat = await self.flow.enter(User(user, groups=(*groups, "system:authenticated")), info, query)
        except Refused:
            self.refused[user] += 1
            return
        await asyncio.sleep(seconds)
        self.served[user] += 1
        self.order.append(user)
        seat.release()

    def level(self, name: str) -> Any:
        return next(one for one in self.flow.levels if one.limits.name == name)


def level_of(world: World, user: User, method: str, path: str) -> str:
    async def ask() -> Seat:
        return await world.flow.enter(user, parse(method, path, {}), {})

    loop = SimLoop()
    seats: list[Seat] = []

    async def main() -> None:
        seats.append(await ask())

    loop.run(main())
    uid = dict(seats[0].headers)[b"x-kubernetes-pf-prioritylevel-uid"]
    return uid.decode()


@pytest.mark.parametrize(
    ("user", "method", "path", "level"),
    [
        (User("root", groups=("system:masters",)), "DELETE", "/api/v1/nodes", "exempt"),
        (User("a", groups=("system:authenticated",)), "GET", "/healthz", "exempt"),
        (User("a", groups=("system:authenticated",)), "GET", "/version", "global-default"),
        (User("system:node:n", groups=("system:nodes",)), "PUT", "/api/v1/nodes/n/status", "node-high"),
        (User("system:node:n", groups=("system:nodes",)), "GET", "/api/v1/pods", "system"),
        (
            User("system:node:n", groups=("system:nodes",)),
            "PUT",
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n",
            "node-high",
        ),
        (User("system:kube-scheduler", groups=("system:authenticated",)), "POST", "/api/v1/namespaces/d/pods/p/binding", "workload-high"),
        (
            User("system:kube-scheduler", groups=("system:authenticated",)),
            "PUT",
            "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-scheduler",
            "leader-election",
        ),
        (User("system:serviceaccount:d:x", groups=("system:serviceaccounts",)), "GET", "/api/v1/pods", "workload-low"),
        (User("system:serviceaccount:kube-system:x", groups=("system:serviceaccounts",)), "GET", "/api/v1/pods", "workload-high"),
        (User("nobody"), "GET", "/api/v1/pods", "catch-all"),
    ],
)
def test_the_default_schemas_classify_as_upstream(user: User, method: str, path: str, level: str) -> None:
    world = World()
    world.levels = [{**one, "metadata": {**one["metadata"], "uid": one["metadata"]["name"]}} for one in world.levels]
    assert level_of(world, user, method, path) == level


def test_seats_are_shared_out_by_shares() -> None:
    world = World(total_seats=600)
    found = {one.limits.name: (one.nominal, one.guaranteed, one.most) for one in world.flow.levels if not one.limits.is_exempt}
    # 600 seats over 245 shares, rounded up; the lendable part rounded to the nearest.
    assert found["workload-low"] == (245, 25, 600)
    assert found["leader-election"] == (25, 25, 600)
    assert found["catch-all"][0] == 13


def test_a_flood_of_one_tenant_costs_another_and_the_nodes_nothing() -> None:
    """A thousand requests of one account are outstanding; in every second of the flood all of the others' requests are served."""
    world = World(total_seats=20)
    lease = parse("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n", {})

    async def story() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(1000):
                group.create_task(world.ask("system:serviceaccount:loud:x", "system:serviceaccounts", seconds=0.1))
            for _ in range(20):
                before = world.served.copy()
                for _ in range(2):
                    group.create_task(world.ask("system:serviceaccount:quiet:x", "system:serviceaccounts", seconds=0.1))
                    group.create_task(world.ask("system:node:n", "system:nodes", seconds=0.1, info=lease))
                await asyncio.sleep(1)
                rise = world.served - before
                assert rise["system:node:n"] == 2 and rise["system:serviceaccount:quiet:x"] == 2

    virtual(story())
    loud = "system:serviceaccount:loud:x"
    # A hand of six queues with fifty places each, and what was served at once; all others are turned away, none is lost.
    assert world.served[loud] + world.refused[loud] == 1000
    assert 300 <= world.served[loud] <= 330
    assert world.refused.total() == world.refused[loud]


def test_flows_of_one_queue_set_get_equal_shares_whatever_they_ask() -> None:
    world = World(total_seats=10)
    world.add(
        "mine", "*", shares=100000, limitResponse={"type": "Queue", "queuing": {"queues": 64, "handSize": 1, "queueLengthLimit": 500}}
    )
    world.schemas[-1]["spec"]["distinguisherMethod"] = {"type": "ByUser"}

    async def story() -> None:
        async with asyncio.TaskGroup() as group:
            asked = [("greedy", 400), ("medium", 60), ("small", 30)]
            for user, count in asked:
                for _ in range(count):
                    group.create_task(world.ask(user, seconds=0.1))
            await asyncio.sleep(0.95)

    virtual(story())
    assert world.served == {"greedy": 400, "medium": 60, "small": 30}
    # After ten the first was alone with, the three take turns until one has had all it asked for.
    first = Counter(world.order[10:91])
    assert max(first.values()) - min(first.values()) <= 10 and len(first) == 3


def test_what_is_lent_comes_back_before_others_borrow_more() -> None:
    world = World(total_seats=105)
    queuing = {"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 300}}
    world.levels, world.schemas = [], []
    world.add("lender", "lender", shares=50, lendablePercent=80, limitResponse=queuing)
    world.add("borrower", "borrower", shares=50, limitResponse=queuing)

    async def story() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(300):
                group.create_task(world.ask("borrower", seconds=1.0))
            await asyncio.sleep(0.5)
            lender, borrower = world.level("lender"), world.level("borrower")
            # What is promised to the lender and to the catch-all (5 shares of 105) is nobody else's.
            assert borrower.seats_in_use == 105 - lender.guaranteed - world.level("catch-all").guaranteed
            assert borrower.seats_in_use > borrower.nominal
            for _ in range(60):
                group.create_task(world.ask("lender", seconds=2.0))
            await asyncio.sleep(1)
            assert lender.seats_in_use == lender.nominal
            assert borrower.seats_in_use <= borrower.nominal

    virtual(story())
    assert world.served == {"borrower": 300, "lender": 60}


def test_a_level_without_queues_refuses_and_one_that_waits_too_long_is_given_up() -> None:
    world = World(total_seats=20)
    world.add("strict", "strict", shares=5, borrowingLimitPercent=0)
    queuing = {"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 3}}
    world.add("slow", "slow", shares=5, borrowingLimitPercent=0, limitResponse=queuing)

    async def story() -> None:
        strict, slow = world.level("strict").most, world.level("slow").most
        async with asyncio.TaskGroup() as group:
            for _ in range(strict + 3):
                group.create_task(world.ask("strict"))
            for _ in range(slow + 5):
                group.create_task(world.ask("slow", seconds=20.0))
        assert world.served == {"strict": strict, "slow": slow}

    virtual(story())
    assert world.refused == {"strict": 3, "slow": 5}
    assert world.flow.rejected == {
        ("strict", "strict", "concurrency-limit"): 3,
        ("slow", "slow", "queue-full"): 2,
        ("slow", "slow", "time-out"): 3,
    }
    assert all(one.is_idle and one.seats_in_use == 0 for one in world.flow.levels)


def test_one_that_stops_waiting_takes_no_seat_with_it() -> None:
    world = World(total_seats=20)
    queuing = {"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 50}}
    world.add("mine", "me", shares=1, borrowingLimitPercent=0, limitResponse=queuing)

    async def story() -> None:
        first = asyncio.get_running_loop().create_task(world.ask("me", seconds=1))
        await asyncio.sleep(0)
        doomed = [asyncio.get_running_loop().create_task(world.ask("me")) for _ in range(3)]
        last = asyncio.get_running_loop().create_task(world.ask("me"))
        await asyncio.sleep(0.5)
        for one in doomed:
            one.cancel()
        await asyncio.gather(first, last)
        await asyncio.gather(*doomed, return_exceptions=True)

    virtual(story())
    assert world.served == {"me": 2}
    assert world.flow.rejected == {("mine", "mine", "cancelled"): 3}


def test_one_that_stops_waiting_as_a_seat_becomes_free_leaves_it_to_the_next() -> None:
    async def story() -> None:
        world = World(total_seats=60)
        queued = {"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 5}}
        world.add("narrow", "user", shares=1, limitResponse=queued, borrowingLimitPercent=0)
        level = world.level("narrow")
        held = [await world.flow.enter(User("user", groups=("system:authenticated",)), PODS, {}) for _ in range(level.most)]
        first, second = (asyncio.ensure_future(world.ask("user")) for _ in range(2))
        await asyncio.sleep(0.1)
        assert level.waiting_count == 2
        # The first has not run again when the seat comes back.
        first.cancel()
        held[0].release()
        await second
        assert world.served["user"] == 1
        for seat in held[1:]:
            seat.release()
        await asyncio.gather(first, return_exceptions=True)
        assert (level.seats_in_use, level.executing, level.waiting_count) == (0, 0, 0)

    virtual(story())


@pytest.mark.parametrize(
    ("path", "query", "objects", "width"),
    [
        ("/api/v1/pods/p", {}, 5000, 1),
        ("/api/v1/pods", {}, 50, 1),
        ("/api/v1/pods", {}, 250, 3),
        ("/api/v1/pods", {}, 5000, 10),
        ("/api/v1/pods", {"limit": "150"}, 5000, 2),
        ("/api/v1/pods", {"fieldSelector": "metadata.name=p"}, 5000, 1),
        ("/api/v1/pods", {"watch": "1"}, 5000, 1),
        ("/api/v1/pods", {"watch": "1", "sendInitialEvents": "true"}, 5000, 10),
    ],
)
def test_lists_take_as_many_seats_as_they_are_long(path: str, query: dict[str, str], objects: int, width: int) -> None:
    world = World(objects=objects)
    path = path.replace("/api/v1/pods/p", "/api/v1/namespaces/d/pods/p")

    async def story() -> None:
        seat = await world.flow.enter(User("a", groups=("system:authenticated",)), parse("GET", path, query), query)
        assert (seat.width, world.level("global-default").seats_in_use) == (width, width)
        seat.release()
        seat.release()
        assert world.level("global-default").seats_in_use == 0

    virtual(story())


def test_a_flow_is_always_dealt_the_same_hand_and_others_another() -> None:
    hands = {flow: deal(flow, 128, 6) for flow in map(str, range(1000))}
    assert all(len(set(hand)) == 6 and max(hand) < 128 for hand in hands.values())
    assert hands["7"] == deal("7", 128, 6)
    # How often two flows have all queues in common.
    assert len({tuple(sorted(hand)) for hand in hands.values()}) >= 999


def test_a_level_that_changes_finishes_what_it_began() -> None:
    world = World(total_seats=20)
    queuing = {"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 50}}
    world.add("mine", "me", shares=1, borrowingLimitPercent=0, limitResponse=queuing)

    async def story() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(world.ask("me"))
            await asyncio.sleep(0.5)
            spec = {**world.levels[-1]["spec"]["limited"], "nominalConcurrencyShares": 30}
            world.levels = [*world.levels[:-1], {**world.levels[-1], "spec": {"type": "Limited", "limited": spec}}]
            group.create_task(world.ask("me"))
        assert world.served == {"me": 4}

    virtual(story())


def over_http(story: Any, **config: Any) -> None:
    async def main() -> None:
        runtime = simulated(1)
        storage = Storage.open(None, runtime)
        server = ApiServer(
            runtime, storage, catalogue(), ServerConfig(advertise_host=ADDRESS, authenticator=HeaderAuthenticator(), **config)
        )
        running = asyncio.get_running_loop().create_task(server.run())
        await asyncio.sleep(1)
        await story(Api(server, storage))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await storage.close()

    virtual(main())


async def asked(api: Api, user: str, method: str, path: str, body: Any = None) -> Answer:
    return await api.call(method, path, body, headers={"x-user": user})


def test_answers_name_the_schema_and_the_level_and_a_new_schema_holds_at_once() -> None:
    async def story(api: Api) -> None:
        root = "root|system:masters"

        async def uids(user: str) -> tuple[str, str]:
            answer = await asked(api, user, "GET", "/version")
            return answer.header("x-kubernetes-pf-flowschema-uid"), answer.header("x-kubernetes-pf-prioritylevel-uid")

        async def uid(plural: str, name: str) -> str:
            return (await asked(api, root, "GET", f"{FLOW}/{plural}/{name}")).json["metadata"]["uid"]

        assert await uids("jane") == (
            await uid("flowschemas", "global-default"),
            await uid("prioritylevelconfigurations", "global-default"),
        )
        rule = {"subjects": [{"kind": "User", "user": {"name": "jane"}}], "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}
        spec = {"priorityLevelConfiguration": {"name": "catch-all"}, "matchingPrecedence": 1000, "rules": [rule]}
        made = await asked(api, root, "POST", f"{FLOW}/flowschemas", {"metadata": {"name": "janes"}, "spec": spec})
        assert made.code == 201
        assert await uids("jane") == (made.json["metadata"]["uid"], await uid("prioritylevelconfigurations", "catch-all"))
        assert (await uids("john"))[0] == await uid("flowschemas", "global-default")

    over_http(story)


def test_a_refusal_is_upstreams_429_and_is_counted() -> None:
    async def story(api: Api) -> None:
        root = "root|system:masters"
        limited = {"nominalConcurrencyShares": 0, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}}
        level = {"metadata": {"name": "none"}, "spec": {"type": "Limited", "limited": limited}}
        assert (await asked(api, root, "POST", f"{FLOW}/prioritylevelconfigurations", level)).code == 201
        rule = {
            "subjects": [{"kind": "User", "user": {"name": "jane"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": True, "namespaces": ["*"]}],
        }
        spec = {"priorityLevelConfiguration": {"name": "none"}, "matchingPrecedence": 10, "rules": [rule]}
        schema = (await asked(api, root, "POST", f"{FLOW}/flowschemas", {"metadata": {"name": "janes"}, "spec": spec})).json
        control = api.server.flow
        assert control is not None
        held = await control.enter(User("jane", groups=("system:authenticated",)), PODS, {})
        answer = await asked(api, "jane", "GET", "/api/v1/configmaps")
        assert (answer.code, answer.body, answer.header("retry-after")) == (429, b"Too many requests, please try again later.\n", "1")
        assert answer.header("content-type") == "text/plain; charset=utf-8"
        assert answer.header("x-kubernetes-pf-flowschema-uid") == schema["metadata"]["uid"]
        assert (await asked(api, root, "GET", "/api/v1/configmaps")).code == 200
        held.release()
        assert (await asked(api, "jane", "GET", "/api/v1/configmaps")).code == 200
        text = (await asked(api, root, "GET", "/metrics")).body.decode()
        labels = 'flow_schema="janes",priority_level="none"'
        assert f'apiserver_flowcontrol_rejected_requests_total{{{labels},reason="concurrency-limit"}} 1.0' in text
        assert f"apiserver_flowcontrol_dispatched_requests_total{{{labels}}} 2.0" in text
        assert 'apiserver_flowcontrol_nominal_limit_seats{priority_level="none"} 0.0' in text

    over_http(story)


def test_open_watches_hold_no_seats() -> None:
    async def story(api: Api) -> None:
        streams = []
        for _ in range(50):
            stream = api._open("GET", "/api/v1/configmaps", None, "", "", {"x-user": "jane"}, {"watch": "1"})
            await stream.started.wait()
            streams.append(stream)
        await asyncio.sleep(0.1)
        assert api.server.flow is not None
        assert all(one.seats_in_use == 0 for one in api.server.flow.levels)
        await api.namespace()
        made = await asked(api, "jane", "POST", "/api/v1/namespaces/d/configmaps", config_map("a"))
        assert made.code == 201
        assert [(await stream.take(1))[0] for stream in streams] == [("ADDED", "a")] * 50
        for stream in streams:
            await stream.leave()

    over_http(story, seats=10)
