"""Getting a container's image: pull policies, back-off between failed pulls, and the events that tell of them.

An image that was imported from an archive has no digest of any registry: there is nowhere it could be pulled from, so policy
Always is content with it as it is. Mirrors kubelet's images/image_manager.go.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from korch.client.events import EventRecorder
from korch.runtime.context import Runtime as Seams
from korch_agent.cri.protocol import Auth, CriError, Image, Runtime
from korch_agent.images import normalize
from korch_agent.pods.observed import BACK_OFF_INITIAL_S, BACK_OFF_MAX_S, Pod

_NAME = re.compile(r"^[a-z0-9]+((\.|_|__|-+|/|:)[A-Za-z0-9]+)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$")


class ImageProblem(Exception):
    """An image is not to be had now; `reason` is the container's waiting reason, `retry_at` when to try again."""

    def __init__(self, reason: str, message: str, retry_at: float) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_at = retry_at


class _Failure(msgspec.Struct, frozen=True):
    delay_s: float
    at: float
    message: str


class Images:
    """The images of one node, for all its pods."""

    def __init__(self, runtime: Runtime, seams: Seams, events: EventRecorder) -> None:
        self._runtime = runtime
        self._seams = seams
        self._events = events
        self._failures: dict[tuple[str, str], _Failure] = {}

    async def ensure(self, pod: Pod, container: Mapping[str, Any], auths: list[Auth], *, field_path: str) -> Image:
        """Return the image of a container, pulled if its policy asks for it. Raises ImageProblem, ConnectionError."""
        asked, now = container.get("image", ""), self._seams.clock.now()
        if not _NAME.match(asked):
            message = f'Failed to apply default image tag "{asked}": couldn\'t parse image name "{asked}": invalid reference format'
            self._event(pod, "Warning", "InspectFailed", message, field_path)
            raise ImageProblem("InvalidImageName", message, now + BACK_OFF_MAX_S)
        name, policy = normalize(asked), container.get("imagePullPolicy") or "IfNotPresent"
        present = await self._runtime.image(name)
        if present is not None and (policy != "Always" or not present.digests):
            self._failures.pop((pod["metadata"]["uid"], name), None)
            message = f'Container image "{asked}" already present on machine and can be accessed by the pod'
            self._event(pod, "Normal", "Pulled", message, field_path)
            return present
        if policy == "Never":
            message = f'Container image "{asked}" is not present with pull policy of Never'
            self._event(pod, "Warning", "ErrImageNeverPull", message, field_path)
            raise ImageProblem("ErrImageNeverPull", message, now + BACK_OFF_INITIAL_S)
        return await self._pull(pod, asked, name, auths, field_path)

    async def _pull(self, pod: Pod, asked: str, name: str, auths: list[Auth], field_path: str) -> Image:
        clock, key = self._seams.clock, (pod["metadata"]["uid"], name)
        failure = self._failures.get(key)
        if failure is not None and clock.now() < failure.at + failure.delay_s:
            message = f'Back-off pulling image "{asked}"'
            self._event(pod, "Normal", "BackOff", message, field_path)
            raise ImageProblem("ImagePullBackOff", f"{message}: {failure.message}", failure.at + failure.delay_s)
        self._event(pod, "Normal", "Pulling", f'Pulling image "{asked}"', field_path)
        began = clock.monotonic()
        error: CriError | None = None
        for auth in [*auths, None]:
            try:
                await self._runtime.pull_image(name, auth)
                error = None
                break
            except CriError as refused:
                error = refused
        image = await self._runtime.image(name) if error is None else None
        if image is None:
            text = error.message if error is not None else "the image vanished after it was pulled"
            delay = BACK_OFF_INITIAL_S if failure is None else min(BACK_OFF_MAX_S, failure.delay_s * 2)
            self._failures[key] = _Failure(delay, clock.now(), f"ErrImagePull: {text}")
            self._event(pod, "Warning", "Failed", f'Failed to pull image "{asked}": {text}', field_path)
            self._event(pod, "Warning", "Failed", "Error: ErrImagePull", field_path)
            # The next look, shortly after, says ImagePullBackOff until the delay has passed.
            raise ImageProblem("ErrImagePull", text, clock.now() + 1.0)
        self._failures.pop(key, None)
        took = f"{clock.monotonic() - began:.3f}s"
        message = f'Successfully pulled image "{asked}" in {took} ({took} including waiting). Image size: {image.size} bytes.'
        self._event(pod, "Normal", "Pulled", message, field_path)
        return image

    def _event(self, pod: Pod, sort: str, reason: str, message: str, field_path: str) -> None:
        self._events.event(pod, sort, reason, message, field_path=field_path)


def auths_for(image: str, secrets: list[dict[str, Any] | None]) -> list[Auth]:
    """Return the credentials in the pull secrets that fit the registry of `image`."""
    registry = normalize(image).split("/")[0]
    found: list[Auth] = []
    for secret in secrets:
        data = (secret or {}).get("data") or {}
        raw = data.get(".dockerconfigjson") or data.get(".dockercfg")
        if not raw:
            continue
        document = orjson.loads(base64.b64decode(raw))
        for server, entry in (document.get("auths") or document).items():
            host = server.removeprefix("https://").removeprefix("http://").split("/")[0]
            if host == registry or (registry == "docker.io" and host.endswith("docker.io")):
                user, _, password = base64.b64decode(entry.get("auth") or "").decode().partition(":")
                found.append(
                    Auth(username=entry.get("username") or user, password=entry.get("password") or password, server_address=server)
                )
    return found
