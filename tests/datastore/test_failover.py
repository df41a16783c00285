"""A store on etcd while members die: nothing answered is lost or made twice, no watch misses or repeats anything, nothing hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from korch._core import native
from korch.api.errors import ApiError
from korch.runtime.context import Runtime
from korch.storage import EtcdStorage, parse_datastore
from tests.datastore.members import PATIENCE_S, EtcdCluster, Relay

HEAD = b'{"metadata":{"resourceVersion":"'
MAPS = b"/registry/core/configmaps/"
pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("failover")]


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path) as started:
        yield started


def connect(etcd: EtcdCluster, **options: Any) -> EtcdStorage:
    return EtcdStorage.connect(parse_datastore(etcd.datastore, **options), Runtime())


@pytest.fixture
async def storage(etcd: EtcdCluster) -> AsyncIterator[EtcdStorage]:
    opened = connect(etcd)
    yield opened
    await opened.close()


def put(name: str, body: Any, expected: int | None = 0) -> Any:
    value = HEAD + b'"},"body":' + orjson.dumps(body) + b"}"
    return MAPS + name.encode(), value, expected, len(HEAD), {"app": "x"}, {}, ()


def delete(name: str, expected: int) -> Any:
    return MAPS + name.encode(), None, expected, -1, {}, {}, ()


def body_of(value: bytes | None) -> Any:
    return orjson.loads(value or b"{}")["body"]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


class Writers:
    """Several tasks, each with a counter and a list of single keys: creates, increments and deletions, as fast as they go."""

    def __init__(self, storage: EtcdStorage, count: int) -> None:
        self.storage = storage
        self.acknowledged = [0] * count
        self.unknown = [0] * count
        self.created: set[str] = set()
        self.deleted: set[str] = set()
        self.doubtful: set[str] = set()
        self.is_stopping = False

    async def run(self, index: int) -> None:
        counter, number, revision = f"counter-{index}", 0, 0
        while not self.is_stopping:
            single = f"single-{index}-{number}"
            number += 1
            try:
                at, _ = await self.storage.commit([put(single, number)])
                self.created.add(single)
                if number % 3 == 0:
                    await self.storage.commit([delete(single, at)])
                    self.created.discard(single)
                    self.deleted.add(single)
            except ApiError:
                self.doubtful.add(single)
                self.created.discard(single)
            record = self.storage.get(MAPS + counter.encode())
            value = body_of(record.value) + 1 if record is not None else 1
            revision = record.mod_revision if record is not None else 0
            try:
                await self.storage.commit([put(counter, value, revision)])
                self.acknowledged[index] += 1
            except ApiError:
                self.unknown[index] += 1
                await asyncio.sleep(0.05)
            except (native.RevisionMismatch, native.KeyExists):
                # Only a write of our own whose answer said that nobody knows can have moved it.
                assert self.unknown[index] > 0
                await self.storage.settled()

    def check(self, values: dict[str, Any]) -> None:
        for index, acknowledged in enumerate(self.acknowledged):
            found = values[f"counter-{index}"]
            assert acknowledged <= found <= acknowledged + self.unknown[index], (index, found, acknowledged, self.unknown)
        assert {name for name in self.created - self.doubtful if name not in values} == set()
        assert {name for name in self.deleted - self.doubtful if name in values} == set()


def stored(storage: EtcdStorage) -> dict[str, Any]:
    page = storage.range(MAPS)
    return {key[len(MAPS) :].decode(): body_of(value) for key, value in zip(page.keys, page.values, strict=True)}


async def follow(storage: EtcdStorage, from_revision: int, into: list[tuple[int, int, bytes]]) -> None:
    async with storage.watch(MAPS, from_revision) as watch:
        while events := await watch.next_events():
            into.extend(events)


def replay(events: list[tuple[int, int, bytes]]) -> tuple[int, int]:
    """Check that events are in order, and that they are a possible history; return how many objects they leave and the last revision."""
    alive: dict[int, int] = {}
    last = 0
    for kind, revision, _ in events:
        assert revision >= last
        last = revision
        alive[kind] = alive.get(kind, 0) + 1
    return alive.get(0, 0) - alive.get(2, 0), last


@pytest.mark.parametrize("victim", ["leader", "follower"])
async def test_no_answered_write_is_lost_or_doubled_and_no_event_missed_when_members_die(
    etcd: EtcdCluster, storage: EtcdStorage, victim: str
) -> None:
    other = connect(etcd)
    events: list[tuple[int, int, bytes]] = []
    elsewhere: list[tuple[int, int, bytes]] = []
    start = storage.revision()
    await other.reached(start)
    watches = [asyncio.ensure_future(follow(storage, start, events)), asyncio.ensure_future(follow(other, start, elsewhere))]
    writers = Writers(storage, 6)
    writing = [asyncio.ensure_future(writers.run(index)) for index in range(6)]

    async def progress() -> None:
        goal = sum(writers.acknowledged) + 60
        await until(lambda: sum(writers.acknowledged) >= goal)

    await progress()
    for _ in range(2):
        leader = await asyncio.to_thread(etcd.leader)
        dying = leader if victim == "leader" else next(one for one in etcd.members if one is not leader)
        dying.kill()
        await progress()
        dying.start()
        await asyncio.to_thread(etcd.wait)
        await progress()
    writers.is_stopping = True
    await asyncio.gather(*writing)
    await storage.caught_up()
    writers.check(stored(storage))
    await other.caught_up()
    assert stored(other) == stored(storage)
    # Deletions and creations balance, and both servers told the same history event by event.
    last = events[-1][1]
    await until(lambda: bool(elsewhere) and elsewhere[-1][1] >= last)
    assert elsewhere == events
    assert replay(events)[0] == len(stored(storage))
    await other.close()
    await storage.close()
    await asyncio.gather(*watches)
    assert storage.stats()["datastore_relists"] == 0


async def test_a_frozen_member_is_left_for_another(etcd: EtcdCluster, storage: EtcdStorage) -> None:
    await storage.commit([put("a", 1)])
    frozen = etcd.members[0]
    frozen.pause()
    try:
        await storage.commit([put("b", 2)])
        await storage.caught_up()
        assert stored(storage) == {"a": 1, "b": 2}
    finally:
        frozen.resume()


async def test_without_a_majority_requests_fail_in_upstreams_words_and_recover(etcd: EtcdCluster) -> None:
    storage = connect(etcd)
    storage_in_haste = EtcdStorage.connect(replace(parse_datastore(etcd.datastore), timeout_s=1.5), Runtime())
    await storage.commit([put("a", 1)])
    for member in etcd.members[1:]:
        member.kill()
    with pytest.raises(ApiError) as read:
        await storage_in_haste.caught_up()
    with pytest.raises(ApiError) as write:
        await storage_in_haste.commit([put("b", 1)])
    for error in (read.value, write.value):
        assert (error.code, error.message[:23]) in (
            (500, "etcdserver: request tim"),
            (500, "etcdserver: leader chan"),
            (504, "Timeout: request did no"),
        )
    # What is already here can still be read by those who may see an old state.
    assert stored(storage)["a"] == 1
    await until(lambda: storage.problem() != "")
    for member in etcd.members[1:]:
        member.start()
    await asyncio.to_thread(etcd.wait)
    await storage.caught_up()
    await storage.commit([put("c", 3)])
    await until(lambda: storage.problem() == "")
    # The write that nobody answered for was made once or not at all.
    assert stored(storage) | {"b": 1} == {"a": 1, "b": 1, "c": 3}
    await storage.close()
    await storage_in_haste.close()


async def test_a_watch_goes_on_after_an_outage_and_ends_when_history_was_compacted_meanwhile(tmp_path: Path) -> None:
    with EtcdCluster(tmp_path, size=1) as etcd:
        relay = Relay(etcd.members[0])
        await relay.open()
        writer = connect(etcd)
        storage = await asyncio.to_thread(EtcdStorage.connect, parse_datastore(relay.datastore), Runtime())
        at, _ = await storage.commit([put("a", 1), put("gone", 1)])
        watch = storage.watch(MAPS, at)

        await relay.cut()
        await until(lambda: storage.problem() != "")
        second, _ = await writer.commit([put("a", 2, at)])
        await relay.open()
        await storage.reached(second)
        assert [(kind, body_of(value)) for kind, _, value in await watch.next_events()] == [(1, 2)]
        assert storage.stats()["datastore_relists"] == 0

        await relay.cut()
        await until(lambda: storage.problem() != "")
        third, _ = await writer.commit([put("a", 3, second), delete("gone", at)])
        etcd.etcdctl("compaction", str(third))
        await relay.open()
        await storage.reached(third)
        assert stored(storage) == {"a": 3} and storage.stats()["datastore_relists"] == 1
        with pytest.raises(native.WatcherLagged):
            await watch.next_events()
        with pytest.raises(native.Compacted):
            storage.watch(MAPS, at)
        await writer.close()
        await storage.close()
        await relay.cut()


async def test_a_cluster_restored_from_an_older_backup_is_read_again(tmp_path: Path) -> None:
    with EtcdCluster(tmp_path, size=1) as etcd:
        storage = connect(etcd)
        first, _ = await storage.commit([put("kept", 1)])
        etcd.etcdctl("snapshot", "save", str(tmp_path / "backup"))
        for number in range(20):
            await storage.commit([put(f"lost-{number}", 1)])
        watch = storage.watch(MAPS, storage.revision())
        etcd.members[0].kill()
        peer = next(one for one in etcd.members[0].arguments if one.startswith("--initial-advertise-peer-urls="))
        names = ("--name=", "--initial-cluster=", "--initial-cluster-token=")
        options = [one for one in etcd.members[0].arguments if one.startswith(names)]
        (tmp_path / "m0").rename(tmp_path / "before")
        etcd.etcdctl("snapshot", "restore", str(tmp_path / "backup"), f"--data-dir={tmp_path / 'm0'}", peer, *options)
        etcd.members[0].start()
        await asyncio.to_thread(etcd.wait)
        await storage.caught_up()
        assert stored(storage) == {"kept": 1}
        with pytest.raises(native.WatcherLagged):
            await watch.next_events()
        await storage.commit([put("kept", 2, first)])
        await storage.close()


async def test_a_compaction_is_won_by_one_server_and_old_revisions_go(etcd: EtcdCluster, storage: EtcdStorage) -> None:
    other = connect(etcd)
    start, _ = await storage.commit([put("a", 0)])
    tasks = [asyncio.ensure_future(one.run(interval_s=0.2)) for one in (storage, other)]
    revision = start
    async with asyncio.timeout(PATIENCE_S):
        while True:
            revision, _ = await storage.commit([put("a", 1, revision)])
            if etcd.is_compacted(start) and storage.compacted() > start and other.compacted() > start:
                break
            await asyncio.sleep(0.02)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await other.caught_up()
    assert stored(other) == stored(storage) == {"a": 1}
    await other.close()


async def test_tls_with_client_certificates(tmp_path: Path) -> None:
    with EtcdCluster(tmp_path, tls=True) as etcd:
        files = {"ca_file": etcd.ca_file, "cert_file": etcd.cert_file, "key_file": etcd.key_file}
        storage = connect(etcd, **files)
        await storage.commit([put("a", 1)])
        await storage.caught_up()
        assert stored(storage) == {"a": 1}
        assert (
            etcd.etcdctl("get", "/registry/core/configmaps/a", "--print-value-only").splitlines()[0]
            == '{"metadata":{"resourceVersion":""},"body":1}'
        )
        await storage.close()
        with pytest.raises(native.DatastoreError):
            await asyncio.to_thread(connect_in_haste, etcd)


def connect_in_haste(etcd: EtcdCluster) -> None:
    """Try without a client certificate."""
    EtcdStorage.connect(replace(parse_datastore(etcd.datastore, ca_file=etcd.ca_file), timeout_s=1.0), Runtime())


async def test_values_of_others_are_skipped_and_told(etcd: EtcdCluster, storage: EtcdStorage) -> None:
    etcd.etcdctl("put", "/registry/core/configmaps/foreign", '{"kind":"ConfigMap"}')
    etcd.etcdctl("put", "/elsewhere/a", "x")
    await storage.caught_up()
    assert stored(storage) == {} and storage.stats()["datastore_unreadable"] == 1
    with pytest.raises(native.KeyExists):
        await storage.commit([put("foreign", 1)])


@pytest.mark.parametrize(
    ("text", "files", "why"),
    [
        ("redis://h:1", {}, "no datastore"),
        ("etcd://h", {}, "no member"),
        ("etcd://h:x", {}, "no member"),
        ("etcd://", {}, "no member"),
        ("https://h:1", {}, "--etcd-cafile"),
        ("etcd://h:1", {"ca_file": "a", "cert_file": "b"}, "belong together"),
        ("etcd://h:1", {"prefix": "x"}, "--etcd-prefix"),
    ],
)
def test_a_wrong_datastore_is_refused_with_what_is_right(text: str, files: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_datastore(text, **files)


def test_a_datastore_is_named_as_etcd_or_as_kube_apiserver_does() -> None:
    assert parse_datastore("etcd://a:1,b:2").endpoints == ("http://a:1", "http://b:2")
    assert parse_datastore("etcd://a:1", ca_file="c").endpoints == ("https://a:1",)
    assert parse_datastore("http://a:1,http://[::1]:2").endpoints == ("http://a:1", "http://[::1]:2")
