"""A container runtime in memory, for tests and simulations: no processes, seeded delays and faults, the same answers.

It understands a handful of commands (`sleep N`, `sh -c "exit N"`, `true`, `false`, `echo ...`); every other program runs until it is
stopped. Programs of pause-like images too. It is held to the same contract as containerd by tests/contract/test_cri.py.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Sequence
from random import Random

import msgspec

from korch.runtime import tasks
from korch.runtime.clock import Clock
from korch_agent.cri import protocol as p
from korch_agent.pods.observed import POD_UID

KILLED = 137
TERMINATED = 143


class FakeRuntime:
    """A `Runtime` whose time is `clock` and whose delays and faults come from `random`.

    `delay_s` is the most that a call takes, `fault_rate` the share of calls that fail with UNAVAILABLE.
    `ignores_term` names containers that a stop signal does not end.
    """

    def __init__(
        self, clock: Clock, random: Random, *, delay_s: float = 0.0, fault_rate: float = 0.0, pod_cidr: str = "10.244.0.0/24"
    ) -> None:
        self._clock = clock
        self._random = random
        self.delay_s = delay_s
        self.fault_rate = fault_rate
        self.ignores_term: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        self._addresses = iter(ipaddress.ip_network(pod_cidr).hosts())
        self._sandboxes: dict[str, p.Sandbox] = {}
        self._containers: dict[str, p.ContainerStatus] = {}
        self._configs: dict[str, p.ContainerConfig] = {}
        self._timers: dict[str, asyncio.Task[None]] = {}
        self._images: dict[str, p.Image] = {}
        self._pullable: dict[str, p.Image] = {}
        self._listeners: set[asyncio.Queue[str]] = set()
        self._is_down = False

    # -- what a test does to it -----------------------------------------------------------------------------------

    def add_image(self, name: str, *, present: bool = True, user: int | None = None, username: str = "") -> None:
        """Have an image, present or to be pulled."""
        image = p.Image(id=f"sha256:{abs(hash(name)):064x}"[:71], tags=(name,), size=1000, user=user, username=username)
        (self._images if present else self._pullable)[name] = image

    def exit(self, name: str, code: int) -> None:
        """Let every running container called `name` end with `code`."""
        for status in list(self._containers.values()):
            if status.name == name and status.state == "running":
                self._end(status.id, code)

    def lose_sandbox(self, sandbox_id: str) -> None:
        """Let a sandbox die, and what runs in it."""
        for status in list(self._containers.values()):
            if status.sandbox_id == sandbox_id and status.state == "running":
                self._end(status.id, KILLED)
        self._set_ready(sandbox_id, False)

    def set_down(self, is_down: bool) -> None:
        """Let every call fail, as when the runtime is being restarted; containers go on."""
        self._is_down = is_down

    # -- the protocol ---------------------------------------------------------------------------------------------

    async def version(self) -> p.Version:
        await self._call("version")
        return p.Version(runtime_name="fake", runtime_version="1.0")

    async def conditions(self) -> list[p.Condition]:
        await self._call("conditions")
        return [p.Condition(type="RuntimeReady", status=True), p.Condition(type="NetworkReady", status=True)]

    async def run_sandbox(self, config: p.SandboxConfig) -> str:
        await self._call("run_sandbox", config.name)
        for one in self._sandboxes.values():
            if (one.uid, one.attempt) == (config.uid, config.attempt):
                raise p.CriError("UNKNOWN", f'failed to reserve sandbox name "{config.name}": name is reserved')
        on_node = config.security.namespaces.network == "NODE"
        sandbox = p.Sandbox(
            id=self._id(),
            name=config.name,
            namespace=config.namespace,
            uid=config.uid,
            attempt=config.attempt,
            is_ready=True,
            created_at=self._now(),
            labels=dict(config.labels),
            annotations=dict(config.annotations),
            ips=() if on_node else (str(next(self._addresses)),),
        )
        self._sandboxes[sandbox.id] = sandbox
        self._tell("/tasks/start")
        return sandbox.id

    async def stop_sandbox(self, sandbox_id: str) -> None:
        await self._call("stop_sandbox", sandbox_id)
        if sandbox_id in self._sandboxes:
            self.lose_sandbox(sandbox_id)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self._call("remove_sandbox", sandbox_id)
        if sandbox_id in self._sandboxes:
            self.lose_sandbox(sandbox_id)
            for container_id in [one.id for one in self._containers.values() if one.sandbox_id == sandbox_id]:
                del self._containers[container_id]
            del self._sandboxes[sandbox_id]
            self._tell("/tasks/delete")

    async def sandbox_status(self, sandbox_id: str, *, verbose: bool = False) -> p.Sandbox:
        await self._call("sandbox_status", sandbox_id)
        if sandbox_id not in self._sandboxes:
            raise p.CriNotFound(f"sandbox {sandbox_id!r}: not found")
        return self._sandboxes[sandbox_id]

    async def list_sandboxes(self, *, uid: str = "") -> list[p.Sandbox]:
        await self._call("list_sandboxes")
        found = [one for one in self._sandboxes.values() if not uid or one.labels.get(POD_UID) == uid]
        return [msgspec.structs.replace(one, ips=()) for one in found]

    async def create_container(self, sandbox_id: str, config: p.ContainerConfig, sandbox: p.SandboxConfig) -> str:
        await self._call("create_container", config.name)
        if sandbox_id not in self._sandboxes:
            raise p.CriNotFound(f"failed to find sandbox id {sandbox_id!r}: not found")
        image = await self._find_image(config.image)
        if image is None:
            raise p.CriNotFound(f"failed to resolve image {config.image!r}: not found")
        status = p.ContainerStatus(
            id=self._id(),
            sandbox_id=sandbox_id,
            name=config.name,
            attempt=config.attempt,
            state="created",
            created_at=self._now(),
            image=image.tags[0] if image.tags else config.image,
            image_ref=image.id,
            log_path=f"{sandbox.log_directory}/{config.log_path}" if config.log_path else "",
            labels=dict(config.labels),
            annotations=dict(config.annotations),
        )
        self._containers[status.id] = status
        self._configs[status.id] = config
        return status.id

    async def start_container(self, container_id: str) -> None:
        await self._call("start_container", container_id)
        status = self._found(container_id)
        if status.state != "created":
            raise p.CriError("UNKNOWN", f"container is in CONTAINER_{status.state.upper()} state")
        self._containers[container_id] = msgspec.structs.replace(status, state="running", started_at=self._now())
        self._tell("/tasks/start")
        lasts = _duration(self._configs[container_id])
        if lasts is not None:
            self._timers[container_id] = tasks.spawn(self._end_after(container_id, *lasts), name=f"fake/{status.name}")

    async def stop_container(self, container_id: str, grace_s: int) -> None:
        await self._call("stop_container", container_id)
        status = self._containers.get(container_id)
        if status is None or status.state != "running":
            return
        if status.name in self.ignores_term and grace_s > 0:
            await asyncio.sleep(grace_s)
        code = KILLED if grace_s == 0 or status.name in self.ignores_term else TERMINATED
        if self._containers.get(container_id, status).state == "running":
            self._end(container_id, code)

    async def remove_container(self, container_id: str) -> None:
        await self._call("remove_container", container_id)
        status = self._containers.get(container_id)
        if status is not None:
            if status.state == "running":
                self._end(container_id, KILLED)
            del self._containers[container_id]
            self._tell("/tasks/delete")

    async def list_containers(self, *, uid: str = "", sandbox_id: str = "") -> list[p.Container]:
        await self._call("list_containers")
        return [
            p.Container(
                id=one.id,
                sandbox_id=one.sandbox_id,
                name=one.name,
                attempt=one.attempt,
                image=one.image,
                image_ref=one.image_ref,
                state=one.state,
                created_at=one.created_at,
                labels=one.labels,
                annotations=one.annotations,
            )
            for one in self._containers.values()
            if (not uid or one.labels.get(POD_UID) == uid) and (not sandbox_id or one.sandbox_id == sandbox_id)
        ]

    async def container_status(self, container_id: str, *, verbose: bool = False) -> p.ContainerStatus:
        await self._call("container_status", container_id)
        return msgspec.structs.replace(self._found(container_id), sandbox_id="")

    async def update_resources(self, container_id: str, resources: p.Resources) -> None:
        await self._call("update_resources", container_id)
        self._found(container_id)
        self._configs[container_id] = msgspec.structs.replace(self._configs[container_id], resources=resources)

    async def reopen_log(self, container_id: str) -> None:
        await self._call("reopen_log", container_id)
        self._found(container_id)

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> p.ExecResult:
        await self._call("exec_sync", container_id)
        if self._found(container_id).state != "running":
            raise p.CriError("UNKNOWN", "container is not running")
        match list(command):
            case ["true"]:
                return p.ExecResult()
            case ["false"]:
                return p.ExecResult(exit_code=1)
            case ["echo", *words]:
                return p.ExecResult(stdout=" ".join(words).encode() + b"\n")
            case ["sleep", seconds]:
                if 0 < timeout_s < float(seconds):
                    await asyncio.sleep(timeout_s)
                    raise p.ExecTimeout(f"command 'sleep {seconds}' timed out")
                await asyncio.sleep(float(seconds))
                return p.ExecResult()
        return p.ExecResult(stderr=f"{command[0]}: not found\n".encode(), exit_code=127)

    async def exec_url(self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> str:
        raise p.CriError("UNIMPLEMENTED", "the fake runtime has no streaming server")

    async def attach_url(self, container_id: str, *, tty: bool, stdin: bool, stdout: bool, stderr: bool) -> str:
        raise p.CriError("UNIMPLEMENTED", "the fake runtime has no streaming server")

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        raise p.CriError("UNIMPLEMENTED", "the fake runtime has no streaming server")

    async def list_images(self) -> list[p.Image]:
        await self._call("list_images")
        return list(self._images.values())

    async def image(self, name: str) -> p.Image | None:
        await self._call("image", name)
        return await self._find_image(name)

    async def pull_image(self, name: str, auth: p.Auth | None = None) -> str:
        await self._call("pull_image", name)
        image = self._pullable.get(name) or self._images.get(name)
        if image is None:
            raise p.CriNotFound(f'failed to pull and unpack image "{name}": failed to resolve reference "{name}": {name}: not found')
        pulled = msgspec.structs.replace(image, digests=(f"{name.rpartition(':')[0]}@{image.id}",))
        self._images[name] = pulled
        return pulled.id

    async def remove_image(self, name: str) -> None:
        await self._call("remove_image", name)
        image = await self._find_image(name)
        if image is not None:
            self._images = {key: one for key, one in self._images.items() if one.id != image.id}

    async def image_filesystems(self) -> list[p.FilesystemUsage]:
        await self._call("image_filesystems")
        return [p.FilesystemUsage(mountpoint="/", used_bytes=sum(one.size for one in self._images.values()))]

    async def events(self) -> AsyncIterator[str]:
        queue: asyncio.Queue[str] = asyncio.Queue(1000)
        self._listeners.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.discard(queue)

    # -- inside ---------------------------------------------------------------------------------------------------

    async def _call(self, name: str, what: str = "") -> None:
        self.calls.append((name, what))
        if self.delay_s:
            await asyncio.sleep(self._random.random() * self.delay_s)
        else:
            await asyncio.sleep(0)
        if self._is_down or (self.fault_rate and self._random.random() < self.fault_rate):
            raise ConnectionError("the container runtime does not answer: connection refused")

    async def _find_image(self, name: str) -> p.Image | None:
        return self._images.get(name) or next((one for one in self._images.values() if one.id == name), None)

    def _found(self, container_id: str) -> p.ContainerStatus:
        if container_id not in self._containers:
            raise p.CriNotFound(f"an error occurred when try to find container {container_id!r}: not found")
        return self._containers[container_id]

    async def _end_after(self, container_id: str, seconds: float, code: int) -> None:
        await asyncio.sleep(seconds)
        if container_id in self._containers and self._containers[container_id].state == "running":
            self._end(container_id, code)

    def _end(self, container_id: str, code: int) -> None:
        timer = self._timers.pop(container_id, None)
        if timer is not None and timer is not asyncio.current_task():
            timer.cancel()
        self._containers[container_id] = msgspec.structs.replace(
            self._containers[container_id],
            state="exited",
            exit_code=code,
            finished_at=self._now(),
            reason="Completed" if code == 0 else "Error",
        )
        self._tell("/tasks/exit")

    def _set_ready(self, sandbox_id: str, is_ready: bool) -> None:
        self._sandboxes[sandbox_id] = msgspec.structs.replace(self._sandboxes[sandbox_id], is_ready=is_ready)
        self._tell("/tasks/exit")

    def _tell(self, topic: str) -> None:
        for queue in self._listeners:
            if not queue.full():
                queue.put_nowait(topic)

    def _id(self) -> str:
        return f"{self._random.getrandbits(256):064x}"

    def _now(self) -> int:
        # Creation times order instances: two in the same instant must still differ.
        self._stamp = max(int(self._clock.now() * 1e9), getattr(self, "_stamp", 0) + 1)
        return self._stamp


def _duration(config: p.ContainerConfig) -> tuple[float, int] | None:
    """Return after how many seconds a program ends by itself and with which code, or None when it does not."""
    match [*config.command, *config.args]:
        case ["true"]:
            return 0.0, 0
        case ["false"]:
            return 0.0, 1
        case ["sleep", seconds]:
            return float(seconds), 0
        case ["sh", "-c", script] if script.startswith("exit "):
            return 0.0, int(script.split()[1])
    return None
