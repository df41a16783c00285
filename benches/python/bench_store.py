"""How long the store takes: commit, get, range, watch dispatch, group commit on disk.

Run: `pytest benches/python/bench_store.py --benchmark-json=benches/results/store.json`. Watch dispatch is measured for 10 and for
10,000 watchers that each follow their own spec.nodeName: the two figures should be close, whatever the machine.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from korch._core import native
from korch.runtime.context import Runtime
from korch.storage import Storage

HEAD = b'{"apiVersion":"v1","kind":"Pod","metadata":{"resourceVersion":"'
POD_1K = HEAD + b'","name":"' + b"x" * 950 + b'"}}'
POD_3K = HEAD + b'","name":"' + b"x" * 2950 + b'"}}'
LABELS = {"app": "web", "pod-template-hash": "5d8f9c7b6d"}


def pod(number: int, value: bytes = POD_1K, *, node: str = "n1"):
    fields = {"metadata.name": f"web-{number}", "metadata.namespace": "default", "spec.nodeName": node, "status.phase": "Running"}
    return (f"/registry/pods/default/web-{number:06}".encode(), value, None, len(HEAD), LABELS, fields, [f"uid-{number % 1000}"])


def filled(count: int, value: bytes = POD_1K, nodes: int = 100) -> native.Store:
    store = native.Store(None)
    for start in range(0, count, 1000):
        store.commit([pod(number, value, node=f"n{number % nodes}") for number in range(start, min(count, start + 1000))])
    store.publish(store.flush())
    return store


def test_commit_and_publish_one_update_in_memory(benchmark):
    store, op = filled(10_000), pod(5_000)

    def commit() -> None:
        revision, _ = store.commit([op])
        store.publish(revision)

    benchmark(commit)


def test_get_one_object(benchmark):
    store = filled(10_000)
    record = benchmark(store.get, b"/registry/pods/default/web-005000")
    assert record.mod_revision > 1


@pytest.mark.parametrize(
    "selector", [[], [("field", "spec.nodeName", "=", ["n1"])], [("label", "app", "exists", [])]], ids=["all", "node", "scan"]
)
def test_range_over_10_000_objects_of_3_kb(benchmark, selector):
    store = filled(10_000, POD_3K)
    values = benchmark(lambda: store.range(b"/registry/pods/", selector=selector).values)
    assert len(values) == (100 if selector and selector[0][0] == "field" else 10_000)


def test_list_body_of_10_000_objects_of_3_kb(benchmark):
    store = filled(10_000, POD_3K)
    body = benchmark(lambda: store.range(b"/registry/pods/").joined())
    assert len(body) > 10_000 * 3_000


def test_first_page_of_500_of_100_000_objects(benchmark):
    store = filled(100_000)
    page = benchmark(store.range, b"/registry/pods/", limit=500)
    assert page.remaining == 99_500


@pytest.mark.parametrize("watchers", [10, 10_000])
def test_dispatch_to_watchers_of_one_node_each(benchmark, watchers):
    store = filled(1)
    watched = [
        store.watch(b"/registry/pods/", from_revision=store.revision(), selector=[("field", "spec.nodeName", "=", [f"n{node}"])])
        for node in range(watchers)
    ]
    ops = [pod(0, node=f"n{node}") for node in (3, 7)]

    def event() -> None:
        for op in ops:
            revision, _ = store.commit([op])
            store.publish(revision)
        store.poll_frames(watched[3])
        store.poll_frames(watched[7])

    benchmark(event)


def test_fan_out_of_one_event_to_1_000_watchers(benchmark):
    store = filled(1)
    watchers = [store.watch(b"/registry/pods/", from_revision=store.revision()) for _ in range(1_000)]
    op = pod(0)

    def event() -> None:
        revision, _ = store.commit([op])
        store.publish(revision)
        for watcher in watchers:
            store.poll_frames(watcher)

    benchmark(event)


@pytest.mark.parametrize("writers", [1, 16, 256])
def test_awaited_commits_on_disk(benchmark, writers, tmp_path: Path):
    """Time for 1,024 durable commits of 1 KB by so many asyncio tasks."""

    async def run(storage: Storage) -> None:
        async def writer(number: int) -> None:
            for _ in range(1024 // writers):
                await storage.commit([pod(number)])

        await asyncio.gather(*(writer(number) for number in range(writers)))

    with asyncio.Runner() as runner:
        storage = Storage.open(str(tmp_path), Runtime())
        benchmark.pedantic(lambda: runner.run(run(storage)), rounds=5, warmup_rounds=1)
        benchmark.extra_info["commits_per_flush"] = storage.revision() / storage.stats()["flushes"]
        runner.run(storage.close())


def test_open_a_log_of_20_000_commits(benchmark, tmp_path: Path):
    store = native.Store(str(tmp_path))
    for number in range(20_000):
        store.commit([pod(number)])
    store.close()

    def reopen() -> None:
        native.Store(str(tmp_path)).close()

    benchmark.pedantic(reopen, rounds=5)
