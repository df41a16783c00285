"""Lifecycle hooks: what runs right after a container started, and before it is stopped. Mirrors kubelet's lifecycle/handlers.go."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from korch_agent.cri.protocol import Runtime
from korch_agent.pods import handlers
from korch_agent.pods.handlers import HandlerError
from korch_agent.pods.observed import Pod

HTTP_TIMEOUT_S = 30.0


async def run_hook(
    runtime: Runtime, hook: Mapping[str, Any], pod: Pod, container: Mapping[str, Any], container_id: str, pod_ip: str
) -> str:
    """Run one hook to its end; return "" or what went wrong. An exec hook has no time limit of its own."""
    try:
        if hook.get("exec"):
            command = hook["exec"].get("command") or []
            outcome = await handlers.run_exec(runtime, container_id, command, 0)
            return "" if outcome.ok else f"Exec lifecycle hook ({command}) for Container {container['name']!r} failed: {outcome.output}"
        if hook.get("httpGet"):
            outcome = await handlers.run_http(hook["httpGet"], pod, container, pod_ip, HTTP_TIMEOUT_S)
            return "" if outcome.ok else f"HTTP lifecycle hook for Container {container['name']!r} failed: {outcome.output}"
        if hook.get("sleep"):
            await asyncio.sleep(float(hook["sleep"].get("seconds") or 0))
            return ""
        if hook.get("tcpSocket"):
            return ""  # Accepted by the API for old times' sake, and never run.
    except HandlerError as error:
        return str(error)
    return "invalid handler: no handler specified"
