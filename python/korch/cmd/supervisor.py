"""One process that runs a cluster on this machine: the server, and for every real node a containerd and an agent.

It starts things in the order in which they need each other, restarts what dies, and looks at the cluster from outside,
through the API, every half second and whenever it is asked: what `korch status` says is what that look found, never what was once
started. Other
commands reach it over a Unix socket: one JSON request a line, one JSON answer a line.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from korch.api.errors import ApiError
from korch.api.gvk import NODES, SERVICE_ACCOUNTS
from korch.cmd.layout import Layout
from korch.cmd.probe import Probe
from korch.cmd.process import Child, Command
from korch.cmd.process_record import ProcessRecord
from korch.cmd.underlay import NodeNetwork, Underlay
from korch.runtime.context import Runtime
from korch.runtime.log import get_logger

_LOOK_EVERY_S = 0.5
# How long to wait before the next look while something is not ready yet.
_LOOK_AGAIN_S = 0.05
# A look at thousands of nodes takes a while: rest this many times as long after it, and as long while something is not ready yet.
_LOOK_REST = 20
_LOOK_TIMEOUT_S = 3
# An answer to `korch status` rests on a look that is no older than this.
_FRESH_S = 0.05
CLUSTER_DNS = "10.96.0.10"

log = get_logger("supervisor")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """What `korch up` was asked for. `bind` is HOST:PORT; `extra_kubeconfig` "" for none."""

    nodes: int
    sim_nodes: int
    bind: str
    extra_kubeconfig: str = ""
    server_arguments: tuple[str, ...] = ()

    @property
    def node_names(self) -> list[str]:
        return [f"n{index + 1}" for index in range(self.nodes)]


@dataclass(slots=True)
class _RealNode:
    network: NodeNetwork
    containerd: Child
    agent: Child
    socket: Path
    is_wanted: bool = True


@dataclass(slots=True)
class _Findings:
    """What the last look at the cluster found; empty strings mean that all is well."""

    api: str = "not started"
    components: dict[str, dict[str, Any]] = field(default_factory=dict)
    service_account: str = "not created yet"
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)


class Supervisor:
    """Runs one cluster until it is told to stop. Construct, then `await run()`."""

    def __init__(self, layout: Layout, options: ClusterOptions, runtime: Runtime) -> None:
        self._layout = layout
        self._options = options
        self._runtime = runtime
        self._record = ProcessRecord(layout.processes)
        self._underlay = Underlay(layout.cluster_id, layout.machine_changes)
        self._stop = asyncio.Event()
        self._server: Child | None = None
        self._host_proxy: Child | None = None
        self._nodes: dict[str, _RealNode] = {}
        self._findings = _Findings()
        self._looking = asyncio.Lock()
        self._looked_at = float("-inf")
        self._probe: Probe | None = None
        self._looked = asyncio.Condition()
        self._url = f"https://{options.bind}"
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Run until `stop` is asked for over the control socket or by cancellation; then everything has ended."""
        options, layout = self._options, self._layout
        if options.nodes:
            await self._runtime.offload.run(self._underlay.create, options.node_names)
        control = await asyncio.start_unix_server(self._serve_control, path=str(layout.control_socket))
        layout.control_socket.chmod(0o600)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._server = self._spawn(self._server_command())
                watch = tasks.create_task(self._look_for_ever(), name="look")
                bring_up = tasks.create_task(self._bring_up_nodes(), name="nodes")
                await self._stop.wait()
                watch.cancel()
                bring_up.cancel()
                await self._end_nodes()
                for child in (self._host_proxy, self._server):
                    if child is not None:
                        await child.stop()
                raise _Stopped
        except* _Stopped:
            pass
        finally:
            control.close()
            self._forget_probe()
            await self._runtime.offload.run(self._take_back)

    def stop(self) -> None:
        """Ask for the end; `run` returns when everything has ended."""
        self._stop.set()

    # -- starting -------------------------------------------------------------------------------------------------

    def _spawn(self, command: Command) -> Child:
        assert self._tasks is not None
        child = Child(command, self._runtime, self._record)
        child.start()
        self._tasks.create_task(child.run(), name=command.name)
        return child

    def _server_command(self) -> Command:
        options = self._options
        arguments = [sys.executable, "-m", "korch", "server", "--data-dir", str(self._layout.root), "--bind", options.bind]
        if options.nodes:
            port = options.bind.rpartition(":")[2]
            inside = f"{self._underlay.host_address}:{port}"
            arguments += ["--bind", inside, "--advertise", inside]
        if options.sim_nodes:
            arguments += ["--sim-nodes", str(options.sim_nodes)]
        return Command(name="server", arguments=[*arguments, *options.server_arguments], log_file=self._layout.logs / "server.log")

    async def _bring_up_nodes(self) -> None:
        if not self._options.nodes:
            return
        from korch_agent.containerd import Containerd

        while self._findings.api:
            await asyncio.sleep(0.05)
        names = self._options.node_names
        for name in names:
            network = self._underlay.network_of(names, name)
            containerd = Containerd.prepare(self._layout.node(name), cgroup_root=f"/korch-{self._layout.cluster_id}-{name}")
            runtime_child = self._spawn(
                Command(
                    name=f"containerd-{name}",
                    arguments=containerd.arguments(),
                    log_file=self._layout.logs / f"containerd-{name}.log",
                    netns=network.netns,
                )
            )
            agent = self._spawn(self._agent_command(name, network, containerd.socket))
            self._nodes[name] = _RealNode(network, runtime_child, agent, containerd.socket)
        if len(names) > 1:
            self._host_proxy = self._spawn(
                Command(
                    name="proxy",
                    arguments=[sys.executable, "-m", "korch", "proxy", "--kubeconfig", str(self._layout.kubeconfig), "--node-name", ""],
                    log_file=self._layout.logs / "proxy.log",
                )
            )

    def _agent_command(self, name: str, network: NodeNetwork, socket: Path) -> Command:
        port = self._options.bind.rpartition(":")[2]
        options = {
            "server": f"https://{self._underlay.host_address}:{port}",
            "token": self._layout.token.read_text().strip(),
            "node-name": name,
            "node-ip": network.address,
            "data-dir": str(self._layout.node(name)),
            "containerd": str(socket),
            "cgroup-root": f"/korch-{self._layout.cluster_id}-{name}",
            "cluster-dns": CLUSTER_DNS,
            "images-dir": str(self._layout.images),
        }
        arguments = [sys.executable, "-m", "korch_agent", *(part for key, value in options.items() for part in (f"--{key}", value))]
        return Command(name=f"agent-{name}", arguments=arguments, log_file=self._layout.logs / f"agent-{name}.log", netns=network.netns)

    # -- ending ---------------------------------------------------------------------------------------------------

    async def _end_nodes(self) -> None:
        for node in self._nodes.values():
            await node.agent.stop()
        if self._options.nodes:
            from korch_agent.containerd import teardown

            for name, node in self._nodes.items():
                await self._runtime.offload.run(teardown, self._layout.node(name), node.network.netns)
        for node in self._nodes.values():
            await node.containerd.stop()

    def _take_back(self) -> None:
        self._underlay.remove()
        if self._options.extra_kubeconfig:
            extra = Path(self._options.extra_kubeconfig)
            with contextlib.suppress(FileNotFoundError):
                if extra.read_bytes() == self._layout.kubeconfig.read_bytes():
                    extra.unlink()
        self._layout.control_socket.unlink(missing_ok=True)
        self._layout.processes.unlink(missing_ok=True)

    # -- looking --------------------------------------------------------------------------------------------------

    async def _look_for_ever(self) -> None:
        while True:
            began = self._runtime.clock.monotonic()
            await self._look_again()
            took_s = self._runtime.clock.monotonic() - began
            await asyncio.sleep(max(_LOOK_AGAIN_S, took_s) if self._problems() else max(_LOOK_EVERY_S, _LOOK_REST * took_s))

    async def _look_again(self) -> None:
        """Take a fresh look, unless one has just ended; what cannot be seen in time counts as not ready."""
        clock = self._runtime.clock
        async with self._looking:
            if clock.monotonic() - self._looked_at < _FRESH_S:
                return
            try:
                async with asyncio.timeout(_LOOK_TIMEOUT_S):
                    self._findings = await self._look()
            except (ApiError, OSError, TimeoutError) as error:
                # A thread may still wait for an answer on the connection: the next look takes another one.
                self._forget_probe()
                self._findings = _Findings(api=str(error) or f"no answer within {_LOOK_TIMEOUT_S} s")
            self._looked_at = clock.monotonic()
        async with self._looked:
            self._looked.notify_all()

    async def _look(self) -> _Findings:
        if self._probe is None:
            # The server is there when its socket is: no need to knock before.
            if not (self._layout.kubeconfig.exists() and self._layout.api_socket.exists()):
                return _Findings()
            self._probe = Probe(self._layout, self._options.bind, timeout_s=_LOOK_TIMEOUT_S)
        found = await self._runtime.offload.run(_see, self._probe)
        if len(self._nodes) > 1:
            await self._route_pods(found.nodes)
        return found

    def _forget_probe(self) -> None:
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.close()

    async def _wait_ready(self, timeout_s: float) -> None:
        """Return when a look finds everything ready, or after `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._looked:
                await self._looked.wait_for(lambda: not self._problems() or self._stop.is_set())

    async def _route_pods(self, nodes: dict[str, dict[str, Any]]) -> None:
        for name, node in self._nodes.items():
            pod_cidr = nodes.get(name, {}).get("spec", {}).get("podCIDR")
            if pod_cidr:
                await self._runtime.offload.run(self._underlay.route, pod_cidr, node.network.address)

    def _problems(self) -> list[str]:
        found, problems = self._findings, []
        if found.api:
            return [f"API server: {found.api}"]
        problems += [f"{name}: {one.get('message') or 'not ready'}" for name, one in found.components.items() if not one.get("ready")]
        if found.service_account:
            problems.append(f"default service account: {found.service_account}")
        for child in self._children():
            if child.state == "restarting":
                problems.append(f"{child.command.name}: died and is being restarted")
        expected = [name for name, node in self._nodes.items() if node.is_wanted]
        missing = self._options.nodes - len(self._nodes)
        if missing > 0:
            problems.append(f"{missing} node(s) are not started yet")
        expected += [f"sim-{index + 1}" for index in range(self._options.sim_nodes)]
        problems += [f"node {name}: not ready" for name in expected if not _is_node_ready(found.nodes.get(name))]
        return problems

    def _children(self) -> list[Child]:
        nodes = [child for node in self._nodes.values() for child in (node.containerd, node.agent)]
        return [child for child in (self._server, self._host_proxy, *nodes) if child is not None]

    def describe(self) -> dict[str, Any]:
        """Return the document behind `korch status -o json`."""
        problems = self._problems()
        found = self._findings
        components = [
            {"name": child.command.name, "state": child.state, "pid": child.pid, "restarts": child.restarts} for child in self._children()
        ]
        components += [
            {"name": name, "state": "ready" if one.get("ready") else "not ready", "pid": self._server.pid if self._server else 0}
            for name, one in sorted(found.components.items())
        ]
        names = {*found.nodes, *self._nodes}
        return {
            "state": "stopping" if self._stop.is_set() else "ready" if not problems else "not ready",
            "ready": not problems and not self._stop.is_set(),
            "problems": problems,
            "url": self._url,
            "kubeconfig": str(self._layout.kubeconfig),
            "dataDir": str(self._layout.root),
            "server": {"pid": self._server.pid if self._server else 0, "url": self._url},
            "supervisor": {"pid": os.getpid()},
            "nodes": [self._describe_node(name, found.nodes.get(name)) for name in sorted(names)],
            "components": components,
        }

    def _describe_node(self, name: str, node: dict[str, Any] | None) -> dict[str, Any]:
        described: dict[str, Any] = {"name": name, "state": "Ready" if _is_node_ready(node) else "NotReady" if node else "not registered"}
        real = self._nodes.get(name)
        if real is None:
            return described | {"kind": "simulated" if name.startswith("sim-") else "joined"}
        return described | {
            "kind": "real",
            "wanted": "running" if real.is_wanted else "stopped",
            "address": real.network.address,
            "networkNamespace": real.network.netns,
            "agent": {"pid": real.agent.pid, "state": real.agent.state},
            "containerd": {"pid": real.containerd.pid, "state": real.containerd.state, "socket": str(real.socket)},
            "dataDir": str(self._layout.node(name)),
        }

    # -- control --------------------------------------------------------------------------------------------------

    async def _serve_control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            if line:
                writer.write(orjson.dumps(await self._control(orjson.loads(line))) + b"\n")
                await writer.drain()
        finally:
            writer.close()

    async def _control(self, request: dict[str, Any]) -> dict[str, Any]:
        match request.get("do"):
            case "status":
                await self._look_again()
                return self.describe()
            case "wait":
                await self._wait_ready(float(request.get("seconds", 0)))
                return self.describe()
            case "stop":
                self.stop()
                return {"state": "stopping"}
            case "stop-node" | "start-node" as action:
                node = self._nodes.get(str(request.get("name")))
                if node is None:
                    return {"error": f'node "{request.get("name")}" is not one of this machine: {", ".join(sorted(self._nodes)) or "none"}'}
                await self._set_node(node, is_wanted=action == "start-node")
                return {"state": "running" if node.is_wanted else "stopped"}
            case other:
                return {"error": f"unknown request {other!r}"}

    async def _set_node(self, node: _RealNode, *, is_wanted: bool) -> None:
        node.is_wanted = is_wanted
        if is_wanted:
            node.containerd.start()
            node.agent.start()
        else:
            await asyncio.gather(node.agent.kill(), node.containerd.kill())


class _Stopped(Exception):
    """Ends the task group once everything in it was stopped."""


def _see(probe: Probe) -> _Findings:
    """Return what the API shows. Raises ApiError, OSError. Blocks."""
    found = _Findings(api="", components=probe.json("/korch/v1/components"))
    probe.get("/readyz")
    try:
        probe.get(SERVICE_ACCOUNTS.path("default", "default"))
        found.service_account = ""
    except ApiError as error:
        found.service_account = error.message
    found.nodes = {node["metadata"]["name"]: node for node in probe.json(NODES.path())["items"]}
    return found


def _is_node_ready(node: dict[str, Any] | None) -> bool:
    conditions = (node or {}).get("status", {}).get("conditions", [])
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)
