"""Running one probe or lifecycle handler against a container: exec, HTTP, TCP, gRPC, sleep.

Each returns (ok, output); trouble that is not the container's fault is raised as HandlerError. Mirrors kubelet's prober and
lifecycle handlers.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp
import grpc.aio
import msgspec
from yarl import URL

from korch_agent.cri.protocol import CriError, ExecTimeout, Runtime
from korch_agent.pods.observed import Pod

OUTPUT_BYTES_MAX = 10 * 1024
USER_AGENT = "kube-probe/1.37"
SERVING = b"\x08\x01"


class HandlerError(Exception):
    """The handler could not be run."""


class Outcome(msgspec.Struct, frozen=True):
    ok: bool
    output: str = ""


async def run_exec(runtime: Runtime, container_id: str, command: list[str], timeout_s: float) -> Outcome:
    """Run a command in the container; ok when it ends with 0."""
    try:
        result = await runtime.exec_sync(container_id, command, timeout_s)
    except ExecTimeout as error:
        return Outcome(False, f"command timed out: {error.message} timed out after {round(timeout_s)}s")
    except (CriError, ConnectionError) as error:
        raise HandlerError(str(error)) from error
    output = (result.stdout + result.stderr)[:OUTPUT_BYTES_MAX].decode(errors="replace")
    return Outcome(result.exit_code == 0, output)


async def run_http(action: Mapping[str, Any], pod: Pod, container: Mapping[str, Any], pod_ip: str, timeout_s: float) -> Outcome:
    """GET a URL of the pod; ok for 200 to 399. Redirects are followed on the same host only; certificates are not checked."""
    scheme = (action.get("scheme") or "HTTP").lower()
    host = action.get("host") or pod_ip
    port = port_number(action.get("port"), container)
    path = action.get("path") or "/"
    path = path if path.startswith("/") else f"/{path}"
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}"
    headers = {"User-Agent": USER_AGENT, "Accept": "*/*"}
    for header in action.get("httpHeaders") or []:
        headers[header["name"]] = header.get("value") or ""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connector = aiohttp.TCPConnector(ssl=context if scheme == "https" else False, force_close=True)
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=timeout_s), trust_env=False) as session:
            return await _get(session, url, headers)
    except TimeoutError:
        return Outcome(False, f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)')
    except aiohttp.ClientConnectorError as error:
        return Outcome(False, f'Get "{url}": dial tcp {host}:{port}: connect: {(error.os_error.strerror or str(error)).lower()}')
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Outcome(False, f'Get "{url}": {error}')


async def _get(session: aiohttp.ClientSession, url: str, headers: Mapping[str, str]) -> Outcome:
    at = URL(url, encoded=True)
    for _ in range(10):
        async with session.get(at, headers=headers, allow_redirects=False) as response:
            body = (await response.content.read(OUTPUT_BYTES_MAX)).decode(errors="replace")
            location = response.headers.get("Location")
            if response.status in (301, 302, 303, 307, 308) and location:
                target = at.join(URL(location))
                if target.host != at.host:
                    return Outcome(True, f"Probe terminated redirects, Response body: {body}")
                at = target
                continue
            if 200 <= response.status < 400:
                return Outcome(True, body)
            return Outcome(False, f"HTTP probe failed with statuscode: {response.status}")
    return Outcome(False, f'Get "{url}": stopped after 10 redirects')


async def run_tcp(action: Mapping[str, Any], container: Mapping[str, Any], pod_ip: str, timeout_s: float) -> Outcome:
    """Open a connection; ok when it is accepted."""
    host, port = action.get("host") or pod_ip, port_number(action.get("port"), container)
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return Outcome(False, f"dial tcp {host}:{port}: i/o timeout")
    except OSError as error:
        return Outcome(False, f"dial tcp {host}:{port}: connect: {(error.strerror or str(error)).lower()}")
    writer.close()
    return Outcome(True)


async def run_grpc(action: Mapping[str, Any], pod_ip: str, timeout_s: float) -> Outcome:
    """Ask grpc.health.v1.Health/Check; ok when it says SERVING. The two messages are small enough to be written by hand."""
    service = (action.get("service") or "").encode()
    request = b"\x0a" + bytes((len(service),)) + service if service else b""
    address = f"{pod_ip}:{action['port']}"
    async with grpc.aio.insecure_channel(address, options=[("grpc.primary_user_agent", USER_AGENT)]) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            answer = await check(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return Outcome(
                    False, f'timeout: failed to connect service "{address}" within {round(timeout_s)}s: context deadline exceeded'
                )
            return Outcome(False, f"error: health rpc probe failed: {error.details()}")
    return Outcome(answer == SERVING, "" if answer == SERVING else "service unhealthy (responded with a status other than SERVING)")


def port_number(port: Any, container: Mapping[str, Any]) -> int:
    """Return a port by number or by the container's name for it. Raises HandlerError for an unknown name."""
    if isinstance(port, int):
        return port
    if str(port).isdigit():
        return int(port)
    for one in container.get("ports") or []:
        if one.get("name") == port:
            return int(one["containerPort"])
    raise HandlerError(f"couldn't find port: {port!r} in container {container['name']}")
