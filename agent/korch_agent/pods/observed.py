"""What is known of one pod on this node at one moment: the input of `plan` and `status`, and nothing else is.

A container is known to the runtime by its labels, so that a restarted agent finds again what an earlier one started: nothing is
kept on disk. Times are seconds since the epoch unless a name says otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from korch_agent.cri.protocol import ContainerStatus, Sandbox

POD_NAME = "io.kubernetes.pod.name"
POD_NAMESPACE = "io.kubernetes.pod.namespace"
POD_UID = "io.kubernetes.pod.uid"
CONTAINER_NAME = "io.kubernetes.container.name"
CONTAINER_HASH = "io.kubernetes.container.hash"
RESTART_COUNT = "io.kubernetes.container.restartCount"
CONTAINER_RESOURCES = "korch.io/container.resources"
TERMINATION_PATH = "io.kubernetes.container.terminationMessagePath"
TERMINATION_POLICY = "io.kubernetes.container.terminationMessagePolicy"
POD_GRACE = "io.kubernetes.pod.terminationGracePeriod"

BACK_OFF_INITIAL_S = 10.0
BACK_OFF_MAX_S = 300.0
# A container that ran this long since it last failed starts over with the shortest back-off.
BACK_OFF_RESET_S = 600.0
DEFAULT_GRACE_S = 30

Pod = dict[str, Any]


class Crash(msgspec.Struct, frozen=True):
    """The back-off of one container: how long to wait after `finished_at` of its last end that was restarted or is waited for."""

    delay_s: float
    updated_at: float


class Waiting(msgspec.Struct, frozen=True):
    """Why a container could not be started; it is tried again at `retry_at`."""

    reason: str
    message: str
    retry_at: float


class Probed(msgspec.Struct, frozen=True):
    """What the probes of one running container say. Without a probe of a sort its answer is yes."""

    started: bool = True
    ready: bool = True
    live: bool = True
    kill_message: str = ""
    # The failing probe's own grace period, or None for the pod's.
    grace_s: int | None = None


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """One pod as the runtime and the agent's own parts see it. `containers` holds each name's instances, newest first."""

    sandboxes: tuple[Sandbox, ...] = ()
    containers: Mapping[str, tuple[ContainerStatus, ...]] = {}
    killing: Mapping[str, float] = {}
    crashes: Mapping[str, Crash] = {}
    waiting: Mapping[str, Waiting] = {}
    probed: Mapping[str, Probed] = {}
    # Resources that running containers were given after they were made, by id, as `resources_key` writes them.
    resized: Mapping[str, str] = {}
    volumes_ready: bool = False
    volumes_retry_at: float = 0.0
    sandbox_retry_at: float = 0.0
    # The Pod object is gone from the API server.
    is_deleted: bool = False
    # Everything of an ended pod was taken away.
    is_finished: bool = False
    started_at: float = 0.0
    rejected: tuple[str, str] = ("", "")

    @property
    def sandbox(self) -> Sandbox | None:
        """Return the newest sandbox, ready or not."""
        return self.sandboxes[0] if self.sandboxes else None

    @property
    def ready_sandbox(self) -> Sandbox | None:
        """Return the newest sandbox when it is ready."""
        return self.sandboxes[0] if self.sandboxes and self.sandboxes[0].is_ready else None

    def current(self, name: str) -> ContainerStatus | None:
        """Return the newest instance of a container in the newest sandbox; one in an older sandbox belongs to the past."""
        instances = self.containers.get(name)
        if not instances or self.sandbox is None or instances[0].sandbox_id != self.sandbox.id:
            return None
        return instances[0]

    def newest(self, name: str) -> ContainerStatus | None:
        """Return the newest instance of a container, whatever its sandbox."""
        instances = self.containers.get(name)
        return instances[0] if instances else None

    def running(self) -> list[ContainerStatus]:
        """Return every instance that runs, in all sandboxes."""
        return [one for instances in self.containers.values() for one in instances if one.state == "running"]


def init_containers(pod: Pod) -> list[dict[str, Any]]:
    return pod["spec"].get("initContainers") or []


def app_containers(pod: Pod) -> list[dict[str, Any]]:
    return pod["spec"].get("containers") or []


def ephemeral_containers(pod: Pod) -> list[dict[str, Any]]:
    return pod["spec"].get("ephemeralContainers") or []


def all_containers(pod: Pod) -> list[dict[str, Any]]:
    """Return init, app and ephemeral containers, in this order."""
    return [*init_containers(pod), *app_containers(pod), *ephemeral_containers(pod)]


def is_sidecar(container: Mapping[str, Any]) -> bool:
    """Return whether an init container keeps running beside the app containers."""
    return container.get("restartPolicy") == "Always"


def is_deleting(pod: Pod) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def grace_s(pod: Pod) -> int:
    """Return the seconds a container gets to end by itself: the deletion's, else the pod's own."""
    deletion = pod["metadata"].get("deletionGracePeriodSeconds")
    if is_deleting(pod) and deletion is not None:
        return int(deletion)
    own = pod["spec"].get("terminationGracePeriodSeconds")
    return DEFAULT_GRACE_S if own is None else int(own)


def restart_count(status: ContainerStatus | None) -> int:
    """Return how often the container had been restarted when this instance was made."""
    return int(status.annotations.get(RESTART_COUNT, status.attempt)) if status is not None else 0


def pod_key(pod: Pod) -> str:
    """Return `namespace/name`."""
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def full_name(pod: Pod) -> str:
    """Return `name_namespace(uid)`, as messages of the kubelet name pods."""
    meta = pod["metadata"]
    return f"{meta['name']}_{meta['namespace']}({meta['uid']})"


def container_hash(container: Mapping[str, Any]) -> str:
    """Return what tells whether a running container still is the one in the spec: its name and image (all else is immutable)."""
    return hashlib.sha256(f"{container['name']}\0{container.get('image', '')}".encode()).hexdigest()[:8]


def resources_key(container: Mapping[str, Any]) -> str:
    """Return a container's resources as canonical JSON, to be compared and to be remembered with the container."""
    return orjson.dumps(container.get("resources") or {}, option=orjson.OPT_SORT_KEYS).decode()


def applied_resources(seen: Observed, status: ContainerStatus, container: Mapping[str, Any]) -> str:
    """Return the resources that a container runs with, as `resources_key` writes them."""
    return seen.resized.get(status.id) or status.annotations.get(CONTAINER_RESOURCES) or resources_key(container)


def next_crash(crash: Crash | None, *, now: float, finished_at: float) -> Crash:
    """Return the back-off after another restart at `now`: doubled, or the first again after a long quiet time."""
    if crash is None or finished_at - crash.updated_at > BACK_OFF_RESET_S:
        return Crash(BACK_OFF_INITIAL_S, now)
    return Crash(min(BACK_OFF_MAX_S, crash.delay_s * 2), now)


def back_off_until(crash: Crash | None, *, finished_at: float) -> float:
    """Return when a container that ended at `finished_at` may be started again; 0 for at once. Mirrors IsInBackOffSince."""
    if crash is None or finished_at - crash.updated_at > BACK_OFF_RESET_S:
        return 0.0
    return finished_at + crash.delay_s


def remembered_crash(newest: ContainerStatus | None) -> Crash | None:
    """Return the back-off of a container that an earlier run of the agent has restarted: its restart count tells how far it got."""
    count = restart_count(newest)
    if newest is None or count == 0:
        return None
    delay = min(BACK_OFF_MAX_S, BACK_OFF_INITIAL_S * 2 ** min(count - 1, 10))
    return Crash(delay, newest.created_at / 1e9)
