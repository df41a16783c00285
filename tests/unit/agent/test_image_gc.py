"""Which images go when the disk is nearly full, and which stay."""

from __future__ import annotations

import asyncio

import pytest

from korch.runtime.context import simulated
from korch.testing.loop import SimLoop
from korch_agent.cri import protocol as cri
from korch_agent.cri.fake import FakeRuntime
from korch_agent.image_gc import MIN_AGE_S, Disk, ImageGc, Seen, removable

NOW = 10_000.0


def image(name: str, size: int = 10, *, pulled: bool = True) -> cri.Image:
    return cri.Image(id=name, tags=(f"reg/{name}:1",), digests=(f"reg/{name}@sha256:1",) if pulled else (), size=size)


@pytest.mark.parametrize(
    ("available", "expected"),
    [(16, []), (15, ["old"]), (11, ["old"]), (9, ["old", "mid"]), (0, ["old", "mid"])],
)
def test_least_recently_used_images_go_until_a_fifth_of_the_disk_is_free(available: int, expected: list[str]) -> None:
    images = [image("new"), image("mid"), image("old"), image("busy"), image("local", pulled=False), image("fresh")]
    seen = {
        "new": Seen(0, 900),
        "mid": Seen(0, 500),
        "old": Seen(0, 0),
        "busy": Seen(0, 1),
        "local": Seen(0, 0),
        "fresh": Seen(NOW - MIN_AGE_S + 1, 0),
    }
    chosen = removable(Disk(100, available), images, seen, in_use={"busy"}, now=NOW)
    assert [one.id for one in chosen] == expected


def test_an_image_is_removed_only_when_it_stayed_unused_between_two_looks() -> None:
    seams = simulated(1)
    runtime = FakeRuntime(seams.clock, seams.rng.stream("fake"))
    runtime.add_image("reg/app:1", present=False)

    async def story() -> tuple[int, int]:
        await runtime.pull_image("reg/app:1")
        gc = ImageGc(runtime, seams, disk=lambda _path: Disk(100, 1))
        await gc.look()
        first = len(await runtime.list_images())
        await asyncio.sleep(MIN_AGE_S)
        await gc.look()
        return first, len(await runtime.list_images())

    loop = SimLoop()
    assert loop.run(story()) == (1, 0)
    assert loop.errors == []
