"""The API over TLS, writes durable: creates and gets of a ConfigMap a second and the server's CPU each, with 1 and 16 clients."""

from __future__ import annotations

import asyncio
import time

from cluster import running
from record import cpu_seconds, resident_mib, summary, write

from korch.api.gvk import CONFIG_MAPS
from korch.client.kubeconfig import client_from_kubeconfig

REQUESTS = 2000
CLIENTS = (1, 16)


async def drive(kubeconfig: str, pid: int, clients: int, verb: str) -> dict:
    """Send REQUESTS requests from `clients` concurrent callers; return rate, CPU of process `pid` and latency."""
    share = REQUESTS // clients
    latencies: list[float] = []
    async with client_from_kubeconfig(kubeconfig) as client:

        async def one(number: int) -> None:
            for index in range(share):
                name = f"bench-{clients}-{number}-{index}"
                began = time.monotonic()
                if verb == "create":
                    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"payload": "x" * 1024}}
                    await client.create(CONFIG_MAPS, body, namespace="default")
                else:
                    await client.get(CONFIG_MAPS, name, namespace="default")
                latencies.append((time.monotonic() - began) * 1000)

        cpu, began = cpu_seconds([pid]), time.monotonic()
        await asyncio.gather(*(one(number) for number in range(clients)))
        took, used = time.monotonic() - began, cpu_seconds([pid]) - cpu
    done = share * clients
    return {"per_second": round(done / took, 1), "server_cpu_us_each": round(used / done * 1e6), "latency_ms": summary(latencies, 2)}


def main() -> None:
    with running("--nodes", "0", "--sim-nodes", "1") as cluster:
        pid = cluster.status["server"]["pid"]
        results: dict = {}
        for clients in CLIENTS:
            for verb in ("create", "get"):
                results[f"{verb}_{clients}_clients"] = asyncio.run(drive(str(cluster.kubeconfig), pid, clients, verb))
        write("api", results | {"server_resident_mib": resident_mib(pid)})


if __name__ == "__main__":
    main()
