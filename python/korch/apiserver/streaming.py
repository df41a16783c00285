"""What a client asks of a running pod, carried to the agent of its node: logs, exec, attach, port-forward; and proxying.

The API server only finds the node, checks what can be checked from the object, and passes bytes: WebSocket messages both ways
under the subprotocol that the client and the agent agree on, or a response body as it comes. Mirrors upstream's
pkg/registry/core/pod/rest and pkg/kubelet/client.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp
import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from korch.api.errors import ApiError, BadRequest, InternalError, NotFound, ServiceUnavailable
from korch.apiserver.request_info import RequestInfo
from korch.runtime.handover import Head, carry

AGENT_PORT = 10250
# Nodes that carry this label run nothing, and their addresses and their pods' are nobody's: they are never dialled.
SIMULATED_LABEL = "korch.dev/simulated"
_MESSAGE_BYTES_MAX = 1 << 25
_CONNECT_TIMEOUT_S = 10
# Headers that belong to one connection and are not passed on.
_HOP_HEADERS = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade", "host"}
)
_CREDENTIAL_HEADERS = frozenset({"authorization", "x-korch-client-cert", "cookie"})

# Returns an object as a dict: (plural, namespace, name). Raises NotFound.
Getter = Callable[[str, str, str], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class AgentCredentials:
    """How the API server shows itself to agents: files with its client certificate and key, and the cluster's CA."""

    certificate: str
    key: str
    authority: str

    def context(self) -> ssl.SSLContext:
        """Return a context that trusts the cluster's CA alone. Raises OSError, ssl.SSLError."""
        context = ssl.create_default_context(cafile=self.authority)
        context.load_cert_chain(self.certificate, self.key)
        return context


class Streaming:
    """Carries requests to agents, pods and services. Close it with `close`."""

    def __init__(self, get: Getter, credentials: AgentCredentials) -> None:
        self._get = get
        self._context = credentials.context()
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """End all connections to agents."""
        if self._session is not None:
            await self._session.close()

    # -- logs ---------------------------------------------------------------------------------------------------

    async def log(self, request: Request, info: RequestInfo) -> Response:
        """Answer GET pods/log. Raises BadRequest for a container that is not there or has not started."""
        pod = self._get("pods", info.namespace, info.name)
        query = dict(request.query_params)
        container = _log_container(pod, query.pop("container", ""))
        url = f"{self._agent_url(pod)}/containerLogs/{info.namespace}/{info.name}/{container}"
        response = await self._request("GET", url, params=query)
        if response.status >= 400:
            raise await _agent_error(response)
        return StreamingResponse(_body_of(response), media_type="text/plain")

    async def log_socket(self, socket: WebSocket, info: RequestInfo) -> None:
        """Answer a WebSocket on pods/log (`binary.k8s.io` or plain): each piece of the log is one message."""
        pod = self._get("pods", info.namespace, info.name)
        query = dict(socket.query_params)
        container = _log_container(pod, query.pop("container", ""))
        url = f"{self._agent_url(pod)}/containerLogs/{info.namespace}/{info.name}/{container}"
        response = await self._request("GET", url, params=query)
        if response.status >= 400:
            raise await _agent_error(response)
        offered = socket.scope.get("subprotocols") or []
        await socket.accept(subprotocol=next((one for one in offered if one in ("binary.k8s.io", "base64.binary.k8s.io")), None))
        async for piece in _body_of(response):
            await socket.send_bytes(piece)
        await socket.close()

    # -- exec, attach, port-forward -------------------------------------------------------------------------------

    async def command_socket(self, socket: WebSocket, info: RequestInfo) -> None:
        """Carry a WebSocket on pods/exec or pods/attach to the agent."""
        pod = self._get("pods", info.namespace, info.name)
        if info.subresource == "exec" and not socket.query_params.getlist("command"):
            raise BadRequest("you must specify at least 1 command for the container")
        container = _command_container(pod, socket.query_params.get("container", ""))
        query = [(key, value) for key, value in socket.query_params.multi_items() if key != "container"]
        await self._carry(socket, f"{self._agent_url(pod)}/{info.subresource}/{info.namespace}/{info.name}/{container}", query)

    async def port_forward_socket(self, socket: WebSocket, info: RequestInfo) -> None:
        """Carry a WebSocket on pods/portforward to the agent."""
        pod = self._get("pods", info.namespace, info.name)
        ports = [one for value in socket.query_params.getlist("ports") for one in value.split(",") if one]
        query = [("port", port) for port in ports]
        await self._carry(socket, f"{self._agent_url(pod)}/portForward/{info.namespace}/{info.name}", query)

    async def _carry(self, socket: WebSocket, url: str, query: Sequence[tuple[str, str]]) -> None:
        offered = list(socket.scope.get("subprotocols") or [])
        target = f"{url}?{urlencode(query)}" if query else url
        try:
            upstream = await self._client().ws_connect(
                target, protocols=offered, ssl=self._context, max_msg_size=_MESSAGE_BYTES_MAX, heartbeat=None, autoping=True
            )
        except aiohttp.WSServerHandshakeError as error:
            raise _error_of(error.status, error.message) from error
        except aiohttp.ClientError as error:
            raise ServiceUnavailable(f"error dialing backend: {error}") from error
        try:
            await socket.accept(subprotocol=upstream.protocol)
            await _pipe(socket, upstream)
        finally:
            await upstream.close()

    async def command_upgrade(self, head: Head, info: RequestInfo, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry SPDY on pods/exec or pods/attach to the agent."""
        pod = self._get("pods", info.namespace, info.name)
        asked = head.query
        if info.subresource == "exec" and not any(key == "command" for key, _ in asked):
            raise BadRequest("you must specify at least 1 command for the container")
        container = _command_container(pod, next((value for key, value in asked if key == "container"), ""))
        query = [(key, value) for key, value in asked if key != "container"]
        path = f"/{info.subresource}/{info.namespace}/{info.name}/{container}"
        await self._switch(head, self._agent_url(pod), f"{path}?{urlencode(query)}", (reader, writer))

    async def port_forward_upgrade(self, head: Head, info: RequestInfo, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry SPDY on pods/portforward to the agent."""
        pod = self._get("pods", info.namespace, info.name)
        await self._switch(head, self._agent_url(pod), f"/portForward/{info.namespace}/{info.name}", (reader, writer))

    async def _switch(self, head: Head, agent: str, target: str, client: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        """Ask the agent to switch; when it does, so does the client, and what either says is passed on. Raises ApiError."""
        place = urlsplit(agent)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                upstream = await asyncio.open_connection(place.hostname, place.port, ssl=self._context)
        except (OSError, TimeoutError) as error:
            raise ServiceUnavailable(f"error dialing backend: {error}") from error
        offered = "".join(f"X-Stream-Protocol-Version: {one}\r\n" for one in head.all("x-stream-protocol-version"))
        request = f"POST {target} HTTP/1.1\r\nHost: {place.netloc}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n{offered}\r\n"
        try:
            upstream[1].write(request.encode("latin-1"))
            answer = await upstream[0].readuntil(b"\r\n\r\n")
            code = int(answer.split(b" ", 2)[1])
            if code != 101:
                said = (await upstream[0].read(2048)).decode(errors="replace")
                raise _error_of(code, said)
            client[1].write(answer)
            await client[1].drain()
            await carry(client, upstream)
        except (asyncio.IncompleteReadError, ValueError, IndexError) as error:
            raise ServiceUnavailable(f"error dialing backend: {error}") from error
        finally:
            upstream[1].close()

    # -- proxying -------------------------------------------------------------------------------------------------

    async def proxy(self, request: Request, info: RequestInfo) -> Response:
        """Answer any method on pods/proxy, services/proxy or nodes/proxy with what the target answers."""
        base, context = self._proxy_target(info)
        headers = {key: value for key, value in request.headers.items() if key not in _HOP_HEADERS | _CREDENTIAL_HEADERS}
        url = f"{base}{info.tail or '/'}" + (f"?{request.url.query}" if request.url.query else "")
        body = request.stream() if request.method not in ("GET", "HEAD") else None
        response = await self._request(request.method, url, headers=headers, data=body, context=context)
        kept = {
            key: value
            for key, value in response.headers.items()
            if key.lower() not in _HOP_HEADERS | {"content-length", "content-encoding"}
        }
        return StreamingResponse(_body_of(response), status_code=response.status, headers=kept)

    def _proxy_target(self, info: RequestInfo) -> tuple[str, ssl.SSLContext | None]:
        scheme, name, port = _split_proxy_name(info.name)
        if info.resource == "nodes":
            node = self._real_node(name)
            return f"https://{_node_address(node)}:{port or _agent_port(node)}", self._context
        if info.resource == "pods":
            pod = self._get("pods", info.namespace, name)
            address = (pod.get("status") or {}).get("podIP")
            if not address:
                raise ServiceUnavailable("address not allowed")
            self._real_node(str(pod.get("spec", {}).get("nodeName", "")))
            port = port or str(_first_port(pod))
        else:
            address, port = self._service_endpoint(info.namespace, name, port)
        return f"{scheme or 'http'}://{address}:{port}", _unverified() if scheme == "https" else None

    def _service_endpoint(self, namespace: str, name: str, port: str) -> tuple[str, str]:
        service = self._get("services", namespace, name)
        ports = service.get("spec", {}).get("ports") or []
        wanted = [one for one in ports if port in ("", one.get("name"), str(one.get("port")))]
        if not wanted:
            raise ServiceUnavailable(f'no service port "{port}" found for service "{name}"')
        try:
            endpoints = self._get("endpoints", namespace, name)
        except NotFound as error:
            raise ServiceUnavailable(f'no endpoints available for service "{name}"') from error
        for subset in endpoints.get("subsets") or []:
            for one in subset.get("ports") or []:
                if one.get("name", "") == wanted[0].get("name", "") and subset.get("addresses"):
                    endpoint = subset["addresses"][0]
                    if endpoint.get("nodeName"):
                        self._real_node(endpoint["nodeName"])
                    return endpoint["ip"], str(one["port"])
        raise ServiceUnavailable(f'no endpoints available for service "{name}"')

    # -- agents ---------------------------------------------------------------------------------------------------

    def _agent_url(self, pod: Mapping[str, Any]) -> str:
        name = pod.get("spec", {}).get("nodeName")
        if not name:
            raise BadRequest(f"pod {pod['metadata']['name']} does not have a host assigned")
        node = self._real_node(name)
        return f"https://{_node_address(node)}:{_agent_port(node)}"

    def _real_node(self, name: str) -> dict[str, Any]:
        """Return the node. Raises NotFound, and ServiceUnavailable for a simulated one."""
        node = self._get("nodes", "", name)
        if SIMULATED_LABEL in (node["metadata"].get("labels") or {}):
            raise ServiceUnavailable(f'node "{name}" is simulated: no container runs there')
        return node

    async def _request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        context: ssl.SSLContext | None = None,
    ) -> aiohttp.ClientResponse:
        trust = context or (self._context if params is not None else False)
        try:
            return await self._client().request(method, url, params=params, headers=headers, data=data, ssl=trust, allow_redirects=False)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ServiceUnavailable(f"error trying to reach service: {error}") from error

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S)
            self._session = aiohttp.ClientSession(timeout=timeout, auto_decompress=True)
        return self._session


async def _body_of(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for piece in response.content.iter_any():
            yield piece
    finally:
        response.close()


async def _pipe(socket: WebSocket, upstream: aiohttp.ClientWebSocketResponse) -> None:
    """Pass messages both ways until either side closes; the client's close reaches the agent and the other way round."""

    async def inward() -> None:
        while True:
            message = await socket.receive()
            if message["type"] != "websocket.receive":
                return
            if message.get("bytes") is not None:
                await upstream.send_bytes(message["bytes"])
            else:
                await upstream.send_str(message["text"])

    async def outward() -> None:
        async for message in upstream:
            if message.type == aiohttp.WSMsgType.BINARY:
                await socket.send_bytes(message.data)
            elif message.type == aiohttp.WSMsgType.TEXT:
                await socket.send_text(message.data)
        await socket.close()

    try:
        async with asyncio.TaskGroup() as tasks:
            works = [tasks.create_task(inward()), tasks.create_task(outward())]
            await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
            for work in works:
                work.cancel()
    except* (WebSocketDisconnect, ConnectionError, RuntimeError):
        # One side went away in the middle of a message: there is nobody left to tell.
        pass


def _containers(pod: Mapping[str, Any]) -> list[str]:
    spec = pod.get("spec", {})
    return [one["name"] for key in ("containers", "initContainers", "ephemeralContainers") for one in spec.get(key) or []]


def _log_container(pod: Mapping[str, Any], container: str) -> str:
    name = pod["metadata"]["name"]
    mains = [one["name"] for one in pod.get("spec", {}).get("containers") or []]
    if not container:
        default = str((pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container", ""))
        if len(mains) != 1 and default not in mains:
            raise BadRequest(f"a container name must be specified for pod {name}, choose one of: [{' '.join(mains)}]")
        container = default if default in mains else mains[0]
    if container not in _containers(pod):
        raise BadRequest(f"container {container} is not valid for pod {name}")
    for status in _statuses(pod):
        waiting = (status.get("state") or {}).get("waiting")
        if status["name"] == container and waiting and not status.get("lastState"):
            raise BadRequest(f'container "{container}" in pod "{name}" is waiting to start: {waiting.get("reason", "")}')
    return container


def _command_container(pod: Mapping[str, Any], container: str) -> str:
    name = pod["metadata"]["name"]
    phase = (pod.get("status") or {}).get("phase")
    if phase in ("Succeeded", "Failed"):
        raise BadRequest(f"cannot exec into a container in a completed pod; current phase is {phase}")
    mains = [one["name"] for one in pod.get("spec", {}).get("containers") or []]
    if not container:
        if len(mains) != 1:
            raise BadRequest(f"a container name must be specified for pod {name}, choose one of: [{' '.join(mains)}]")
        return mains[0]
    if container not in _containers(pod):
        raise BadRequest(f"container {container} is not valid for pod {name}")
    return container


def _statuses(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    status = pod.get("status") or {}
    return [one for key in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses") for one in status.get(key) or []]


def _node_address(node: Mapping[str, Any]) -> str:
    addresses = (node.get("status") or {}).get("addresses") or []
    for kind in ("InternalIP", "ExternalIP", "Hostname"):
        for one in addresses:
            if one.get("type") == kind:
                return f"[{one['address']}]" if ":" in one["address"] else one["address"]
    raise InternalError(f"no preferred addresses found; known addresses: {orjson.dumps(addresses).decode()}")


def _agent_port(node: Mapping[str, Any]) -> int:
    endpoint = ((node.get("status") or {}).get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}
    return int(endpoint.get("Port") or AGENT_PORT)


def _first_port(pod: Mapping[str, Any]) -> int:
    for container in pod.get("spec", {}).get("containers") or []:
        for port in container.get("ports") or []:
            return int(port["containerPort"])
    return 80


def _split_proxy_name(text: str) -> tuple[str, str, str]:
    """Return (scheme, name, port) of `[scheme:]name[:port]`."""
    parts = text.split(":")
    if len(parts) == 1:
        return "", parts[0], ""
    if len(parts) == 2:
        return "", parts[0], parts[1]
    return parts[0], parts[1], parts[2]


def _unverified() -> ssl.SSLContext:
    """Pods and services show certificates of their own making; upstream's proxy does not check them either."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _agent_error(response: aiohttp.ClientResponse) -> ApiError:
    text = (await response.text()).strip()
    response.close()
    return _error_of(response.status, text)


def _error_of(code: int, text: str) -> ApiError:
    if code == 404:
        return ApiError(404, "NotFound", text)
    if code == 400:
        return BadRequest(text)
    return InternalError(text)
