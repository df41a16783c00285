"""korch's etcd front beside Debian's etcd: one load client, the same data, fsync on, loopback in the clear, taking turns in one run.

Every workload runs on both servers, one right after the other, several rounds; the result is the median of the rounds' ratios. CPU is
the server's own (user and system, from /proc) divided by operations; the client's stands beside it, because it shares the processors.

    python bench_etcd_front.py [--rounds 3] [--seconds 4] [--only WORKLOAD] [--client PATH]
"""

from __future__ import annotations

import argparse
import json
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

TOP = Path(__file__).resolve().parent.parent.parent
CLIENT = TOP / "target" / "release" / "examples" / "etcd_load"
KORCH = Path(sys.executable).parent / "korch"

# Name -> options of the load client; keys have 64 bytes, values 1 KiB unless said otherwise.
WORKLOADS: dict[str, list[str]] = {
    "create, 1 client": ["--workload", "create", "--clients", "1"],
    "create, 100 clients": ["--workload", "create", "--clients", "100"],
    "create, 1000 clients": ["--workload", "create", "--clients", "1000"],
    "update, 100 clients": ["--workload", "update", "--clients", "100"],
    "update, 1000 clients": ["--workload", "update", "--clients", "1000"],
    "get, 1 client": ["--workload", "get", "--clients", "1", "--keys", "10000"],
    "get, 100 clients": ["--workload", "get", "--clients", "100", "--keys", "10000"],
    "range of 10000 keys of 3 KiB": ["--workload", "range", "--clients", "1", "--keys", "10000", "--value-bytes", "3072"],
    "count of 10000 keys": ["--workload", "count", "--clients", "1", "--keys", "10000"],
    "lease keep-alive, 100 clients": ["--workload", "keepalive", "--clients", "100"],
    "delivery of one key to 1000 watchers": ["--workload", "fanout", "--watchers", "1000", "--connections", "100"],
    "update, 100 clients, nobody watches": ["--workload", "bystanders", "--clients", "100", "--connections", "20"],
    "update, 100 clients, 10000 watch other keys": [
        *("--workload", "bystanders", "--clients", "100", "--connections", "20", "--watchers", "10000"),
    ],
}

# What korch promises: (workload, figure) -> at least (rates) or at most (all else) this share of etcd's.
REACH = {
    ("create, 1 client", "p50Us"): 0.7,
    ("create, 100 clients", "perSecond"): 2.0,
    ("create, 100 clients", "serverCpuUs"): 1 / 3,
    ("create, 1000 clients", "perSecond"): 2.0,
    ("create, 1000 clients", "serverCpuUs"): 1 / 3,
    ("update, 100 clients", "perSecond"): 2.0,
    ("update, 100 clients", "serverCpuUs"): 1 / 3,
    ("update, 1000 clients", "perSecond"): 2.0,
    ("update, 1000 clients", "serverCpuUs"): 1 / 3,
    ("get, 100 clients", "serverCpuUs"): 1 / 3,
    ("range of 10000 keys of 3 KiB", "serverCpuUs"): 1 / 3,
    ("count of 10000 keys", "serverCpuUs"): 1 / 5,
    ("lease keep-alive, 100 clients", "serverCpuUs"): 1 / 2,
    ("delivery of one key to 1000 watchers", "serverCpuUs"): 1 / 3,
}
# Promises about korch alone: bytes that the server has the disk write for each byte of keys and values.
REACH_ALONE = {("create, 100 clients", "writtenPerPayload"): 1.3, ("update, 100 clients", "writtenPerPayload"): 1.3}
FIGURES = ("perSecond", "p50Us", "p99Us", "serverCpuUs", "clientCpuUs", "serverMiB", "writtenPerPayload")
QUIET, WATCHED = "update, 100 clients, nobody watches", "update, 100 clients, 10000 watch other keys"


def free_address() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


class Server:
    """One server in a directory of its own, ended and removed by `end`."""

    def __init__(self, name: str, root: Path, client: Path) -> None:
        self._client = client
        self.address = free_address()
        peer = free_address()
        directory = root / name
        commands = {
            "korch": [KORCH, "store", "serve", "--data-dir", directory, "--listen-client", self.address, "--log-level", "error"],
            "etcd": [
                *("etcd", "--data-dir", directory, "--quota-backend-bytes", str(8 << 30), "--initial-cluster", f"default=http://{peer}"),
                *("--listen-client-urls", f"http://{self.address}", "--advertise-client-urls", f"http://{self.address}"),
                *("--listen-peer-urls", f"http://{peer}", "--initial-advertise-peer-urls", f"http://{peer}"),
            ],
        }
        self.process = subprocess.Popen(commands[name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        host, _, port = self.address.rpartition(":")
        while True:
            try:
                socket.create_connection((host, int(port))).close()
                break
            except OSError:
                time.sleep(0.05)
        # An election may come before the first answer.
        self.run("warm-up", ["--workload", "get", "--keys", "10"], seconds=0.5)

    def run(self, run: str, options: list[str], seconds: float) -> dict[str, Any]:
        command = [
            self._client,
            "--target",
            self.address,
            "--server-pid",
            str(self.process.pid),
            "--run",
            run,
            "--seconds",
            str(seconds),
            *options,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr}")
        return json.loads(done.stdout)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def one_round(number: int, names: list[str], seconds: float, client: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Run every workload on both servers, which are new, and take turns with who comes first."""
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in names}
    with tempfile.TemporaryDirectory(prefix="korch-bench-") as directory:
        servers = {name: Server(name, Path(directory), client) for name in ("korch", "etcd")}
        try:
            for index, name in enumerate(names):
                order = ["korch", "etcd"] if (index + number) % 2 else ["etcd", "korch"]
                for server in order:
                    found[name][server] = servers[server].run(f"run-{index}", WORKLOADS[name], seconds)
                    print(f"round {number} {server:5} {name}: {found[name][server]}", file=sys.stderr, flush=True)
        finally:
            for server in servers.values():
                server.end()
    return found


def summarise(rounds: list[dict[str, dict[str, dict[str, Any]]]], names: list[str]) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name in names:
        row: dict[str, Any] = {}
        for server in ("korch", "etcd"):
            row[server] = {figure: statistics.median(one[name][server][figure] for one in rounds) for figure in FIGURES}
        row["ratio"] = {
            figure: round(statistics.median(one[name]["korch"][figure] / max(one[name]["etcd"][figure], 1e-9) for one in rounds), 3)
            for figure in ("perSecond", "p50Us", "serverCpuUs")
        }
        for (workload, figure), reach in REACH.items():
            if workload == name:
                ratio = row["ratio"][figure]
                is_reached = ratio >= reach if figure == "perSecond" else ratio <= reach
                row.setdefault("reach", {})[figure] = {"wanted": round(reach, 3), "reached": is_reached}
        for (workload, figure), reach in REACH_ALONE.items():
            if workload == name:
                row.setdefault("reach", {})[figure] = {"wanted": reach, "reached": row["korch"][figure] <= reach}
        results[name] = row
    if QUIET in names and WATCHED in names:
        costs = {
            server: round(statistics.median(one[WATCHED][server]["serverCpuUs"] / one[QUIET][server]["serverCpuUs"] for one in rounds), 3)
            for server in ("korch", "etcd")
        }
        results["cost of a write with 10000 watchers of other keys"] = {**costs, "wanted": 1.2, "reached": costs["korch"] <= 1.2}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--client", default="", help="benches/rust/etcd_load.rs, built; without it, it is built")
    options = parser.parse_args()
    if shutil.which("etcd") is None:
        raise SystemExit("etcd is not installed: apt-get install etcd-server")
    if not options.client:
        subprocess.run(["cargo", "build", "--release", "--quiet", "--example", "etcd_load"], cwd=TOP, check=True)
    client = Path(options.client or CLIENT)
    names = [name for name in WORKLOADS if options.only in name]
    rounds = [one_round(number, names, options.seconds, client) for number in range(options.rounds)]
    version = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    record.write("etcd_front", {"against": version, "rounds": options.rounds, "secondsEach": options.seconds, **summarise(rounds, names)})


if __name__ == "__main__":
    main()
