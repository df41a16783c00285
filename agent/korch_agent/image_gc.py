"""Freeing the disk of images that nothing uses, when it is nearly full.

Above 85 % the images that no container was made from are removed, those used least recently first, until 80 % is reached. An image
that came from an archive has no registry from which it would ever come back, so it stays. Mirrors kubelet's images/image_gc_manager.go.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping

import msgspec

from korch.runtime.context import Runtime as Seams
from korch.runtime.log import get_logger
from korch_agent.cri.protocol import CriError, Image, Runtime

HIGH = 0.85
LOW = 0.80
PERIOD_S = 300.0
# An image must have been known unused for this long: it may have been pulled for a container that is about to be made.
MIN_AGE_S = 120.0

log = get_logger("image-gc")


class Disk(msgspec.Struct, frozen=True):
    """The file system that images lie on, in bytes."""

    capacity: int
    available: int

    @property
    def used(self) -> float:
        """The part that is taken, between 0 and 1."""
        return 1 - self.available / self.capacity if self.capacity else 0.0


class Seen(msgspec.Struct, frozen=True):
    """When an image was first seen here, and when something last used it, in seconds since the epoch."""

    first: float
    used: float


def removable(disk: Disk, images: Iterable[Image], seen: Mapping[str, Seen], *, in_use: set[str], now: float) -> list[Image]:
    """Return the images to remove, in order, to come below LOW; none while the disk is below HIGH."""
    if disk.used < HIGH:
        return []
    to_free = round(disk.capacity * (1 - LOW)) - disk.available
    idle = [
        image
        for image in images
        if image.digests
        and image.id not in in_use
        and image.id in seen
        and now - max(seen[image.id].used, seen[image.id].first) >= MIN_AGE_S
    ]
    idle.sort(key=lambda image: (seen[image.id].used, seen[image.id].first, image.id))
    chosen: list[Image] = []
    for image in idle:
        if to_free <= 0:
            break
        chosen.append(image)
        to_free -= image.size
    return chosen


def disk_of(path: str) -> Disk:
    """Return the file system that holds `path`. Blocks. Raises OSError."""
    found = os.statvfs(path)
    return Disk(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


class ImageGc:
    """The images of one node. `disk` answers for the path of an image file system."""

    def __init__(self, runtime: Runtime, seams: Seams, *, disk: Callable[[str], Disk] = disk_of) -> None:
        self._runtime = runtime
        self._seams = seams
        self._disk = disk
        self._seen: dict[str, Seen] = {}

    async def run(self) -> None:
        """Look every 5 minutes until cancelled."""
        while True:
            try:
                await self.look()
            except (CriError, ConnectionError, TimeoutError, OSError) as error:
                log.debug("images not looked at", error=str(error))
            await asyncio.sleep(PERIOD_S)

    async def look(self) -> None:
        """Remove what must go. Raises CriError, ConnectionError, OSError."""
        runtime, now = self._runtime, self._seams.clock.now()
        images = await runtime.list_images()
        named = {name: image.id for image in images for name in (image.id, *image.tags, *image.digests)}
        containers = await runtime.list_containers()
        in_use = {named[name] for one in containers for name in (one.image, one.image_ref) if name in named}
        self._seen = {image.id: self._seen.get(image.id) or Seen(now, 0.0) for image in images}
        for image_id in in_use:
            self._seen[image_id] = msgspec.structs.replace(self._seen[image_id], used=now)
        for system in await runtime.image_filesystems():
            disk = self._disk(system.mountpoint)
            for image in removable(disk, images, self._seen, in_use=in_use, now=now):
                log.info("removing an image that nothing uses", image=(*image.tags, image.id)[0], size=image.size, disk=round(disk.used, 3))
                await runtime.remove_image(image.id)
