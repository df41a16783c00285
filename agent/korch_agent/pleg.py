"""The pod lifecycle event generator: tells workers that their containers or sandboxes have changed.

Every second all sandboxes and containers are listed (one millisecond for a hundred pods) and compared with the time before; the
runtime's own event stream, where there is one, makes that happen at once instead. What a worker does itself it sees itself: it
observes its pod anew after each round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from korch.runtime.context import Runtime as Seams
from korch.runtime.log import get_logger
from korch_agent.cri.protocol import CriError, Runtime
from korch_agent.pods.observed import POD_UID

RELIST_S = 1.0
# Events come in bursts (exit, delete); one relist answers all that came within this time.
SETTLE_S = 0.01
# Without a relist for so long the node is not ready.
UNHEALTHY_S = 180.0
RECONNECT_S = 1.0

log = get_logger("pleg")

View = dict[str, frozenset[tuple[str, str]]]


class Pleg:
    """Watches the runtime. `changed(uid)` is called for each pod that changed, `listed(uids)` after each relist."""

    def __init__(
        self, runtime: Runtime, seams: Seams, *, changed: Callable[[str], None], listed: Callable[[set[str]], None] = lambda _: None
    ) -> None:
        self._runtime = runtime
        self._seams = seams
        self._changed = changed
        self._listed = listed
        self._last: View = {}
        self._poke = asyncio.Event()
        self._relisted_at = seams.clock.monotonic()
        self.problem = ""

    @property
    def is_healthy(self) -> bool:
        """Return whether the runtime was listed within the last three minutes."""
        return self._seams.clock.monotonic() - self._relisted_at < UNHEALTHY_S

    async def run(self) -> None:
        """Relist until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            while True:
                await self.relist()
                try:
                    async with asyncio.timeout(RELIST_S):
                        await self._poke.wait()
                    await asyncio.sleep(SETTLE_S)
                except TimeoutError:
                    pass
                self._poke.clear()

    async def relist(self) -> None:
        """List once and tell who changed; a runtime that does not answer is noted in `problem`."""
        try:
            view = await self._view()
        except (CriError, ConnectionError, TimeoutError) as error:
            self.problem = str(error)
            return
        self.problem = ""
        self._relisted_at = self._seams.clock.monotonic()
        last, self._last = self._last, view
        for uid in last.keys() | view.keys():
            if last.get(uid) != view.get(uid):
                self._changed(uid)
        self._listed(set(view))

    async def _view(self) -> View:
        found: dict[str, set[tuple[str, str]]] = {}
        for sandbox in await self._runtime.list_sandboxes():
            found.setdefault(sandbox.uid, set()).add((sandbox.id, "ready" if sandbox.is_ready else "not ready"))
        for container in await self._runtime.list_containers():
            found.setdefault(container.labels.get(POD_UID, ""), set()).add((container.id, container.state))
        return {uid: frozenset(states) for uid, states in found.items() if uid}

    async def _listen(self) -> None:
        while True:
            try:
                async for _ in self._runtime.events():
                    self._poke.set()
            except (CriError, ConnectionError) as error:
                log.debug("no runtime events; relisting alone", error=str(error))
            await asyncio.sleep(RECONNECT_S)
