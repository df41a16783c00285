"""The seam between the agent and a container runtime: one protocol of plain values.

The agent plans and reports in these frozen structs, never in protobuf messages, so that a fake runtime for tests and
simulations needs no generated code, and a change of wire format stays inside `cri.grpc`. Times are nanoseconds since the
epoch as CRI has them; zero means "not yet". Outcomes are raised as CriError; an unreachable runtime as ConnectionError.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

NamespaceMode = Literal["POD", "CONTAINER", "NODE", "TARGET"]
ContainerState = Literal["created", "running", "exited", "unknown"]
Propagation = Literal["private", "host_to_container", "bidirectional"]


class CriError(Exception):
    """The runtime refused. `code` is the gRPC status name, such as NOT_FOUND; `message` is the runtime's own text."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class CriNotFound(CriError):
    """No such sandbox, container or image."""

    def __init__(self, message: str) -> None:
        super().__init__("NOT_FOUND", message)


class ExecTimeout(CriError):
    """A command ran longer than it was allowed to."""

    def __init__(self, message: str) -> None:
        super().__init__("DEADLINE_EXCEEDED", message)


class _Value(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the seam's values."""


class Dns(_Value, frozen=True, kw_only=True):
    """What the runtime writes into resolv.conf."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class PortMapping(_Value, frozen=True, kw_only=True):
    """A hostPort. `protocol` is TCP, UDP or SCTP."""

    protocol: str = "TCP"
    container_port: int
    host_port: int
    host_ip: str = ""


class Namespaces(_Value, frozen=True, kw_only=True):
    """Which namespaces are shared: with the pod, the node, or the container `target_id` (pid only)."""

    network: NamespaceMode = "POD"
    pid: NamespaceMode = "CONTAINER"
    ipc: NamespaceMode = "POD"
    target_id: str = ""


class Seccomp(_Value, frozen=True, kw_only=True):
    """A seccomp (or AppArmor) profile; `localhost_ref` is the path or the name of a Localhost one."""

    type: Literal["RuntimeDefault", "Unconfined", "Localhost"] = "RuntimeDefault"
    localhost_ref: str = ""


class Security(_Value, frozen=True, kw_only=True):
    """A sandbox's or container's security context. `user` None: the image's user."""

    namespaces: Namespaces = Namespaces()
    privileged: bool = False
    user: int | None = None
    username: str = ""
    group: int | None = None
    supplemental_groups: tuple[int, ...] = ()
    strict_groups: bool = False
    read_only_root: bool = False
    no_new_privileges: bool = False
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    seccomp: Seccomp | None = None
    apparmor: Seccomp | None = None


class Resources(_Value, frozen=True, kw_only=True):
    """Cgroup limits; zero means "not set". Shares, microseconds, bytes."""

    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_shares: int = 0
    memory_limit: int = 0
    oom_score_adj: int = 0
    unified: Mapping[str, str] = {}


class SandboxConfig(_Value, frozen=True, kw_only=True):
    """A pod's sandbox: its network, hostname, cgroup parent and labels."""

    name: str
    namespace: str
    uid: str
    attempt: int = 0
    hostname: str = ""
    log_directory: str = ""
    dns: Dns | None = None
    ports: tuple[PortMapping, ...] = ()
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    cgroup_parent: str = ""
    sysctls: Mapping[str, str] = {}
    security: Security = Security()
    runtime_handler: str = ""


class Mount(_Value, frozen=True, kw_only=True):
    """A bind mount of `host_path` at `container_path`."""

    container_path: str
    host_path: str
    readonly: bool = False
    propagation: Propagation = "private"


class Device(_Value, frozen=True, kw_only=True):
    container_path: str
    host_path: str
    permissions: str = "rwm"


class ContainerConfig(_Value, frozen=True, kw_only=True):
    """A container to be created in a sandbox. `image` is an id or name that the runtime has."""

    name: str
    attempt: int = 0
    image: str
    user_image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    envs: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    log_path: str = ""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    resources: Resources = Resources()
    security: Security = Security()


class Sandbox(_Value, frozen=True, kw_only=True):
    """A sandbox as the runtime sees it. `ips` is filled only by sandbox_status."""

    id: str
    name: str
    namespace: str
    uid: str
    attempt: int = 0
    is_ready: bool = False
    created_at: int = 0
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    ips: tuple[str, ...] = ()
    pid: int = 0


class Container(_Value, frozen=True, kw_only=True):
    """A container as the runtime lists it."""

    id: str
    sandbox_id: str
    name: str
    attempt: int = 0
    image: str = ""
    image_ref: str = ""
    state: ContainerState = "unknown"
    created_at: int = 0
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}


class ContainerStatus(_Value, frozen=True, kw_only=True):
    """A container in full; `reason` and `message` as the runtime reports them (OOMKilled, Error, Completed)."""

    id: str
    sandbox_id: str = ""
    name: str
    attempt: int = 0
    state: ContainerState = "unknown"
    created_at: int = 0
    started_at: int = 0
    finished_at: int = 0
    exit_code: int = 0
    image: str = ""
    image_ref: str = ""
    reason: str = ""
    message: str = ""
    log_path: str = ""
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    pid: int = 0


class Image(_Value, frozen=True, kw_only=True):
    """An image that is present. `id` is its config digest; `user` its numeric user or None, `username` its named one."""

    id: str
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    size: int = 0
    user: int | None = None
    username: str = ""


class Auth(_Value, frozen=True, kw_only=True):
    """Credentials for one registry."""

    username: str = ""
    password: str = ""
    auth: str = ""
    server_address: str = ""
    identity_token: str = ""
    registry_token: str = ""


class ExecResult(_Value, frozen=True, kw_only=True):
    stdout: bytes = b""
    stderr: bytes = b""
    exit_code: int = 0


class Version(_Value, frozen=True, kw_only=True):
    runtime_name: str
    runtime_version: str
    runtime_api_version: str = "v1"


class Condition(_Value, frozen=True, kw_only=True):
    """RuntimeReady or NetworkReady."""

    type: str
    status: bool
    reason: str = ""
    message: str = ""


class FilesystemUsage(_Value, frozen=True, kw_only=True):
    """Where images lie and what they take, in bytes and inodes."""

    mountpoint: str
    used_bytes: int = 0
    inodes_used: int = 0


class Runtime(Protocol):
    """A container runtime. Every method awaits the runtime's answer and raises CriError or ConnectionError."""

    async def version(self) -> Version: ...

    async def conditions(self) -> list[Condition]: ...

    async def run_sandbox(self, config: SandboxConfig) -> str:
        """Create and start a sandbox, network included; return its id."""
        ...

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Kill what runs in it and take its network away. Stopping twice, or a missing one, is no error."""
        ...

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Remove it and its containers. A missing one is no error."""
        ...

    async def sandbox_status(self, sandbox_id: str, *, verbose: bool = False) -> Sandbox:
        """Return it with its addresses, and with its `pid` when verbose. Raises CriNotFound."""
        ...

    async def list_sandboxes(self, *, uid: str = "") -> list[Sandbox]:
        """Return all sandboxes, or those of one pod; without addresses."""
        ...

    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig) -> str:
        """Create, do not start; return its id."""
        ...

    async def start_container(self, container_id: str) -> None: ...

    async def stop_container(self, container_id: str, grace_s: int) -> None:
        """Send the stop signal, wait at most `grace_s`, then kill. A missing or stopped one is no error."""
        ...

    async def remove_container(self, container_id: str) -> None:
        """Remove it, killing it when needed. A missing one is no error."""
        ...

    async def list_containers(self, *, uid: str = "", sandbox_id: str = "") -> list[Container]: ...

    async def container_status(self, container_id: str, *, verbose: bool = False) -> ContainerStatus:
        """Return it in full, with its `pid` when verbose. Raises CriNotFound."""
        ...

    async def update_resources(self, container_id: str, resources: Resources) -> None: ...

    async def reopen_log(self, container_id: str) -> None:
        """Open the log file anew, after it was renamed by rotation."""
        ...

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        """Run a command to its end. `timeout_s` 0: no limit. Raises ExecTimeout."""
        ...

    async def exec_url(self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> str:
        """Return the URL of the runtime's streaming server for an interactive command."""
        ...

    async def attach_url(self, container_id: str, *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> str: ...

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str: ...

    async def list_images(self) -> list[Image]: ...

    async def image(self, name: str) -> Image | None:
        """Return the image called `name` (any name or id), or None when it is not present."""
        ...

    async def pull_image(self, name: str, auth: Auth | None = None) -> str:
        """Fetch an image; return its reference. Raises CriError with the registry's answer."""
        ...

    async def remove_image(self, name: str) -> None: ...

    async def image_filesystems(self) -> list[FilesystemUsage]: ...

    def events(self) -> AsyncIterator[str]:
        """Yield whenever some container or sandbox may have changed (the text says what); ends when the runtime goes away."""
        ...
