"""The store in process: durable writers beside etcd, memory and start of a million keys, pauses of writers, cost of idle watchers.

Run: `python benches/python/bench_store_core.py [--keys N] [--rounds N] [--program PATH --client PATH]`; it builds the programs, unless
given, and writes benches/results/store_core.json. Most measurements are in benches/rust/store.rs, each in a process of its own.

Writers, four kinds, take turns: threads in Rust that call the store and sleep until their write is durable; one thread that keeps so
many writes under way; asyncio tasks that await `Storage.commit`; and clients that put the same keys and values into Debian's etcd over
loopback, with etcd's server on the same two cores. That is etcd's whole path, and not ours: the figure says what embedding brings; what
korch's own front brings beside etcd's is in bench_etcd_front.py.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import bench_etcd_front as front
import record

from korch.runtime.context import Runtime
from korch.storage import Storage

ROOT = Path(__file__).resolve().parents[2]
WRITERS = (1, 16, 100, 256)
KINDS = ("threads", "outstanding", "tasks", "etcd")
SECONDS = 4.0
# Updates behind the last snapshot, 1 KiB each: about what the store lets its log grow to.
TAIL = 200_000
# A third of their bytes are digits of chance, as in objects; so many that none comes again within a batch.
_CHANCE = random.Random(0)
VALUES = [
    b"".join(b'{"name":"SETTING_%04d","value":"%016x"},' % (n, _CHANCE.getrandbits(64)) for n in range(24))[:1024].ljust(1024)
    for _ in range(4096)
]
# What the store promises, and the figure that says so; `reach` in the results says whether it is kept.
REACH = {
    "writes of 256 threads, of etcd's": (5.0, "at least"),
    "256 writes under way from one thread, of etcd's": (5.0, "at least"),
    "writes of 256 asyncio tasks, of etcd's": (5.0, "at least"),
    "bytes on disk for each of payload, 100 writers": (1.3, "at most"),
    "cost of a write with 10000 idle watchers": (1.2, "at most"),
    "milliseconds to start empty": (50, "at most"),
    "seconds to start after kill -9, from snapshot and tail": (3.0, "at most"),
    "memory for each byte of keys and values": (1.4, "at most"),
    "milliseconds a durable write takes at p99 during a compaction": (20, "at most"),
    "milliseconds a durable write takes at p99 during a snapshot": (20, "at most"),
}


def build() -> str:
    command = ["cargo", "build", "--release", "--bench", "store", "--example", "etcd_load", "--message-format=json", "--quiet"]
    built = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    messages = [json.loads(line) for line in built.stdout.splitlines()]
    return next(found for one in messages if (found := one.get("executable")) and one["target"]["name"] == "store")


def measure(program: str, *words: object) -> dict[str, Any]:
    """Run one measurement; it may end by abort, as kill -9 would end it."""
    ran = subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False)
    print(" ".join(map(str, words)), ran.stdout.strip(), file=sys.stderr, flush=True)
    if not ran.stdout.strip():
        raise RuntimeError(ran.stderr)
    return json.loads(ran.stdout)


def awaited_writes(directory: Path, tasks: int, seconds: float) -> dict[str, Any]:
    """Return what so many asyncio tasks reach that each await one `Storage.commit` after the other."""
    latencies: list[float] = []

    async def writer(storage: Storage, number: int, until: float) -> None:
        turn, now = 0, time.perf_counter()
        while now < until:
            key = b"/registry/configmaps/namespace-%05d/name-%029d" % (number, turn)
            await storage.commit([(key, VALUES[turn % len(VALUES)], 0, -1, {}, {}, [])])
            began, now = now, time.perf_counter()
            latencies.append(now - began)
            turn += 1

    async def run() -> float:
        storage = Storage.open(str(directory), Runtime())
        began = time.perf_counter()
        await asyncio.gather(*(writer(storage, number, began + seconds) for number in range(tasks)))
        took = time.perf_counter() - began
        await storage.close()
        return took

    cpu = time.process_time()
    took = asyncio.run(run())
    return {
        "writers": tasks,
        "perSecond": round(len(latencies) / took),
        "cpuMicrosecondsEach": round((time.process_time() - cpu) * 1e6 / len(latencies), 1),
        "p50Microseconds": round(record.percentile(latencies, 0.5) * 1e6),
        "p99Microseconds": round(record.percentile(latencies, 0.99) * 1e6),
    }


def etcd_writes(program: Path, directory: Path, clients: int, seconds: float) -> dict[str, Any]:
    """Return what so many clients of the load `program` reach that create keys in a fresh etcd."""
    server = front.Server("etcd", directory, program)
    try:
        return server.run("writers", ["--workload", "create", "--clients", str(clients)], seconds)
    finally:
        server.end()


def median(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: statistics.median(row[key] for row in rows) if isinstance(rows[0][key], (int, float)) else rows[0][key] for key in rows[0]}


def writers(program: str, client: Path, work: Path, rounds: int) -> dict[str, Any]:
    """Measure every kind of writer in turns; return medians by kind and number of writers."""
    rows: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for _ in range(rounds):
        for count in WRITERS:
            found = {
                "threads": measure(program, "writers", work / "threads", count, SECONDS),
                "outstanding": measure(program, "outstanding", work / "outstanding", count, SECONDS),
                "tasks": awaited_writes(work / "tasks", count, SECONDS),
                "etcd": etcd_writes(client, work, count, SECONDS),
            }
            for kind, row in found.items():
                rows.setdefault((kind, count), []).append(row)
                print(kind, count, row, file=sys.stderr, flush=True)
                shutil.rmtree(work / kind)
    return {kind: {str(count): median(rows[kind, count]) for count in WRITERS} for kind in KINDS}


def summarise(results: dict[str, Any]) -> dict[str, Any]:
    found = results["writers"]
    rate = {kind: found[kind]["256"]["perSecond"] for kind in found}
    starts = [row["milliseconds"] / 1000 for row in results["startFromSnapshotAndTail"]]
    memory = [results["fill"]["memoryPerRawByte"]] + [row["memoryPerRawByte"] for row in results["startFromSnapshot"]]
    pauses = results["pauses"]
    figures = {
        "writes of 256 threads, of etcd's": round(rate["threads"] / rate["etcd"], 2),
        "256 writes under way from one thread, of etcd's": round(rate["outstanding"] / rate["etcd"], 2),
        "writes of 256 asyncio tasks, of etcd's": round(rate["tasks"] / rate["etcd"], 2),
        "bytes on disk for each of payload, 100 writers": found["threads"]["100"]["diskBytesPerPayload"],
        "cost of a write with 10000 idle watchers": results["watchers"]["ratio"],
        "milliseconds to start empty": results["startEmpty"]["milliseconds"],
        "seconds to start after kill -9, from snapshot and tail": round(statistics.median(starts), 2),
        "memory for each byte of keys and values": max(memory),
        "milliseconds a durable write takes at p99 during a compaction": pauses["compaction"]["durable"]["p99Microseconds"] / 1000,
        "milliseconds a durable write takes at p99 during a snapshot": pauses["snapshot"]["durable"]["p99Microseconds"] / 1000,
    }
    reach: dict[str, Any] = {}
    for name, figure in figures.items():
        wanted, how = REACH[name]
        reach[name] = {"figure": figure, how: wanted, "reached": figure >= wanted if how == "at least" else figure <= wanted}
    return {"reach": reach, **results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--program", default="", help="benches/rust/store.rs, built")
    parser.add_argument("--client", default="", help="benches/rust/etcd_load.rs, built")
    options = parser.parse_args()
    program = options.program or build()
    client = Path(options.client or front.CLIENT)
    rounds: int = options.rounds
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="korch-bench-") as name:
        work = Path(name)
        results["writers"] = writers(program, client, work, rounds)
        results["watchers"] = median([measure(program, "watchers", 10_000) for _ in range(rounds)])
        results["startEmpty"] = median([measure(program, "open", work / f"empty-{number}") for number in range(rounds)])
        results["fill"] = measure(program, "fill", work / "full", options.keys)
        results["startFromLog"] = [measure(program, "open", work / "full") for _ in range(rounds)]
        results["tail"] = measure(program, "tail", work / "full", TAIL)
        results["startFromSnapshotAndTail"] = [measure(program, "open", work / "full") for _ in range(rounds)]
        results["pauses"] = measure(program, "pauses", work / "full")
        results["startFromSnapshot"] = [measure(program, "open", work / "full") for _ in range(rounds)]
    record.write("store_core", summarise(results))


if __name__ == "__main__":
    main()
