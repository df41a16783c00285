"""Reads that the front door answers from the store: the same answers as the application's, and none after a revocation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from door import Certificate, Door, application, issue

from korch._core import native
from korch.apiserver.authn.authenticator import ANONYMOUS, CERTIFICATE_HEADER, user_of_certificate
from korch.apiserver.authz.chain import Chain
from korch.apiserver.authz.node import NodeAuthorizer
from korch.apiserver.authz.rbac import Rbac, SuperUsers
from korch.apiserver.grants import GUARDED
from korch.apiserver.identity import User
from korch.apiserver.server import ApiServer, ServerConfig
from korch.resources import catalogue
from korch.runtime.context import Runtime
from korch.storage import Storage

RBAC = "/apis/rbac.authorization.k8s.io/v1"
CONFIG_MAPS = "/api/v1/namespaces/d/configmaps"


class CertificateAuthenticator:
    """Believes certificates; a bearer token is the name of a user."""

    def authenticate(self, headers: Mapping[str, str]) -> User:
        if certificate := headers.get(CERTIFICATE_HEADER):
            user = user_of_certificate(certificate)
            return User(user.name, groups=("system:masters", *user.groups)) if user.name == "root" else user
        name, *groups = headers.get("authorization", "").removeprefix("Bearer ").split("|")
        return User(name, groups=(*groups, "system:authenticated")) if name else ANONYMOUS


class Cluster:
    """A server behind a front door that may read its store."""

    def __init__(self, door: Door, server: ApiServer) -> None:
        self.door = door
        self.server = server
        self.root = door.http(certificate=issue("root", door.authority))

    def user(self, name: str) -> httpx.AsyncClient:
        client = self.door.http()
        client.headers["authorization"] = f"Bearer {name}"
        return client

    async def make(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = await self.root.post(path, json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def allow(self, user: str, *, namespace: str = "", verbs: tuple[str, ...] = ("get", "list", "watch"), **rule: Any) -> str:
        """Let a user read config maps; return the path of the binding."""
        where = f"{RBAC}/namespaces/{namespace}/" if namespace else f"{RBAC}/cluster"
        await self.make(f"{where}roles", {"metadata": {"name": f"r-{user}"}, "rules": [_rule(verbs, rule)]})
        kind = "Role" if namespace else "ClusterRole"
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": f"r-{user}"}
        subject = {"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}
        await self.make(f"{where}rolebindings", {"metadata": {"name": f"b-{user}"}, "subjects": [subject], "roleRef": reference})
        return f"{where}rolebindings/b-{user}"

    def answered(self, verb: str = "", resource: str = "") -> int:
        """How many reads (of this verb and resource) were answered from the store so far."""
        return sum(line[5] for line in self.door.front.reads() if verb in ("", line[0]) and resource in ("", line[3]))


def _rule(verbs: tuple[str, ...], rule: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiGroups": [""], "resources": ["configmaps"], "verbs": list(verbs), **rule}


@asynccontextmanager
async def cluster(tmp_path: Path, authority: Certificate, *, is_sole: bool = True) -> AsyncIterator[Cluster]:
    runtime = Runtime()
    storage = Storage.open(None, runtime)
    rbac = Rbac(storage)
    chain = Chain([SuperUsers(), NodeAuthorizer(storage), rbac])
    server = ApiServer(runtime, storage, catalogue(), ServerConfig(authenticator=CertificateAuthenticator(), authorizer=chain, rbac=rbac))
    serving = issue("kube-apiserver", authority)
    front = native.Front(
        bind=["127.0.0.1:0"],
        upstream=str(tmp_path / "app.sock"),
        source=(storage.native, GUARDED, is_sole),
        **serving.written(tmp_path, authority),
    )
    (address,) = front.start()
    door = Door(front, address, authority, issue("alice", authority), tmp_path)
    running = asyncio.get_running_loop().create_task(server.run())
    try:
        async with application(door, server.app):
            while server.health.problems():
                await asyncio.sleep(0)
            made = Cluster(door, server)
            async with made.root:
                await made.make("/api/v1/namespaces", {"metadata": {"name": "d"}})
                # What is answered from the store begins with the tests.
                front.forget_grants()
                yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        front.stop()
        await storage.close()


async def config_maps(made: Cluster, count: int) -> list[dict[str, Any]]:
    found = []
    for index in range(count):
        labels = {"app": "even" if index % 2 == 0 else "odd"}
        found.append(await made.make(CONFIG_MAPS, {"metadata": {"name": f"c{index}", "labels": labels}, "data": {"n": str(index)}}))
    return found


READS = [
    f"{CONFIG_MAPS}/c1",
    f"{CONFIG_MAPS}/c1?resourceVersion=0",
    CONFIG_MAPS,
    "/api/v1/configmaps",
    f"{CONFIG_MAPS}?labelSelector=app%3Deven",
    f"{CONFIG_MAPS}?labelSelector=app+in+(odd,none),!legacy",
    f"{CONFIG_MAPS}?fieldSelector=metadata.name%3Dc2",
    f"{CONFIG_MAPS}?limit=2",
    f"{CONFIG_MAPS}?limit=2&labelSelector=app",
    f"{CONFIG_MAPS}?resourceVersion=0",
    f"{CONFIG_MAPS}?resourceVersion=1&resourceVersionMatch=NotOlderThan",
    "/api/v1/namespaces/d",
    "/api/v1/namespaces",
    "/apis/apps/v1/deployments",
]


@pytest.mark.parametrize("path", READS)
async def test_the_store_answers_as_the_application_does(tmp_path: Path, authority: Certificate, path: str):
    async with cluster(tmp_path, authority) as made:
        await config_maps(made, 5)
        # With a weight the application is asked, which knows what it means.
        first, second = await made.root.get(path, headers={"accept": "application/json;q=0.9"}), await made.root.get(path)
        assert made.answered() == 1
        assert (first.status_code, second.status_code) == (200, 200)
        assert first.content == second.content
        same = ("content-type", "cache-control", "content-length")
        assert [first.headers.get(name) for name in same] == [second.headers.get(name) for name in same]
        assert first.headers["audit-id"] != second.headers["audit-id"]
        assert not [name for answer in (first, second) for name in answer.headers if name.startswith("x-korch-")]


async def test_pages_continue_at_their_revision_whoever_answers(tmp_path: Path, authority: Certificate):
    async with cluster(tmp_path, authority) as made:
        await config_maps(made, 5)
        names, token = [], ""
        for turn in range(3):
            page = (await made.root.get(f"{CONFIG_MAPS}?limit=2&continue={token}")).json()
            names += [one["metadata"]["name"] for one in page["items"]]
            token = page["metadata"].get("continue", "")
            # What happens in between is on no page.
            await made.root.delete(f"{CONFIG_MAPS}/c4") if turn == 0 else None
        assert (names, token) == (["c0", "c1", "c2", "c3", "c4"], "")
        assert made.answered("LIST") == 3


async def test_what_the_store_cannot_say_the_application_says(tmp_path: Path, authority: Certificate):
    async with cluster(tmp_path, authority) as made:
        await config_maps(made, 1)
        await made.root.get(f"{CONFIG_MAPS}/c0")
        await made.root.get(CONFIG_MAPS)
        answered = made.answered()
        missing = await made.root.get(f"{CONFIG_MAPS}/none")
        assert (missing.status_code, missing.json()["message"]) == (404, 'configmaps "none" not found')
        assert (await made.root.get(f"{CONFIG_MAPS}?labelSelector=a=b=c")).status_code == 400
        assert (await made.root.get(f"{CONFIG_MAPS}?fieldSelector=data.n%3D1")).status_code == 400
        assert (await made.root.get(f"{CONFIG_MAPS}?resourceVersion=999999")).json()["details"]["causes"][0][
            "reason"
        ] == "ResourceVersionTooLarge"
        table = await made.root.get(CONFIG_MAPS, headers={"accept": "application/json;as=Table;g=meta.k8s.io;v=v1"})
        assert table.json()["kind"] == "Table"
        assert (await made.root.get(f"{CONFIG_MAPS}/c0", headers={"accept": "application/yaml"})).text.startswith("kind: ConfigMap\n")
        assert made.answered() == answered


async def test_nothing_slips_through_after_a_revocation(tmp_path: Path, authority: Certificate):
    async with cluster(tmp_path, authority) as made, made.user("bob") as bob:
        await config_maps(made, 1)
        for _ in range(20):
            binding = await made.allow("bob")
            codes = [(await bob.get(path)).status_code for path in (CONFIG_MAPS, f"{CONFIG_MAPS}/c0") for _ in range(2)]
            assert codes == [200] * 4
            removed = asyncio.Event()

            async def read(removed: asyncio.Event = removed) -> list[int]:
                """Read all the time; return the codes of requests that began when the removal had been answered."""
                late = []
                for _ in range(40):
                    was_removed = removed.is_set()
                    answer = await bob.get(CONFIG_MAPS)
                    late += [answer.status_code] if was_removed else []
                return late

            readers = [asyncio.get_running_loop().create_task(read()) for _ in range(3)]
            assert (await made.root.delete(binding)).status_code == 200
            removed.set()
            for late in await asyncio.gather(*readers):
                assert set(late) <= {403}
            assert (await bob.get(f"{CONFIG_MAPS}/c0")).status_code == 403
            await made.root.delete(f"{RBAC}/clusterroles/r-bob")
        assert made.answered() >= 40


async def test_a_grant_is_as_wide_as_the_permission(tmp_path: Path, authority: Certificate):
    async with cluster(tmp_path, authority) as made:
        await config_maps(made, 2)
        await made.make("/api/v1/namespaces", {"metadata": {"name": "e"}})
        await made.make("/api/v1/namespaces/e/configmaps", {"metadata": {"name": "c0"}})
        await made.allow("everywhere")
        await made.allow("here", namespace="d")
        await made.allow("single", namespace="d", verbs=("get",), resourceNames=["c0"])
        for user, codes, answered in [("everywhere", [200, 200, 200], 6), ("here", [200, 200, 403], 4), ("single", [200, 403, 403], 2)]:
            async with made.user(user) as client:
                before = made.answered()
                for path, code in zip([f"{CONFIG_MAPS}/c0", f"{CONFIG_MAPS}/c1", "/api/v1/namespaces/e/configmaps/c0"], codes, strict=True):
                    assert [(await client.get(path)).status_code for _ in range(2)] == [code] * 2
                assert made.answered() - before == answered


async def test_a_node_is_granted_no_more_than_its_pods(tmp_path: Path, authority: Certificate):
    async with cluster(tmp_path, authority) as made, made.user("system:node:n1|system:nodes") as node:
        own, other = "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2"
        assert [(await node.get(path)).status_code for path in (own, own, other, "/api/v1/pods")] == [200, 200, 403, 403]
        assert made.answered() == 2


async def test_impersonation_and_the_anonymous_always_meet_the_application(tmp_path: Path, authority: Certificate):
    async with cluster(tmp_path, authority) as made, made.door.http() as nobody:
        await config_maps(made, 1)
        path = f"{CONFIG_MAPS}/c0"
        assert [(await made.root.get(path)).status_code for _ in range(2)] == [200, 200]
        assert (await made.root.get(path, headers={"impersonate-user": "bob"})).status_code == 403
        assert (await nobody.get(path)).status_code == 403
        assert (await nobody.get(path, headers={"x-korch-ask": "1"})).status_code == 403


async def test_other_servers_writes_are_not_missed(tmp_path: Path, authority: Certificate):
    async with cluster(tmp_path, authority, is_sole=False) as made:
        await config_maps(made, 1)
        path = f"{CONFIG_MAPS}/c0"
        for _ in range(2):
            await made.root.get(path)
            await made.root.get(CONFIG_MAPS)
        assert made.answered() == 0
        await made.root.get(f"{path}?resourceVersion=0")
        assert made.answered() == 1


class Lines:
    """The lines of an open watch."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.aiter_lines()

    async def next(self) -> tuple[str, dict[str, Any]]:
        event = json.loads(await anext(self._lines))
        return event["type"], event["object"]

    async def take(self, count: int) -> list[tuple[str, str]]:
        return [(kind, obj["metadata"].get("name", "")) for kind, obj in [await self.next() for _ in range(count)]]

    async def rest(self) -> list[str]:
        return [line async for line in self._lines]


async def primed(made: Cluster) -> None:
    """Make the front door know that root may watch config maps."""
    assert (await made.root.get(f"{CONFIG_MAPS}?watch=1&resourceVersion=1&timeoutSeconds=1")).status_code == 200


@pytest.mark.parametrize("http2", [False, True], ids=["http/1.1", "http/2"])
async def test_a_watch_shows_the_present_its_end_and_every_change(tmp_path: Path, authority: Certificate, http2: bool):
    async with cluster(tmp_path, authority) as made:
        await config_maps(made, 2)
        query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&labelSelector=app%3Deven"
        async with made.door.http(http2=http2, certificate=issue("root", authority)) as client:
            async with client.stream("GET", f"{CONFIG_MAPS}?{query}", timeout=30) as answer:
                # This certificate is another identity, so it is asked first whether it may.
                asked = await Lines(answer).take(2)
            async with client.stream("GET", f"{CONFIG_MAPS}?{query}", timeout=30) as answer:
                assert (asked, made.answered("WATCH")) == ([("ADDED", "c0"), ("BOOKMARK", "")], 2)
                lines = Lines(answer)
                assert await lines.take(1) == [("ADDED", "c0")]
                kind, end = await lines.next()
                assert (kind, end["metadata"]["annotations"]) == ("BOOKMARK", {"k8s.io/initial-events-end": "true"})
                relabel = {"content-type": "application/merge-patch+json"}
                await made.root.patch(f"{CONFIG_MAPS}/c1", content=b'{"metadata":{"labels":{"app":"even"}}}', headers=relabel)
                await made.root.patch(f"{CONFIG_MAPS}/c1", content=b'{"data":{"n":"9"}}', headers=relabel)
                await made.root.patch(f"{CONFIG_MAPS}/c1", content=b'{"metadata":{"labels":{"app":"odd"}}}', headers=relabel)
                await made.root.delete(f"{CONFIG_MAPS}/c0")
                assert await lines.take(4) == [("ADDED", "c1"), ("MODIFIED", "c1"), ("DELETED", "c1"), ("DELETED", "c0")]


async def test_a_watch_resumes_and_ends_with_its_timeout(tmp_path: Path, authority: Certificate):
    async with cluster(tmp_path, authority) as made:
        first, *_ = await config_maps(made, 3)
        await primed(made)
        revision = first["metadata"]["resourceVersion"]
        async with made.root.stream("GET", f"{CONFIG_MAPS}?watch=1&resourceVersion={revision}&timeoutSeconds=1", timeout=30) as answer:
            lines = Lines(answer)
            assert await lines.take(2) == [("ADDED", "c1"), ("ADDED", "c2")]
            assert await lines.rest() == []
        assert made.answered("WATCH") == 2


async def test_a_door_that_closes_ends_the_watches(tmp_path: Path, authority: Certificate):
    async with cluster(tmp_path, authority) as made:
        await primed(made)
        async with made.root.stream("GET", f"{CONFIG_MAPS}?watch=1&resourceVersion=1", timeout=30) as answer:
            assert made.answered("WATCH") == 2
            await asyncio.get_running_loop().run_in_executor(None, made.door.front.stop, 5_000)
            assert await Lines(answer).rest() == []


async def test_reads_of_the_door_are_counted_as_requests(tmp_path: Path, authority: Certificate):
    async with cluster(tmp_path, authority) as made:
        made.server.metrics.front_reads = made.door.front.reads
        await config_maps(made, 1)
        for _ in range(4):
            await made.root.get(f"{CONFIG_MAPS}/c0")
        for _ in range(2):
            text = (await made.root.get("/metrics")).text
        (line,) = [
            line
            for line in text.splitlines()
            if 'verb="GET"' in line and 'resource="configmaps"' in line and line.startswith("apiserver_request_total")
        ]
        assert line.endswith(" 4.0")


async def test_a_change_of_kinds_ends_every_grant(tmp_path: Path, authority: Certificate):
    async with cluster(tmp_path, authority) as made:
        await config_maps(made, 1)
        for _ in range(3):
            await made.root.get(CONFIG_MAPS)
        assert made.answered() == 3
        kinds = made.server.pipeline.catalogue
        kinds.on_change(made.door.front.forget_grants)
        config_map = kinds.get("", "v1", "configmaps")
        assert config_map is not None
        kinds.remove("", "v1", "configmaps")
        assert (await made.root.get(CONFIG_MAPS)).status_code == 404
        kinds.add(config_map)
        assert (await made.root.get(CONFIG_MAPS)).status_code == 200
        assert made.answered() == 4


async def test_asking_whether_a_read_is_allowed_costs_the_application_no_read(tmp_path: Path, authority: Certificate):
    async with cluster(tmp_path, authority) as made:
        made.server.metrics.front_reads = made.door.front.reads
        await config_maps(made, 3)
        before = made.door.front.stats()
        found = await made.root.get(CONFIG_MAPS)
        assert [one["metadata"]["name"] for one in found.json()["items"]] == ["c0", "c1", "c2"]
        assert made.door.front.stats()["handed_over"] - before["handed_over"] == 1
        assert made.answered("LIST") == 1
        text = (await made.root.get("/metrics")).text
        lists = [line for line in text.splitlines() if line.startswith("apiserver_request_total") and 'verb="LIST",version="v1"' in line]
        assert [line for line in lists if 'resource="configmaps"' in line and line.endswith(" 1.0")]
        assert 'apiserver_current_inflight_requests{request_kind="readOnly"} 1.0' in text
