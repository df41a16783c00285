"""The command korch-agent: joins a cluster, then runs a node until it is told to stop.

The parts run side by side in one task group: pods, node status and lease, pod network, the HTTPS server for logs and exec, cluster
DNS, and the service proxy as a process of its own. Stopping the agent stops none of the containers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import signal
import socket
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from korch.api.errors import ApiError
from korch.client.events import EventRecorder
from korch.client.informer import Informers
from korch.client.join import join
from korch.client.kubeconfig import client_from_kubeconfig
from korch.client.lease import NodeLease
from korch.runtime import log as logs
from korch.runtime.context import Runtime as Seams
from korch_agent.containerd import Containerd, ContainerdFailed, Layout, import_images, teardown
from korch_agent.cri.grpc import GrpcRuntime
from korch_agent.cri.protocol import CriError
from korch_agent.dns import interface
from korch_agent.dns.server import DnsServer, resolvers
from korch_agent.image_gc import ImageGc
from korch_agent.kubelet import Kubelet
from korch_agent.log_rotation import LogRotation
from korch_agent.network import Network
from korch_agent.node import Node, memory_bytes
from korch_agent.pods.config import NodeConfig
from korch_agent.server import AgentServer

PORT = 10250
PROXY_RESTART_S = 1.0
CONTAINERD_LOOK_S = 0.5

log = logs.get_logger("agent")


def arguments() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(prog="korch-agent", description="Run a node of a korch (or Kubernetes) cluster on this machine.")
    parser.add_argument("--server", default="", help="URL of the API server to join")
    parser.add_argument("--token", default="", help="join token, as printed by korch server")
    parser.add_argument("--kubeconfig", default="", help="kubeconfig to use instead of joining")
    parser.add_argument("--node-name", default=socket.gethostname().lower(), help="name of the node (default: this host's)")
    parser.add_argument("--node-ip", default="", help="address of the node (default: the one that reaches the server)")
    parser.add_argument("--data-dir", default="/var/lib/korch/agent", help="where the agent keeps its files")
    parser.add_argument("--containerd", default="", help="socket of a containerd (default: start one of our own)")
    parser.add_argument("--cgroup-root", default="", help="control group below which pods run")
    parser.add_argument("--cluster-dns", default="10.96.0.10", help="address at which cluster DNS is answered; empty: no cluster DNS")
    parser.add_argument("--cluster-domain", default="cluster.local")
    parser.add_argument("--max-pods", type=int, default=110)
    parser.add_argument("--pod-cidr", default="", help="pod subnet of this node (default: what spec.podCIDR says)")
    parser.add_argument("--node-labels", default="", help="further labels of the node, as a=b,c=d")
    parser.add_argument("--images-dir", default="", help="directory of image archives to import at the start")
    parser.add_argument("--port", type=int, default=PORT, help="port of the agent's own server")
    parser.add_argument("--tls-dir", default="", help="directory with serving.crt, serving.key and ca.crt (default: from joining)")
    parser.add_argument("--no-proxy", action="store_true", help="do not run the service proxy")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    parser.add_argument("--teardown", action="store_true", help="take away all that a node left on this machine, and end")
    return parser


def main() -> None:
    """Entry point of korch-agent."""
    options = arguments().parse_args()
    logs.configure(level=options.log_level)
    if options.teardown:
        teardown(Path(options.data_dir))
        return
    if not options.kubeconfig and not (options.server and options.token):
        sys.exit("korch-agent: either --kubeconfig or both --server and --token are needed")
    asyncio.run(_until_signal(Agent(options).run()))


async def _until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` until it ends or SIGTERM or SIGINT arrives."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    is_asked = False

    def stop() -> None:
        nonlocal is_asked
        is_asked = True
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await work
    except asyncio.CancelledError:
        if not is_asked:
            raise
        log.info("agent stopped; containers keep running")


class Agent:
    """One node, put together from its parts. `options` are those of the command line."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._data_dir = Path(options.data_dir).resolve()
        self._seams = Seams()
        self._containerd: Containerd | None = None

    async def run(self) -> None:
        """Run the node until cancelled."""
        options = self._options
        self._data_dir.mkdir(parents=True, exist_ok=True)
        ips = (options.node_ip or _address_towards(options.server),)
        kubeconfig, tls_dir = await self._credentials(ips)
        client = client_from_kubeconfig(kubeconfig, user_agent="korch-agent")
        runtime = GrpcRuntime(await self._container_runtime())
        try:
            await self._wait_for_runtime(runtime)
            await self._import_images()
            await self._run_parts(client, runtime, ips, kubeconfig, tls_dir)
        finally:
            await runtime.close()
            await client.close()

    async def _run_parts(self, client: Any, runtime: GrpcRuntime, ips: tuple[str, ...], kubeconfig: Path, tls_dir: Path | None) -> None:
        options, seams, layout = self._options, self._seams, Layout(self._data_dir)
        name = options.node_name
        informers = Informers(client, seams)
        events = EventRecorder(client, "kubelet", seams, host=name)
        node = Node(
            client, runtime, seams, events, name=name, ips=ips, data_dir=self._data_dir, max_pods=options.max_pods, port=options.port,
            pod_cidr=options.pod_cidr, labels=_labels(options.node_labels),
        )  # fmt: skip
        config = NodeConfig(
            node_name=name, data_dir=self._data_dir, cgroup_root=self._cgroup_root(), cluster_dns=options.cluster_dns,
            cluster_domain=options.cluster_domain, host_ips=ips, memory_capacity=memory_bytes(),
        )  # fmt: skip
        kubelet = Kubelet(client=client, informers=informers, runtime=runtime, seams=seams, events=events, node=node, config=config)
        node.pleg_problem = lambda: "" if kubelet.pleg.is_healthy else f"PLEG is not healthy: {kubelet.pleg.problem}"
        network = Network(
            informers, node_name=name, data_dir=self._data_dir, cni_config=layout.cni_config, cni_data=layout.cni_data,
            cni_name=layout.cni_network, pod_cidr=options.pod_cidr,
        )  # fmt: skip
        async with asyncio.TaskGroup() as group:
            group.create_task(informers.run(), name="informers")
            group.create_task(events.run(), name="events")
            group.create_task(node.run(), name="node")
            group.create_task(NodeLease(client, name, seams).run(), name="lease")
            group.create_task(network.run(), name="network")
            group.create_task(kubelet.run(), name="kubelet")
            group.create_task(LogRotation(runtime, seams).run(), name="log-rotation")
            group.create_task(ImageGc(runtime, seams).run(), name="image-gc")
            if self._containerd is not None:
                group.create_task(self._keep_containerd(self._containerd), name="containerd")
            if tls_dir is not None:
                group.create_task(
                    self._serve(AgentServer(runtime, seams.clock, pods=lambda: list(kubelet.pods())), ips[0], tls_dir), name="server"
                )
            if options.cluster_dns:
                group.create_task(self._answer_dns(informers), name="dns")
            if not options.no_proxy:
                layout.proxy_file.touch()
                group.create_task(_supervise_proxy(kubeconfig, name), name="proxy")

    async def _credentials(self, ips: tuple[str, ...]) -> tuple[Path, Path | None]:
        """Return the kubeconfig, and the directory of the serving certificate if there is one; join when asked to."""
        options = self._options
        if options.kubeconfig:
            return Path(options.kubeconfig), Path(options.tls_dir) if options.tls_dir else None
        directory = self._data_dir / "pki"
        while True:
            try:
                return await join(options.server, options.token, options.node_name, ips, directory), directory
            except (ApiError, OSError, TimeoutError) as error:
                log.warning("not joined yet; trying again", server=options.server, error=str(error))
                await asyncio.sleep(0.5)

    async def _container_runtime(self) -> str:
        """Return the socket of the container runtime, starting one when none was named."""
        if self._options.containerd:
            return self._options.containerd
        self._containerd = Containerd(self._data_dir, cgroup_root=self._options.cgroup_root)
        await self._containerd.start()
        return str(self._containerd.socket)

    async def _keep_containerd(self, containerd: Containerd) -> None:
        """Start our own containerd again whenever it has died; containers have gone on under their shims."""
        while True:
            await asyncio.sleep(CONTAINERD_LOOK_S)
            if containerd.alive():
                continue
            log.warning("containerd died; starting it again")
            try:
                await containerd.start()
            except ContainerdFailed as error:
                log.error("containerd does not start; trying again", error=str(error))

    def _cgroup_root(self) -> str:
        return self._options.cgroup_root or Layout(self._data_dir).cgroup_root

    async def _wait_for_runtime(self, runtime: GrpcRuntime) -> None:
        problem = ""
        while True:
            try:
                await runtime.version()
                return
            except (CriError, ConnectionError) as error:
                if str(error) != problem:
                    problem = str(error)
                    log.info("waiting for the container runtime", error=problem)
            await asyncio.sleep(0.1)

    async def _import_images(self) -> None:
        """Import the archives of --images-dir that were not imported before."""
        options = self._options
        if not options.images_dir:
            return
        socket_path = options.containerd or str(Layout(self._data_dir).socket)
        record = self._data_dir / "imported.json"
        done: dict[str, list[int]] = orjson.loads(record.read_bytes()) if record.exists() else {}
        for file in sorted(Path(options.images_dir).glob("*.tar")):
            stamp = [file.stat().st_size, file.stat().st_mtime_ns]
            if done.get(file.name) != stamp:
                await import_images(socket_path, file)
                done[file.name] = stamp
                record.write_bytes(orjson.dumps(done))

    async def _serve(self, server: AgentServer, host: str, tls_dir: Path) -> None:
        certificate, key, authority = (tls_dir / name for name in ("serving.crt", "serving.key", "ca.crt"))
        while True:
            try:
                await server.run(host, self._options.port, certificate=certificate, key=key, authority=authority)
            except OSError as error:
                log.warning("agent server does not listen; trying again", error=str(error))
                await asyncio.sleep(2)

    async def _answer_dns(self, informers: Informers) -> None:
        options = self._options
        while True:
            try:
                await self._seams.offload.run(interface.add, options.cluster_dns)
                upstreams = [one for one in resolvers() if one[0] != options.cluster_dns]
                server = DnsServer(informers, self._seams, address=options.cluster_dns, zone=options.cluster_domain, upstreams=upstreams)
                await server.run()
            except OSError as error:
                log.warning("cluster DNS is not answered; trying again", address=options.cluster_dns, error=str(error))
                await asyncio.sleep(2)


async def _supervise_proxy(kubeconfig: Path, node_name: str) -> None:
    """Run the service proxy as a process and start it again when it ends; it ends with the agent."""
    # Not by a function run in the child: gRPC's threads do not survive a plain fork.
    tied = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
    command = [*tied, sys.executable, "-m", "korch", "proxy", "--kubeconfig", str(kubeconfig), "--node-name", node_name]
    while True:
        process = await asyncio.create_subprocess_exec(*command)
        try:
            code = await process.wait()
            log.warning("service proxy ended; starting it again", code=code)
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                await process.wait()
        await asyncio.sleep(PROXY_RESTART_S)


def _address_towards(url: str) -> str:
    """Return the address that this machine uses towards the server; nothing is sent."""
    parts = urlsplit(url) if url else None
    host, port = (parts.hostname or "192.0.2.1", parts.port or 443) if parts is not None else ("192.0.2.1", 443)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            return probe.getsockname()[0]
    except OSError:
        return "127.0.0.1"


def _labels(text: str) -> dict[str, str]:
    found = (part.partition("=") for part in text.split(",") if part)
    return {key: value for key, _, value in found}
