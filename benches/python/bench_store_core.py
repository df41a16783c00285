"""The store in process: durable writers beside etcd, memory and start of a million keys, pauses of a writer, cost of idle watchers.

Run: `python benches/python/bench_store_core.py [KEYS [PROGRAM]]`; builds the program unless given, and writes
benches/results/store_core.json. The measurements are in
benches/rust/store.rs, each in a process of its own. etcd, when installed, is loaded by its own `etcdctl check perf` with 1,000 clients
and 1 KiB values over loopback: that is its whole path and ours is not, so the figure says what embedding brings, and a front's own
benchmark says the rest.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import record

ROOT = Path(__file__).resolve().parents[2]
WRITERS = (1, 16, 100, 256)
ROUNDS = 3


def build() -> str:
    command = ["cargo", "build", "--release", "--bench", "store", "--message-format=json", "--quiet"]
    built = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    messages = [json.loads(line) for line in built.stdout.splitlines()]
    return next(found for one in messages if (found := one.get("executable")) and one["target"]["name"] == "store")


def measure(program: str, *words: object) -> dict[str, Any]:
    """Run one measurement; it may end by abort, as kill -9 would end it."""
    ran = subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False)
    if not ran.stdout.strip():
        raise RuntimeError(ran.stderr)
    return json.loads(ran.stdout)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def etcd_puts_per_second(directory: Path) -> dict[str, Any] | None:
    """Return what `etcdctl check perf` reaches against a fresh etcd, with the server's CPU for each write, or None without etcd."""
    if not (shutil.which("etcd") and shutil.which("etcdctl")):
        return None
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    flags = ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer]
    flags += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}", "--quota-backend-bytes", str(8 << 30)]
    server = subprocess.Popen(["etcd", "--data-dir", str(directory), *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(3)
        before = record.cpu_seconds([server.pid])
        command = ["etcdctl", "--endpoints", client, "check", "perf", "--load=xl"]
        ran = subprocess.run(command, env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)
        cpu = record.cpu_seconds([server.pid]) - before
        found = re.search(r"(?:low: |Throughput is )(\d+) writes/s", ran.stdout)
        rate = int(found.group(1)) if found else 0
        return {"clients": 1000, "perSecond": rate, "cpuMicrosecondsEach": round(cpu * 1e6 / max(1, rate * 60), 1)}
    finally:
        server.terminate()
        server.wait()


def median(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def main() -> None:
    keys = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    program = sys.argv[2] if len(sys.argv) > 2 else build()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="korch-bench-") as name:
        work = Path(name)
        rows: dict[int, list[dict[str, Any]]] = {count: [] for count in WRITERS}
        for round_ in range(ROUNDS):
            for count in WRITERS:
                rows[count].append(measure(program, "writers", work / f"writers-{round_}-{count}", count, 5))
                shutil.rmtree(work / f"writers-{round_}-{count}")
        results["writers"] = {str(count): median(found) for count, found in rows.items()}
        results["etcd"] = etcd_puts_per_second(work / "etcd")
        idle = [(measure(program, "watchers", 0), measure(program, "watchers", 10_000)) for _ in range(ROUNDS)]
        none, many = (statistics.median(pair[at]["cpuMicrosecondsPerWrite"] for pair in idle) for at in (0, 1))
        results["watchers"] = {"cpuMicrosecondsWithNone": none, "cpuMicrosecondsWith10000": many, "ratio": round(many / none, 2)}
        results["startEmpty"] = median([measure(program, "open", work / f"empty-{number}") for number in range(ROUNDS)])
        results["fill"] = measure(program, "fill", work / "full", keys)
        results["startAfterKill"] = [measure(program, "open", work / "full") for _ in range(ROUNDS)]
        results["pauses"] = measure(program, "pauses", work / "full")
        results["startAfterSnapshot"] = [measure(program, "open", work / "full") for _ in range(ROUNDS)]
    record.write("store_core", results)


if __name__ == "__main__":
    main()
