"""Container logs that grow too big: put aside, compressed, in the end removed."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from korch.runtime.context import simulated
from korch.testing.loop import SimLoop
from korch_agent.cri import protocol as cri
from korch_agent.cri.fake import FakeRuntime
from korch_agent.log_rotation import LogRotation

T = TypeVar("T")
IMAGE = "docker.io/library/app:1"


class Node:
    """One container whose log lies in `directory`, and what rotates it beyond 100 bytes."""

    def __init__(self, directory: Path) -> None:
        seams = simulated(1)
        self.directory = directory
        self.runtime = FakeRuntime(seams.clock, seams.rng.stream("fake"))
        self.runtime.add_image(IMAGE)
        self.rotation = LogRotation(self.runtime, seams, max_bytes=100, max_files=3)
        self.log = directory / "0.log"

    async def start(self) -> None:
        sandbox = cri.SandboxConfig(name="p", namespace="d", uid="u", attempt=0, log_directory=str(self.directory))
        sandbox_id = await self.runtime.run_sandbox(sandbox)
        container = cri.ContainerConfig(name="c", attempt=0, image=IMAGE, log_path="0.log", command=("serve",))
        await self.runtime.start_container(await self.runtime.create_container(sandbox_id, container, sandbox))

    def files(self) -> list[str]:
        return sorted(one.name for one in self.directory.iterdir())


def on_node(story: Callable[[Node], Awaitable[T]], directory: Path) -> T:
    async def main() -> T:
        node = Node(directory)
        await node.start()
        return await story(node)

    loop = SimLoop()
    result = loop.run(main())
    assert loop.errors == []
    return result


def test_a_small_log_stays_as_it_is(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        node.log.write_bytes(b"x" * 99)
        await node.rotation.look()
        assert ("reopen_log", "") not in node.runtime.calls

    on_node(story, tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["0.log"]


def test_a_big_log_is_put_aside_and_the_runtime_opens_a_new_one(tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        node.log.write_bytes(b"x" * 100)
        await node.rotation.look()
        assert any(call == "reopen_log" for call, _ in node.runtime.calls)

    on_node(story, tmp_path)
    (aside,) = tmp_path.iterdir()
    assert aside.name.startswith("0.log.") and aside.read_bytes() == b"x" * 100


def test_all_but_the_newest_are_compressed_and_the_oldest_removed(tmp_path: Path) -> None:
    async def story(node: Node) -> list[str]:
        for number in range(4):
            node.log.write_bytes(b"%d" % number * 100)
            await node.rotation.look()
            await asyncio.sleep(10)
        return node.files()

    older, newest = on_node(story, tmp_path)
    assert older.endswith(".gz") and not newest.endswith(".gz")
    assert gzip.decompress((tmp_path / older).read_bytes()) == b"2" * 100
    assert (tmp_path / newest).read_bytes() == b"3" * 100


def test_a_log_that_the_runtime_does_not_open_again_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(_container_id: str) -> None:
        raise cri.CriError("UNKNOWN", "no")

    async def story(node: Node) -> None:
        monkeypatch.setattr(node.runtime, "reopen_log", refuse)
        node.log.write_bytes(b"x" * 200)
        await node.rotation.look()

    on_node(story, tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["0.log"]
