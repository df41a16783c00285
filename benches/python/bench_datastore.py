"""The same API over two stores: korch's log on disk and one member of Debian's etcd, both durable, taking turns in one run.

Creates and gets of a ConfigMap a second, and CPU for each: of the server, and of etcd beside it. Both servers run all the time, and
each round lets both do the same; what counts is the median over the rounds, and their ratio.

    python bench_datastore.py [--rounds 5] [--requests 1000]
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cluster import Running, running
from record import cpu_seconds, percentile, resident_mib, write

from korch.api.gvk import CONFIG_MAPS
from korch.client.kubeconfig import client_from_kubeconfig

CLIENTS = (1, 16)
VERBS = ("create", "get")
PAYLOAD_BYTES = 1024
FIGURES = ("per_second", "p50_ms", "p99_ms", "server_cpu_us", "etcd_cpu_us")


@dataclass(frozen=True)
class Arm:
    """A cluster, and the process of etcd below it if there is one."""

    name: str
    cluster: Running
    etcd_pid: int | None

    @property
    def server_pid(self) -> int:
        return self.cluster.status["server"]["pid"]


@contextmanager
def etcd() -> Iterator[tuple[str, int]]:
    """Yield address and process of a member that takes writes; it ends with the block."""

    def free() -> str:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            return f"127.0.0.1:{one.getsockname()[1]}"

    client, peer = free(), free()
    with tempfile.TemporaryDirectory(prefix="korch-bench-etcd-") as directory:
        process = subprocess.Popen(
            [
                *("etcd", "--data-dir", directory, "--initial-cluster", f"default=http://{peer}"),
                *("--listen-client-urls", f"http://{client}", "--advertise-client-urls", f"http://{client}"),
                *("--listen-peer-urls", f"http://{peer}", "--initial-advertise-peer-urls", f"http://{peer}"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while subprocess.run(["etcdctl", f"--endpoints={client}", "put", "ready", "yes"], capture_output=True, check=False).returncode:
                time.sleep(0.05)
            yield client, process.pid
        finally:
            process.kill()
            process.wait()


async def drive(arm: Arm, verb: str, clients: int, requests: int, run: str) -> dict[str, float]:
    """Send `requests` requests from `clients` concurrent callers."""
    latencies: list[float] = []
    async with client_from_kubeconfig(str(arm.cluster.kubeconfig)) as client:

        async def call(number: int) -> None:
            for index in range(requests // clients):
                name = f"bench-{run}-{clients}-{number}-{index}"
                began = time.monotonic()
                if verb == "create":
                    data = {"payload": "x" * PAYLOAD_BYTES}
                    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
                    await client.create(CONFIG_MAPS, body, namespace="default")
                else:
                    await client.get(CONFIG_MAPS, name, namespace="default")
                latencies.append((time.monotonic() - began) * 1000)

        below = [arm.etcd_pid] if arm.etcd_pid else []
        server, other, began = cpu_seconds([arm.server_pid]), cpu_seconds(below), time.monotonic()
        await asyncio.gather(*(call(number) for number in range(clients)))
        took = time.monotonic() - began
        server, other = cpu_seconds([arm.server_pid]) - server, cpu_seconds(below) - other
    done = len(latencies)
    return {
        "per_second": done / took,
        "p50_ms": percentile(latencies, 0.5),
        "p99_ms": percentile(latencies, 0.99),
        "server_cpu_us": server / done * 1e6,
        "etcd_cpu_us": other / done * 1e6,
    }


def rounds(arms: list[Arm], count: int, requests: int) -> dict[str, Any]:
    found: dict[tuple[str, int, str], list[dict[str, float]]] = {}
    for number in range(count):
        for clients in CLIENTS:
            for verb in VERBS:
                for arm in arms if number % 2 else arms[::-1]:
                    measured = asyncio.run(drive(arm, verb, clients, requests, f"r{number}"))
                    found.setdefault((verb, clients, arm.name), []).append(measured)
                    print(f"round {number} {arm.name:8} {verb} x{clients}: {measured}", file=sys.stderr, flush=True)

    def median(key: tuple[str, int, str], figure: str) -> float:
        return statistics.median(one[figure] for one in found[key])

    results: dict[str, Any] = {"rounds": count, "requests_each": requests, "payload_bytes": PAYLOAD_BYTES}
    for clients in CLIENTS:
        for verb in VERBS:
            row: dict[str, Any] = {
                arm.name: {figure: round(median((verb, clients, arm.name), figure), 2) for figure in FIGURES} for arm in arms
            }
            pairs = list(zip(found[verb, clients, "etcd"], found[verb, clients, "embedded"], strict=True))
            row["etcd_to_embedded"] = {
                figure: round(statistics.median(one[figure] / max(other[figure], 1e-9) for one, other in pairs), 2)
                for figure in ("per_second", "p50_ms", "server_cpu_us")
            }
            results[f"{verb}_{clients}_clients"] = row
    results["server_resident_mib"] = {arm.name: resident_mib(arm.server_pid) for arm in arms}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1000, help="of each kind, round and store")
    given = parser.parse_args()
    options = ("--nodes", "0", "--sim-nodes", "1")
    with etcd() as (address, pid), running(*options) as own, running(*options, "--datastore", f"etcd://{address}") as shared:
        arms = [Arm("embedded", own, None), Arm("etcd", shared, pid)]
        write("datastore", rounds(arms, given.rounds, given.requests))


if __name__ == "__main__":
    main()
