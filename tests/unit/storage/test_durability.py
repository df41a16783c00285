"""What a store on disk promises: nothing answered is lost, one process at a time, and no pretending after a failed write."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from korch._core import native
from korch.runtime.context import Runtime
from korch.storage import Storage

VALUE = b'{"rv":""}'


def put(key: str, expected: int | None = None):
    return (key.encode(), VALUE, expected, 7, {}, {}, [])


def python(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, env=environment)


# How often a writer is killed; a nightly run may ask for hundreds.
KILLS = int(os.environ.get("KORCH_STORE_KILLS", "3"))


def test_kill_9_of_a_writer_loses_nothing_that_was_answered_and_invents_nothing(tmp_path: Path):
    answered: dict[str, int] = {}
    highest = 1
    for round_ in range(KILLS):
        writer = python(str(Path(__file__).with_name("writer.py")), str(tmp_path / "store"))
        assert writer.stdout is not None
        # The range comes first: when it ends no line has been taken for nothing.
        for _, line in zip(range(100 + 200 * (round_ % 4)), writer.stdout, strict=False):
            key, revision = line.split()
            answered[key] = int(revision)
        writer.send_signal(signal.SIGKILL)
        for line in writer.stdout:
            if line.endswith("\n"):
                key, revision = line.split()
                answered[key] = int(revision)
        writer.wait()
        store = native.Store(str(tmp_path / "store"))
        unanswered = 0
        for key in store.range(b"").keys:
            unanswered += key.decode() not in answered
        # Each of the 16 tasks may have had one write on its way.
        assert unanswered <= 16 * (round_ + 1)
        for key, revision in answered.items():
            record = store.get(key.encode())
            assert revision == 0 or record is None or record.mod_revision == revision
            # The deletion that follows every fifth write may be durable though its answer was never read.
            assert (record is None) == (revision == 0) or (record is None and key.endswith(("4", "9"))), key
        highest = max(highest, *answered.values())
        assert store.revision() >= highest
        store.close()


def test_a_directory_belongs_to_one_store_at_a_time(tmp_path: Path):
    first = native.Store(str(tmp_path))
    with pytest.raises(native.StoreLocked, match="in use by another process"):
        native.Store(str(tmp_path))
    first.close()
    native.Store(str(tmp_path)).close()


def test_a_damaged_log_is_refused_with_the_file_the_offset_and_the_way_out(tmp_path: Path):
    store = native.Store(str(tmp_path))
    for name in ("x", "y"):
        store.commit([put(f"/pods/a/{name}")])
        store.flush()
    store.close()
    (segment,) = tmp_path.glob("log-*")
    content = bytearray(segment.read_bytes())
    content[content.index(b"/pods/a/x")] ^= 1
    segment.write_bytes(content)
    with pytest.raises(native.StoreCorrupt) as refused:
        native.Store(str(tmp_path))
    assert str(refused.value) == (
        "log-0000000000000001 is corrupt at offset 52: a batch is damaged, and what was written after it is not. Nothing was changed. "
        "Restore the directory from a backup; or, giving up everything written from there on, cut the file at that offset "
        "(truncate -s OFFSET FILE) and remove the log files after it"
    )
    assert segment.read_bytes() == content


BROKEN_DISK = """
import asyncio, resource, sys
from korch._core import native
from korch.runtime.context import Runtime
from korch.storage import Storage

async def main():
    storage = Storage.open(sys.argv[1], Runtime())
    op = lambda key: (key, b"x" * 1000, None, -1, {}, {}, [])
    await storage.commit([op(b"/a")])
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    refused = []
    for answer in await asyncio.gather(storage.commit([op(b"/b")]), storage.commit([op(b"/c")]), return_exceptions=True):
        refused.append(type(answer).__name__)
    try:
        await storage.commit([op(b"/d")])
    except native.StorePoisoned as error:
        refused.append(type(error).__name__)
    print(refused, storage.revision(), storage.get(b"/b"))
    await storage.close()

asyncio.run(main())
"""


def test_a_failed_write_answers_every_waiter_with_an_error_and_shows_nothing(tmp_path: Path):
    child = python("-c", BROKEN_DISK, str(tmp_path / "store"))
    output, _ = child.communicate()
    assert output.splitlines()[-1] == "['StorePoisoned', 'StorePoisoned', 'StorePoisoned'] 2 None"
    store = native.Store(str(tmp_path / "store"))
    assert store.range(b"").keys == [b"/a"], "the torn batch is cut at the next start"
    assert store.stats()["torn_bytes"] > 0
    store.close()


async def test_what_is_committed_while_the_disk_works_shares_the_next_flush_and_is_visible_before_it_is_answered(tmp_path: Path):
    storage = Storage.open(str(tmp_path), Runtime())
    watch = storage.watch(b"/", 1)

    async def write(number: int) -> int:
        revision, _ = await storage.commit([put(f"/{number}", 0)])
        assert storage.revision() >= revision
        record = storage.get(f"/{number}".encode())
        assert record is not None and record.mod_revision == revision
        return revision

    writers = [asyncio.ensure_future(write(number)) for number in range(300)]
    await asyncio.sleep(0)
    with pytest.raises(native.KeyExists):
        await storage.commit([put("/0", 0)])
    settled = asyncio.ensure_future(storage.settled())
    assert await asyncio.gather(*writers) == list(range(2, 302))
    await settled
    assert storage.stats()["flushes"] < 300
    seen: list[int] = []
    while len(seen) < 300:
        seen += [revision for _, revision, _ in await watch.next_events()]
    assert (seen, watch.revision) == (list(range(2, 302)), 301)
    await storage.close()


async def test_a_store_of_an_older_korch_is_read_and_continued(tmp_path: Path):
    shutil.copytree(Path(__file__).with_name("format1"), tmp_path / "store")
    for round_ in range(2):
        storage = Storage.open(str(tmp_path / "store"), Runtime())
        assert storage.stats()["torn_bytes"] == (12 if round_ == 0 else 0)
        assert storage.range(b"/pods/a/").keys == [b"/pods/a/0", b"/pods/a/3"]
        assert storage.range(b"/", revision=4).keys == [b"/pods/a/0", b"/pods/a/1", b"/pods/a/2"]
        selector = [("field", "spec.nodeName", "=", ["n2"])]
        assert storage.range(b"/", selector=selector).keys == [b"/pods/a/0", b"/pods/a/3"]
        assert storage.revision() == 7 + round_
        await storage.commit([put("/after")])
        await storage.close()


async def test_a_cancelled_writer_does_not_undo_its_write_or_stop_others(tmp_path: Path):
    storage = Storage.open(str(tmp_path), Runtime())
    writer = asyncio.ensure_future(storage.commit([put("/a", 0)]))
    await asyncio.sleep(0)
    writer.cancel()
    await storage.commit([put("/b", 0)])
    assert storage.range(b"/").keys == [b"/a", b"/b"]
    await storage.close()


async def test_a_long_log_becomes_a_snapshot_and_history_survives_it(tmp_path: Path):
    storage = Storage.open(str(tmp_path), Runtime())
    for _ in range(20):
        await storage.commit([put("/a")])
    running = asyncio.ensure_future(storage.run(log_bytes_max=100))
    revision = 21
    while storage.stats()["snapshot_bytes"] == 0:
        revision, _ = await storage.commit([put("/a")])
    running.cancel()
    await storage.close()
    reopened = Storage.open(str(tmp_path), Runtime())
    record = reopened.get(b"/a")
    assert record is not None and (record.mod_revision, record.version) == (revision, revision - 1)
    assert len(list(tmp_path.glob("snapshot-*"))) == 1
    assert (await reopened.watch(b"/", 1).next_events())[0][1] == 2
    await reopened.close()


async def test_a_snapshot_that_cannot_be_written_stops_nothing(tmp_path: Path):
    storage = Storage.open(str(tmp_path), Runtime())
    (tmp_path / "snapshot.tmp").mkdir()
    running = asyncio.ensure_future(storage.run(interval_s=0.01, log_bytes_max=0))
    while storage.stats()["snapshot_failures"] == 0:
        await storage.commit([put("/a")])
    while storage.compacted() < storage.revision():
        await asyncio.sleep(0.005)
    assert not running.done() and storage.stats()["snapshot_bytes"] == 0
    running.cancel()
    await storage.close()


async def test_commits_of_other_fronts_wake_watchers_of_this_one(storage: Storage):
    storage.attach()
    watch = storage.watch(b"/", 1)
    other = storage._native  # what a front in Rust holds
    now_ms = int(asyncio.get_running_loop().time() * 1000)
    lease = other.lease_grant(0, 3600, now_ms)
    revision, _, _ = other.transact([("put", b"/a", b"{}", lease, 0)])
    if storage.stats()["log_bytes"]:
        other.request(0)
    else:
        other.lease_revoke(lease)
        storage._publish(other.flush())
    events = await watch.next_events()
    assert events[0][:2] == (0, revision)
