"""SPDY/3.1 from the socket to the runtime: front door, application, agent, and a streaming server that says back what it hears."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
import uvicorn
from aiohttp import web
from door import Certificate, Door, issue
from test_reads import CertificateAuthenticator
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from korch._core import native
from korch.apiserver.audit.auditor import Auditor
from korch.apiserver.audit.policy import Policy
from korch.apiserver.authz.chain import Chain
from korch.apiserver.authz.rbac import Rbac, SuperUsers
from korch.apiserver.certificates import CertificateAuthority
from korch.apiserver.server import ApiServer, ServerConfig
from korch.apiserver.streaming import AgentCredentials, Streaming
from korch.apiserver.upgrades import PROTOCOL
from korch.resources import catalogue
from korch.runtime.clock import RealClock
from korch.runtime.context import Runtime
from korch.runtime.handover import Handover, parse_head
from korch.storage import Storage
from korch_agent.cri import protocol as p
from korch_agent.cri.fake import FakeRuntime
from korch_agent.server import AgentServer

Object = dict[str, Any]


class StreamingRuntime(FakeRuntime):
    """A runtime with a streaming server: it agrees to the first offered protocol and echoes bytes in capitals."""

    def __init__(self) -> None:
        super().__init__(RealClock(), Random(1))
        self.url = ""
        self.asked: list[tuple[str, ...]] = []
        self.has_pod = True

    async def list_containers(self) -> list[p.Container]:
        labels = {"io.kubernetes.pod.namespace": "d", "io.kubernetes.pod.name": "p"}
        return [p.Container(id="c-1", sandbox_id="s-1", name="c", labels=labels)] if self.has_pod else []

    async def list_sandboxes(self) -> list[p.Sandbox]:
        return [p.Sandbox(id="s-1", name="p", namespace="d", uid="u", is_ready=True)]

    async def serve(self) -> asyncio.Server:
        server = await asyncio.start_server(self._echo, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    async def exec_url(self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> str:
        self.asked.append(("exec", *command, f"tty={tty}", f"stdin={stdin}", f"stderr={stderr}"))
        return f"{self.url}/exec"

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        self.asked.append(("forward",))
        return f"{self.url}/forward"

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = parse_head((await reader.readuntil(b"\r\n\r\n"))[:-4])
        assert head is not None and head.asks_for(PROTOCOL)
        chosen = head.all("x-stream-protocol-version")[0]
        writer.write(f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {PROTOCOL}\r\n".encode())
        writer.write(f"X-Stream-Protocol-Version: {chosen}\r\n\r\n".encode())
        while data := await reader.read(65536):
            writer.write(data.upper())
            await writer.drain()
        writer.close()


class Way:
    """The whole way, and what was told of it."""

    def __init__(self, door: Door, runtime: StreamingRuntime, events: list[Object]) -> None:
        self.door = door
        self.runtime = runtime
        self.events = events
        self.root = issue("root", door.authority)

    async def ask(
        self, target: str, *, certificate: Certificate | None = None, method: str = "POST"
    ) -> tuple[str, asyncio.StreamReader, asyncio.StreamWriter]:
        """Send an upgrade; return the head of the answer and the streams."""
        context = self.door.context(certificate or self.root)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.door.port, ssl=context)
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {PROTOCOL}\r\n".encode())
        writer.write(b"X-Stream-Protocol-Version: v4.channel.k8s.io\r\nX-Stream-Protocol-Version: v3.channel.k8s.io\r\n")
        writer.write(b"Content-Length: 0\r\n\r\n")
        return (await reader.readuntil(b"\r\n\r\n")).decode().lower(), reader, writer


@asynccontextmanager
async def whole_path(tmp_path: Path, authority: Certificate) -> AsyncIterator[Way]:
    runtime, events = Runtime(), []
    agents = CertificateAuthority.open(tmp_path / "pki", RealClock())
    agents.issue("client", "kube-apiserver-kubelet-client", organizations=["system:masters"])
    agents.issue("agent", "n1", hosts=["127.0.0.1"], is_server=True)
    containers = StreamingRuntime()
    echo = await containers.serve()
    agent = AgentServer(containers, RealClock(), pods=list)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "pki" / "ca.crt"))
    context.load_cert_chain(tmp_path / "pki" / "agent.crt", tmp_path / "pki" / "agent.key")
    context.verify_mode = ssl.CERT_REQUIRED
    runner = web.AppRunner(agent.app, access_log=None)
    await runner.setup()
    serving = await agent.listen(runner, "127.0.0.1", 0, context)
    storage = Storage.open(None, runtime)
    rbac = Rbac(storage)
    auditor = Auditor(
        Policy({"rules": [{"level": "Metadata", "resources": [{"group": "", "resources": ["pods/*"]}]}]}), events.append, RealClock()
    )
    config = ServerConfig(authenticator=CertificateAuthenticator(), authorizer=Chain([SuperUsers(), rbac]), rbac=rbac, auditor=auditor)
    server = ApiServer(runtime, storage, catalogue(), config)
    port = serving.sockets[0].getsockname()[1]
    pod: Object = {"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c"}]}, "status": {"phase": "Running"}}
    node: Object = {
        "metadata": {"name": "n1"},
        "status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}},
    }
    pki = tmp_path / "pki"
    credentials = AgentCredentials(str(pki / "client.crt"), str(pki / "client.key"), str(pki / "ca.crt"))
    streaming = Streaming(lambda plural, _namespace, _name: {"pods": pod, "nodes": node}[plural], credentials)
    server.endpoint.upgrade_connectors |= {
        ("pods", "exec"): streaming.command_upgrade,
        ("pods", "portforward"): streaming.port_forward_upgrade,
    }
    certificate = issue("kube-apiserver", authority)
    front = native.Front(
        bind=["127.0.0.1:0"],
        upstream=str(tmp_path / "app.sock"),
        **certificate.written(tmp_path, authority),
    )
    (address,) = front.start()

    def connection(**given: Any) -> Handover:
        return Handover(lambda: HttpToolsProtocol(**given), PROTOCOL, server.app.upgrade)

    options: Any = {"http": connection, "uds": str(tmp_path / "app.sock"), "log_config": None, "lifespan": "off"}
    application = uvicorn.Server(uvicorn.Config(server.app, timeout_graceful_shutdown=0, **options))
    loop = asyncio.get_running_loop()
    running = [loop.create_task(server.run()), loop.create_task(application.serve())]
    try:
        while not application.started or server.health.problems():
            await asyncio.sleep(0)
        yield Way(Door(front, address, authority, issue("alice", authority), tmp_path), containers, events)
    finally:
        application.should_exit = True
        running[0].cancel()
        await asyncio.gather(*running, return_exceptions=True)
        front.stop()
        echo.close()
        serving.close()
        await runner.cleanup()


EXEC = "/api/v1/namespaces/d/pods/p/exec?command=cat&command=-n&stdin=true&stdout=true&container=c"


async def test_bytes_pass_both_ways_and_the_runtime_chooses_the_protocol(tmp_path: Path, authority: Certificate) -> None:
    async with whole_path(tmp_path, authority) as way:
        head, reader, writer = await way.ask(EXEC)
        assert head.startswith("http/1.1 101 ")
        assert "upgrade: spdy/3.1" in head and "x-stream-protocol-version: v4.channel.k8s.io" in head
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"HELLO"
        large = b"x" * 1_000_000
        writer.write(large)
        assert await reader.readexactly(len(large)) == large.upper()
        assert way.runtime.asked == [("exec", "cat", "-n", "tty=False", "stdin=True", "stderr=False")]
        assert [one["stage"] for one in way.events] == ["RequestReceived", "ResponseStarted"]
        writer.close()
        while len(way.events) < 3:
            await asyncio.sleep(0.01)
        end = way.events[-1]
        assert (end["stage"], end["responseStatus"]["code"], end["verb"]) == ("ResponseComplete", 101, "create")


async def test_a_port_forward_takes_the_same_way(tmp_path: Path, authority: Certificate) -> None:
    async with whole_path(tmp_path, authority) as way:
        head, reader, writer = await way.ask("/api/v1/namespaces/d/pods/p/portforward")
        assert head.startswith("http/1.1 101 ")
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"PING"
        assert way.runtime.asked == [("forward",)]
        writer.close()


@pytest.mark.parametrize(
    ("target", "is_root", "code", "says"),
    [
        (EXEC, False, 403, 'pods "p" is forbidden: User "alice" cannot create resource "pods/exec"'),
        (EXEC.replace("container=c", "container=x"), True, 400, "container x is not valid for pod p"),
        ("/api/v1/namespaces/d/pods/p/exec", True, 400, "you must specify at least 1 command for the container"),
        ("/api/v1/namespaces/d/pods/p/log", True, 400, "Upgrade request required"),
        (EXEC, True, 404, 'container "c" in pod "p" is not available'),
    ],
)
async def test_a_refusal_is_a_status(tmp_path: Path, authority: Certificate, target: str, is_root: bool, code: int, says: str) -> None:
    async with whole_path(tmp_path, authority) as way:
        way.runtime.has_pod = code != 404
        head, reader, writer = await way.ask(target, certificate=None if is_root else way.door.client)
        assert head.startswith(f"http/1.1 {code} ")
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        status = orjson.loads(await reader.readexactly(length))
        assert (status["kind"], status["code"]) == ("Status", code) and says in status["message"]
        writer.close()


async def test_other_requests_on_the_same_socket_are_http_as_ever(tmp_path: Path, authority: Certificate) -> None:
    async with whole_path(tmp_path, authority) as way, way.door.http(certificate=way.root) as client:
        for _ in range(3):
            assert (await client.get("/version")).json()["major"] == "1"
        made = await client.post("/api/v1/namespaces", json={"metadata": {"name": "d"}})
        assert made.status_code == 201
