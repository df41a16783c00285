"""One suite for every store: in memory, on the embedded log, and on a real cluster of etcd. All must behave the same."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from korch._core import native
from korch.runtime.context import Runtime
from korch.storage import EtcdStorage, Storage, parse_datastore
from tests.datastore.members import EtcdCluster

HEAD, TAIL = b'{"metadata":{"resourceVersion":"', b'"}'
PODS = b"/registry/core/pods/"
_numbers = itertools.count()


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path_factory.mktemp("etcd")) as cluster:
        yield cluster


Opener = Callable[[], Storage]


@pytest.fixture(params=["memory", "log", "etcd"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Give what opens the arm's store; the durable ones find what was written before."""
    if request.param == "memory":
        return lambda: Storage.open(None, Runtime())
    if request.param == "log":
        return lambda: Storage.open(str(tmp_path / "store"), Runtime())
    cluster: EtcdCluster = request.getfixturevalue("etcd")
    options = parse_datastore(cluster.datastore, prefix=f"/test-{next(_numbers)}")
    return lambda: EtcdStorage.connect(options, Runtime())


@pytest.fixture
async def storage(opener: Opener) -> AsyncIterator[Storage]:
    opened = opener()
    yield opened
    await opened.close()


def put(name: str, expected: int | None = 0, *, body: str = "", owners: tuple[str, ...] = (), node: str = "", **labels: str) -> Any:
    rest = b',"body":' + orjson.dumps(body) + b"}"
    fields = {"metadata.name": name, "spec.nodeName": node}
    return PODS + name.encode(), HEAD + TAIL + rest, expected, len(HEAD), labels, fields, owners


def delete(name: str, expected: int | None) -> Any:
    return PODS + name.encode(), None, expected, -1, {}, {}, ()


def body_of(value: bytes | None) -> str:
    assert value is not None
    return orjson.loads(value)["body"]


def version_of(value: bytes) -> int:
    return int(orjson.loads(value)["metadata"]["resourceVersion"])


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.005)


async def test_what_is_committed_is_answered_and_read_with_its_revision(storage: Storage) -> None:
    revision, [value] = await storage.commit([put("a", body="ä")])
    assert value is not None and version_of(value) == revision and body_of(value) == "ä"
    record = storage.get(PODS + b"a")
    assert record is not None
    assert (record.value, record.mod_revision, record.create_revision, record.version) == (value, revision, revision, 1)
    newer, [value] = await storage.commit([put("a", revision, body="2")])
    record = storage.get(PODS + b"a")
    assert newer > revision and record is not None
    assert (record.value, record.mod_revision, record.create_revision, record.version) == (value, newer, revision, 2)
    assert storage.revision() >= newer


async def test_a_precondition_that_fails_names_the_op_and_changes_nothing(storage: Storage) -> None:
    first, _ = await storage.commit([put("a")])
    second, _ = await storage.commit([put("a", first)])
    with pytest.raises(native.KeyExists) as exists:
        await storage.commit([put("new"), put("a", 0)])
    assert exists.value.args == (1,)
    with pytest.raises(native.RevisionMismatch) as mismatch:
        await storage.commit([put("new"), put("other"), delete("a", first)])
    assert mismatch.value.args == (2, second)
    for op in (put("missing", first), delete("missing", first), delete("missing", None)):
        with pytest.raises(native.KeyMissing) as missing:
            await storage.commit([op])
        assert missing.value.args == (0,)
    await storage.settled()
    assert storage.range(PODS).keys == [PODS + b"a"]


async def test_ops_of_a_commit_share_a_revision_and_a_key_stands_once(storage: Storage) -> None:
    old, _ = await storage.commit([put("old")])
    watch = storage.watch(PODS, storage.revision())
    revision, values = await storage.commit([put("a"), delete("old", old), put("b", None)])
    assert [value is None for value in values] == [False, True, False]
    page = storage.range(PODS)
    assert page.keys == [PODS + b"a", PODS + b"b"] and {version_of(one) for one in page.values} == {revision}
    events = await watch.next_events()
    assert [(kind, at) for kind, at, _ in events] == [(0, revision), (2, revision), (0, revision)]
    with pytest.raises(ValueError, match="only once"):
        await storage.commit([put("twice"), put("twice", None)])
    watch.close()


async def test_a_range_is_paged_selected_and_historic(storage: Storage) -> None:
    for index in range(7):
        at, _ = await storage.commit([put(f"p{index}", app="web" if index % 2 else "db", node=f"n{index % 3}")])
    page = storage.range(PODS, limit=3)
    assert page.keys == [PODS + b"p0", PODS + b"p1", PODS + b"p2"] and (page.next, page.remaining) == (PODS + b"p3", 4)
    await storage.commit([delete("p4", None), put("p9")])
    rest = storage.range(PODS, start=page.next, revision=at)
    assert rest.keys == [PODS + f"p{index}".encode() for index in (3, 4, 5, 6)]
    assert storage.range(PODS, selector=[("label", "app", "=", ["web"])]).keys == [PODS + b"p1", PODS + b"p3", PODS + b"p5"]
    assert storage.range(PODS, selector=[("field", "spec.nodeName", "=", ["n1"])]).keys == [PODS + b"p1"]
    with pytest.raises(native.FutureRevision):
        storage.range(PODS, revision=storage.revision() + 1_000_000)


async def test_owners_are_indexed(storage: Storage) -> None:
    at, _ = await storage.commit([put("a", owners=("u1", "u2")), put("b", owners=("u1",)), put("c")])
    assert storage.by_owner("u1") == [PODS + b"a", PODS + b"b"]
    await storage.commit([put("a", at, owners=("u2",)), delete("b", at)])
    assert storage.by_owner("u1") == [] and storage.by_owner("u2") == [PODS + b"a"]


async def test_a_watch_tells_what_starts_and_stops_to_match_in_order(storage: Storage) -> None:
    start = storage.revision()
    async with storage.watch(PODS, start, [("field", "spec.nodeName", "=", ["n1"])]) as watch:
        first, _ = await storage.commit([put("a", node="")])
        bound, _ = await storage.commit([put("a", first, node="n1")])
        changed, _ = await storage.commit([put("a", bound, node="n1", body="x")])
        moved, _ = await storage.commit([put("a", changed, node="n2")])
        lines: list[Any] = []
        while len(lines) < 3:
            lines += [orjson.loads(line) for line in (await watch.next_frames()).splitlines()]
    seen = [(line["type"], int(line["object"]["metadata"]["resourceVersion"])) for line in lines]
    assert seen == [("ADDED", bound), ("MODIFIED", changed), ("DELETED", moved)]
    async with storage.watch(PODS, bound) as again:
        assert [(kind, at) for kind, at, _ in await again.next_events()] == [(1, changed), (1, moved)]


async def test_compaction_ends_history_and_nothing_else(storage: Storage) -> None:
    first, _ = await storage.commit([put("a")])
    second, _ = await storage.commit([put("a", first)])
    await storage.compact(second)
    assert storage.compacted() == second
    with pytest.raises(native.Compacted):
        storage.get(PODS + b"a", first)
    with pytest.raises(native.Compacted):
        storage.watch(PODS, first)
    assert storage.get(PODS + b"a", second) is not None


async def test_of_racing_writers_each_revision_is_won_once(storage: Storage) -> None:
    await storage.commit([put("counter", body="0")])

    async def add(times: int) -> None:
        while times:
            record = storage.get(PODS + b"counter")
            assert record is not None
            try:
                await storage.commit([put("counter", record.mod_revision, body=str(int(body_of(record.value)) + 1))])
                times -= 1
            except native.RevisionMismatch:
                await storage.settled()

    start = storage.revision()
    watch = storage.watch(PODS, start)
    await asyncio.gather(*(add(10) for _ in range(8)))
    record = storage.get(PODS + b"counter")
    assert record is not None and body_of(record.value) == "80"
    seen: list[Any] = []
    while len(seen) < 80:
        seen += await watch.next_events()
    assert [body_of(value) for _, _, value in seen] == [str(number) for number in range(1, 81)]
    watch.close()


async def test_a_slow_watch_is_cut_and_others_go_on(storage: Storage) -> None:
    slow, quick = storage.watch(PODS, storage.revision()), storage.watch(PODS + b"k0", storage.revision())
    taken = 0
    for start in range(0, 12_000, 100):
        await storage.commit([put(f"k{index}", None) for index in range(start, start + 100)])
        taken += len(await quick.next_events()) if start == 0 else 0
    with pytest.raises(native.WatcherLagged):
        await slow.next_events()
    assert taken == 1
    slow.close()
    quick.close()


async def test_a_closed_store_ends_its_watches(opener: Opener) -> None:
    storage = opener()
    watch = storage.watch(PODS, storage.revision())
    waiting: Awaitable[Any] = asyncio.ensure_future(watch.next_frames())
    await asyncio.sleep(0)
    await storage.close()
    assert await waiting == b""


async def test_a_durable_store_is_found_again(opener: Opener, request: pytest.FixtureRequest) -> None:
    storage = opener()
    at, _ = await storage.commit([put("a", body="kept", app="web", owners=("u",)), put("b")])
    await storage.commit([delete("b", at)])
    record = storage.get(PODS + b"a")
    await storage.close()
    again = opener()
    try:
        found = again.get(PODS + b"a")
        if "memory" in request.node.name:
            assert found is None
            return
        assert found is not None and record is not None
        assert (found.value, found.mod_revision, found.version) == (record.value, at, 1)
        assert again.range(PODS, selector=[("label", "app", "=", ["web"])]).keys == [PODS + b"a"] == again.by_owner("u")
        newer, _ = await again.commit([put("a", at)])
        assert newer > at
    finally:
        await again.close()
