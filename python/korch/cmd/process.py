"""Child processes under supervision: started, watched, restarted when they die, ended in order.

A child is restarted 0.2 s after it died, later if it keeps dying, but never more than 1.5 s later. Every child is the leader
of a session of its own, so that ending it ends what it started, and is recorded in a file with its start time, so that
`korch down` finds it even when the supervisor was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from korch.cmd.process_record import ProcessRecord, start_time
from korch.runtime.context import Runtime
from korch.runtime.log import get_logger

RESTART_DELAY_S_MIN = 0.2
RESTART_DELAY_S_MAX = 1.5
# A child that lived this long counts as healthy again.
_HEALTHY_AFTER_S = 30.0
_STOP_GRACE_S = 10.0

log = get_logger("supervisor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run. `netns` is the path of a network namespace to enter first, "" for the machine's own."""

    name: str
    arguments: Sequence[str]
    log_file: Path
    netns: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    def line(self) -> list[str]:
        enter = ["nsenter", f"--net={self.netns}", "--"] if self.netns else []
        return [*enter, *self.arguments]


class Child:
    """One supervised process. `state` is "stopped", "running" or "restarting"."""

    def __init__(self, command: Command, runtime: Runtime, record: ProcessRecord) -> None:
        self.command = command
        self.pid = 0
        self.restarts = 0
        self.state = "stopped"
        self._runtime = runtime
        self._record = record
        self._process: asyncio.subprocess.Process | None = None
        self._wanted = asyncio.Event()

    def start(self) -> None:
        """Want it running; `run` does the rest."""
        self._wanted.set()

    async def stop(self) -> None:
        """Want it stopped, and await its end: SIGTERM, then SIGKILL after 10 s."""
        self._wanted.clear()
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_GRACE_S)
        except TimeoutError:
            kill_session(process.pid)
            await process.wait()

    async def kill(self) -> None:
        """Want it stopped, at once and without a word to it: as when its machine loses power."""
        self._wanted.clear()
        process = self._process
        if process is not None and process.returncode is None:
            kill_session(process.pid)
            await process.wait()

    async def run(self) -> None:
        """Keep the process as wanted; returns only when cancelled, and then the process has ended."""
        delay_s = RESTART_DELAY_S_MIN
        try:
            while True:
                if not self._wanted.is_set():
                    self.state = "stopped"
                    await self._wanted.wait()
                started = self._runtime.clock.monotonic()
                code = await self._run_once()
                if not self._wanted.is_set():
                    continue
                if self._runtime.clock.monotonic() - started > _HEALTHY_AFTER_S:
                    delay_s = RESTART_DELAY_S_MIN
                self.state, self.restarts = "restarting", self.restarts + 1
                log.warning("component died, restarting", component_name=self.command.name, code=code, restarts=self.restarts)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RESTART_DELAY_S_MAX)
        finally:
            await asyncio.shield(self.stop())

    async def _run_once(self) -> int:
        command = self.command
        with command.log_file.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *command.line(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, **command.environment},
            )
        self.pid, self.state = self._process.pid, "running"
        self._record.add(command.name, self.pid)
        try:
            return await self._process.wait()
        finally:
            self._record.remove(command.name)
            self.pid = 0


def kill_session(leader: int, number: int = signal.SIGKILL) -> None:
    """Signal the process group that `leader` leads; one that is gone is no error."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)


async def end_processes(pids: Sequence[int], *, grace_s: float, is_alive: Callable[[int], bool] = lambda pid: start_time(pid) != 0) -> None:
    """End processes that are not our children: SIGTERM, and SIGKILL to their groups when `grace_s` is over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    waited_s = 0.0
    while any(is_alive(pid) for pid in pids) and waited_s < grace_s:
        await asyncio.sleep(0.05)
        waited_s += 0.05
    for pid in pids:
        if is_alive(pid):
            kill_session(pid)
