"""What the agent relies on in a container runtime, held against a real containerd and against the fake one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from korch.runtime.clock import RealClock
from korch_agent.cri.fake import FakeRuntime
from korch_agent.cri.protocol import (
    ContainerConfig,
    ContainerStatus,
    CriError,
    CriNotFound,
    Dns,
    ExecTimeout,
    Resources,
    Runtime,
    SandboxConfig,
)
from korch_agent.pods.observed import POD_UID
from tests.contract.cri_arms import can_run_containerd, private_containerd

BUSYBOX = "docker.io/library/busybox:latest"


@dataclass
class Arm:
    """A runtime with the busybox image, and where pods' control groups and logs belong on it."""

    runtime: Runtime
    cgroup_root: str = ""
    logs: str = ""

    def sandbox(self, uid: str, attempt: int = 0) -> SandboxConfig:
        return SandboxConfig(
            name=f"pod-{uid}",
            namespace="default",
            uid=uid,
            attempt=attempt,
            hostname="here",
            labels={POD_UID: uid, "app": "x"},
            annotations={"note": "kept"},
            log_directory=f"{self.logs}/{uid}",
            cgroup_parent=f"{self.cgroup_root}/kubepods/pod{uid}" if self.cgroup_root else "",
            dns=Dns(servers=("10.96.0.10",), searches=("default.svc.cluster.local",), options=("ndots:5",)),
        )

    def container(self, uid: str, *command: str, name: str = "c", attempt: int = 0) -> ContainerConfig:
        return ContainerConfig(
            name=name,
            attempt=attempt,
            image=BUSYBOX,
            command=command,
            labels={POD_UID: uid},
            annotations={"io.kubernetes.container.restartCount": str(attempt)},
            log_path=f"{name}-{attempt}.log",
            resources=Resources(memory_limit=64 << 20, cpu_shares=100),
        )

    async def start(self, uid: str, *command: str, name: str = "c") -> tuple[str, str]:
        """Run a sandbox with one container in it; return their ids."""
        sandbox = self.sandbox(uid)
        sandbox_id = await self.runtime.run_sandbox(sandbox)
        container_id = await self.runtime.create_container(sandbox_id, self.container(uid, *command, name=name), sandbox)
        await self.runtime.start_container(container_id)
        return sandbox_id, container_id

    async def ended(self, container_id: str) -> ContainerStatus:
        """Await the end of a container."""
        async with asyncio.timeout(30):
            while (status := await self.runtime.container_status(container_id)).state != "exited":
                await asyncio.sleep(0.02)
        return status

    async def remove(self, sandbox_id: str) -> None:
        await self.runtime.stop_sandbox(sandbox_id)
        await self.runtime.remove_sandbox(sandbox_id)


@pytest.fixture(params=["fake", pytest.param("containerd", marks=pytest.mark.e2e)])
async def arm(request: pytest.FixtureRequest) -> AsyncIterator[Arm]:
    if request.param == "fake":
        fake = FakeRuntime(RealClock(), random.Random(1))
        fake.add_image(BUSYBOX)
        yield Arm(fake)
        return
    assert can_run_containerd() == ""
    async with private_containerd() as (containerd, runtime):
        yield Arm(runtime, containerd.cgroup_root, str(containerd.layout.data_dir / "logs"))


async def test_a_container_runs_in_its_sandbox_and_is_found_by_the_pods_uid(arm: Arm) -> None:
    sandbox_id, container_id = await arm.start("u1", "sleep", "1000")
    other_id, _ = await arm.start("u2", "sleep", "1000")

    (sandbox,) = await arm.runtime.list_sandboxes(uid="u1")
    (container,) = await arm.runtime.list_containers(uid="u1")
    assert (sandbox.id, sandbox.is_ready, sandbox.labels["app"], sandbox.annotations) == (sandbox_id, True, "x", {"note": "kept"})
    assert (container.id, container.sandbox_id, container.state) == (container_id, sandbox_id, "running")
    assert {one.id for one in await arm.runtime.list_sandboxes()} == {sandbox_id, other_id}
    assert len((await arm.runtime.sandbox_status(sandbox_id)).ips) == 1
    status = await arm.runtime.container_status(container_id)
    assert (status.name, status.state, status.annotations["io.kubernetes.container.restartCount"]) == ("c", "running", "0")
    assert status.created_at <= status.started_at and status.finished_at == 0
    await arm.remove(sandbox_id)
    await arm.remove(other_id)


@pytest.mark.parametrize(("command", "code", "reason"), [(("true",), 0, "Completed"), (("sh", "-c", "exit 3"), 3, "Error")])
async def test_a_container_that_ends_says_how(arm: Arm, command: tuple[str, ...], code: int, reason: str) -> None:
    sandbox_id, container_id = await arm.start("u1", *command)
    status = await arm.ended(container_id)
    assert (status.exit_code, status.reason) == (code, reason)
    # containerd may note the start of a program that ends at once after its end.
    assert 0 < status.created_at <= status.finished_at and status.started_at > 0
    assert (await arm.runtime.list_containers(uid="u1"))[0].state == "exited"
    assert (await arm.runtime.list_sandboxes(uid="u1"))[0].is_ready
    await arm.remove(sandbox_id)


async def test_stopping_is_idempotent_and_a_sandbox_takes_its_containers_with_it(arm: Arm) -> None:
    sandbox_id, container_id = await arm.start("u1", "sleep", "1000")
    await arm.runtime.stop_container(container_id, 0)
    assert (await arm.ended(container_id)).exit_code == 137
    await arm.runtime.stop_container(container_id, 0)
    await arm.runtime.stop_sandbox(sandbox_id)
    await arm.runtime.stop_sandbox(sandbox_id)
    assert not (await arm.runtime.list_sandboxes(uid="u1"))[0].is_ready
    await arm.runtime.remove_sandbox(sandbox_id)
    await arm.runtime.remove_sandbox(sandbox_id)
    assert await arm.runtime.list_sandboxes() == []
    assert await arm.runtime.list_containers() == []
    with pytest.raises(CriNotFound):
        await arm.runtime.container_status(container_id)
    with pytest.raises(CriNotFound):
        await arm.runtime.sandbox_status(sandbox_id)


async def test_a_dead_container_may_be_removed_and_another_attempt_made(arm: Arm) -> None:
    sandbox_id, first = await arm.start("u1", "true")
    await arm.ended(first)
    sandbox = arm.sandbox("u1")
    second = await arm.runtime.create_container(sandbox_id, arm.container("u1", "sleep", "1000", attempt=1), sandbox)
    await arm.runtime.start_container(second)
    newest = max(await arm.runtime.list_containers(uid="u1"), key=lambda one: one.created_at)
    assert (newest.id, newest.attempt, newest.state) == (second, 1, "running")
    await arm.runtime.remove_container(first)
    await arm.runtime.remove_container(first)
    assert [one.id for one in await arm.runtime.list_containers(uid="u1")] == [second]
    await arm.remove(sandbox_id)


async def test_commands_run_in_a_container(arm: Arm) -> None:
    sandbox_id, container_id = await arm.start("u1", "sleep", "1000")
    assert (await arm.runtime.exec_sync(container_id, ["echo", "a", "b"], 10)).stdout == b"a b\n"
    assert (await arm.runtime.exec_sync(container_id, ["false"], 10)).exit_code == 1
    with pytest.raises(ExecTimeout):
        await arm.runtime.exec_sync(container_id, ["sleep", "30"], 1)
    await arm.runtime.update_resources(container_id, Resources(memory_limit=32 << 20, cpu_shares=50))
    await arm.remove(sandbox_id)


async def test_the_same_attempt_of_a_sandbox_is_not_made_twice(arm: Arm) -> None:
    sandbox_id = await arm.runtime.run_sandbox(arm.sandbox("u1"))
    with pytest.raises(CriError, match="reserve"):
        await arm.runtime.run_sandbox(arm.sandbox("u1"))
    again = await arm.runtime.run_sandbox(arm.sandbox("u1", attempt=1))
    assert {one.attempt for one in await arm.runtime.list_sandboxes(uid="u1")} == {0, 1}
    await arm.remove(sandbox_id)
    await arm.remove(again)


async def test_images_are_known_by_name_and_by_id_and_imported_ones_have_no_digest(arm: Arm) -> None:
    image = await arm.runtime.image(BUSYBOX)
    assert image is not None and BUSYBOX in image.tags and image.digests == ()
    assert await arm.runtime.image(image.id) == image
    assert image in await arm.runtime.list_images()
    assert await arm.runtime.image("example.com/absent:1") is None
    sandbox_id = await arm.runtime.run_sandbox(arm.sandbox("u1"))
    with pytest.raises(CriNotFound):
        config = ContainerConfig(name="c", image="sha256:" + "0" * 64, labels={POD_UID: "u1"})
        await arm.runtime.create_container(sandbox_id, config, arm.sandbox("u1"))
    await arm.remove(sandbox_id)


async def test_the_end_of_a_container_is_an_event(arm: Arm) -> None:
    sandbox_id, container_id = await arm.start("u1", "sleep", "1000")
    events = arm.runtime.events()
    heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def listen() -> None:
        async for topic in events:
            if topic.endswith("/exit") and not heard.done():
                heard.set_result(topic)

    async with asyncio.TaskGroup() as group:
        listener = group.create_task(listen())
        # A subscription takes effect some time after the call; what happens before it is found by the relist.
        while not heard.done():
            other = await arm.start(f"x{random.getrandbits(32):x}", "true")
            await asyncio.wait([heard], timeout=0.5)
            await arm.remove(other[0])
        listener.cancel()
    await arm.runtime.stop_container(container_id, 0)
    await arm.remove(sandbox_id)
