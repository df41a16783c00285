"""Storage: commits answer when they are visible, watches wake, compaction and closing behave."""

from __future__ import annotations

import asyncio

import pytest

from korch._core import native
from korch.storage import Storage

POD = b'{"metadata":{"resourceVersion":""}}'
SPLICE_AT = POD.index(b'""') + 1


def put(key: str, *, expected: int | None = None, node: str | None = None, **labels: str):
    fields = {} if node is None else {"spec.nodeName": node}
    return (key.encode(), POD, expected, SPLICE_AT, labels, fields, [])


def delete(key: str, *, expected: int | None = None):
    return (key.encode(), None, expected, -1, {}, {}, [])


def stored(revision: int) -> bytes:
    return b'{"metadata":{"resourceVersion":"%d"}}' % revision


async def test_an_answered_commit_is_visible(storage: Storage):
    revision, values = await storage.commit([put("/pods/a/x", expected=0)])
    assert (revision, values) == (2, [stored(2)])
    assert storage.revision() == 2
    record = storage.get(b"/pods/a/x")
    assert record is not None and record.value == stored(2)


async def test_commits_of_many_tasks_are_all_visible_in_order(storage: Storage):
    answers = await asyncio.gather(*(storage.commit([put(f"/pods/a/{i:03}", expected=0)]) for i in range(200)))
    assert sorted(revision for revision, _ in answers) == list(range(2, 202))
    assert storage.range(b"/pods/a/").values == [stored(2 + i) for i in range(200)]


async def test_a_refused_commit_raises_at_once_and_changes_nothing(storage: Storage):
    await storage.commit([put("/pods/a/x", expected=0)])
    with pytest.raises(native.KeyExists) as exists:
        await storage.commit([put("/pods/a/y", expected=0), put("/pods/a/x", expected=0)])
    assert exists.value.args == (1,)
    with pytest.raises(native.RevisionMismatch) as mismatch:
        await storage.commit([put("/pods/a/x", expected=7)])
    assert mismatch.value.args == (0, 2)
    with pytest.raises(native.KeyMissing):
        await storage.commit([delete("/pods/a/z")])
    assert storage.revision() == 2 and storage.get(b"/pods/a/y") is None


async def test_settled_waits_for_what_another_task_applied(storage: Storage):
    writer = asyncio.ensure_future(storage.commit([put("/pods/a/x")]))
    await asyncio.sleep(0)
    await storage.settled()
    assert storage.get(b"/pods/a/x") is not None
    await writer


async def test_a_watch_wakes_for_what_it_selects_and_only_for_that(storage: Storage):
    selector = [("field", "spec.nodeName", "=", ["n1"])]
    async with storage.watch(b"/pods/", storage.revision(), selector) as watch:
        waiting = asyncio.ensure_future(watch.next_events())
        await storage.commit([put("/pods/a/x", node="")])
        await asyncio.sleep(0)
        assert not waiting.done()
        await storage.commit([put("/pods/a/x", node="n1")])
        assert await waiting == [(0, 3, stored(3))]
        await storage.commit([delete("/pods/a/x")])
        assert await watch.next_frames() == b'{"type":"DELETED","object":' + stored(4) + b"}\n"


async def test_the_bookmark_revision_follows_events_that_do_not_concern_the_watch(storage: Storage):
    async with storage.watch(b"/pods/", 1) as watch:
        waiting = asyncio.ensure_future(watch.next_events())
        await asyncio.sleep(0)
        waiting.cancel()
        await storage.commit([put("/nodes/n1")])
        assert watch.revision == 2
        await storage.commit([put("/pods/a/x")])
        assert watch.revision == 2, "an event that was not taken yet must hold the bookmark back"
        await watch.next_events()
        assert watch.revision == 3


async def test_a_watch_resumes_from_the_past(storage: Storage):
    for name in ("x", "y", "z"):
        await storage.commit([put(f"/pods/a/{name}")])
    async with storage.watch(b"/pods/", 2) as watch:
        assert [revision for _, revision, _ in await watch.next_events()] == [3, 4]


async def test_closing_ends_a_waiting_watch(storage: Storage):
    watch = storage.watch(b"/pods/", 1)
    waiting = asyncio.ensure_future(watch.next_frames())
    await asyncio.sleep(0)
    watch.close()
    assert await waiting == b""
    assert storage.stats()["watchers"] == 0


async def test_a_watch_that_does_not_keep_up_is_cut(storage: Storage):
    watch = storage.watch(b"/pods/", 1)
    for start in range(0, 11_000, 1_000):
        await storage.commit([put(f"/pods/a/{i}") for i in range(start, start + 1_000)])
    with pytest.raises(native.WatcherLagged):
        await watch.next_events()


async def test_compaction_keeps_what_the_interval_saw_and_forgets_the_rest(storage: Storage):
    await storage.commit([put("/pods/a/x")])
    await storage.commit([put("/pods/a/x")])
    running = asyncio.ensure_future(storage.run(interval_s=0.01))
    while storage.compacted() < 3:
        await asyncio.sleep(0.005)
    running.cancel()
    with pytest.raises(native.Compacted):
        storage.watch(b"/pods/", 2)
    with pytest.raises(native.Compacted):
        storage.get(b"/pods/a/x", 2)
    assert storage.range(b"/pods/").values == [stored(3)]
    with pytest.raises(native.FutureRevision):
        await storage.compact(99)


async def test_owners_find_their_children(storage: Storage):
    await storage.commit(
        [(b"/pods/a/x", POD, 0, SPLICE_AT, {}, {}, ["uid-1", "uid-2"]), (b"/pods/a/y", POD, 0, SPLICE_AT, {}, {}, ["uid-1"])]
    )
    assert storage.by_owner("uid-1") == [b"/pods/a/x", b"/pods/a/y"]
    await storage.commit([delete("/pods/a/x")])
    assert (storage.by_owner("uid-1"), storage.by_owner("uid-2")) == ([b"/pods/a/y"], [])
