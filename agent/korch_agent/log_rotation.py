"""Keeping container logs small: a log that has grown too big is put aside, and the runtime goes on in a new file.

What was put aside is called `<file>.<time>`; all but the newest of these are compressed, and the oldest go when there are too many.
`kubectl logs` shows the current file. Mirrors kubelet's pkg/kubelet/logs.
"""

from __future__ import annotations

import asyncio
import gzip
import shutil
from datetime import UTC, datetime
from pathlib import Path

from korch.runtime.context import Runtime as Seams
from korch.runtime.log import get_logger
from korch_agent.cri.protocol import CriError, CriNotFound, Runtime

MAX_BYTES = 10 * 1024 * 1024
MAX_FILES = 5
PERIOD_S = 10.0
_COMPRESSED = ".gz"

log = get_logger("log-rotation")


class LogRotation:
    """The logs of one node's running containers. A log is rotated beyond `max_bytes`; `max_files` counts the current one too."""

    def __init__(self, runtime: Runtime, seams: Seams, *, max_bytes: int = MAX_BYTES, max_files: int = MAX_FILES) -> None:
        self._runtime = runtime
        self._seams = seams
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._paths: dict[str, str] = {}

    async def run(self) -> None:
        """Look every 10 s until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_S)
            try:
                await self.look()
            except (CriError, ConnectionError, TimeoutError) as error:
                log.debug("logs not looked at", error=str(error))

    async def look(self) -> None:
        """Rotate what has grown too big. Raises CriError, ConnectionError."""
        running = [one for one in await self._runtime.list_containers() if one.state == "running"]
        self._paths = {one.id: self._paths[one.id] for one in running if one.id in self._paths}
        for one in running:
            if one.id not in self._paths:
                try:
                    self._paths[one.id] = (await self._runtime.container_status(one.id)).log_path
                except CriNotFound:
                    continue
            if self._paths[one.id]:
                await self._rotate(one.id, Path(self._paths[one.id]))

    async def _rotate(self, container_id: str, file: Path) -> None:
        offload = self._seams.offload
        aside = file.with_name(f"{file.name}.{datetime.fromtimestamp(self._seams.clock.now(), UTC):%Y%m%d-%H%M%S}")
        try:
            if not await offload.run(_put_aside, file, aside, self._max_bytes):
                return
            try:
                await self._runtime.reopen_log(container_id)
            except (CriError, ConnectionError) as error:
                # It still writes to the old file, which gets its name back, so that nothing is written where nobody reads.
                await offload.run(aside.rename, file)
                log.warning("log not rotated; trying again", file=str(file), error=str(error))
                return
            await offload.run(_tidy, file, self._max_files)
        except OSError as error:
            log.warning("log not rotated; trying again", file=str(file), error=str(error))


def _put_aside(file: Path, aside: Path, max_bytes: int) -> bool:
    """Rename a log that is too big; return whether it was."""
    try:
        if file.stat().st_size < max_bytes or aside.exists():
            return False
    except FileNotFoundError:
        return False
    file.rename(aside)
    return True


def _tidy(file: Path, max_files: int) -> None:
    """Compress what was put aside before the last time, and remove what is too much."""
    kept = sorted(file.parent.glob(f"{file.name}.*"), key=lambda one: one.name.removesuffix(_COMPRESSED))
    for one in kept[: max(0, len(kept) - (max_files - 1))]:
        one.unlink()
    for one in kept[max(0, len(kept) - (max_files - 1)) : -1]:
        if one.suffix == _COMPRESSED:
            continue
        draft = one.with_name(f".{one.name}.draft")
        with one.open("rb") as source, gzip.open(draft, "wb", compresslevel=1) as out:
            shutil.copyfileobj(source, out)
        draft.rename(one.with_name(one.name + _COMPRESSED))
        one.unlink()
