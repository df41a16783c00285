"""What became of each pod: made, tried, bound, gone, and when. Both stages write here, waits and collectors read.

Times are seconds on the stage's monotonic clock. Use from one event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class PodRecord:
    """One pod. `bound_at` is 0 while it has no node."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    made_at: float
    bound_at: float = 0.0
    is_attempted: bool = False

    def is_selected(self, namespaces: Collection[str], labels: Mapping[str, str]) -> bool:
        """Return whether it is in one of the namespaces (none: any) and has the labels."""
        if namespaces and self.namespace not in namespaces:
            return False
        return all(self.labels.get(key) == value for key, value in labels.items())


class PodLedger:
    """All pods that exist, by `namespace/name`."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.pods: dict[str, PodRecord] = {}
        # How many pods of each namespace have ever been bound.
        self.bound: Counter[str] = Counter()
        self._monotonic = monotonic
        self._submitted: dict[str, float] = {}
        self._watchers: list[Callable[[PodRecord], None]] = []
        self._news = asyncio.Event()

    def submitted(self, key: str) -> None:
        """Note that a pod of this key is about to be made: its life is counted from here."""
        self._submitted[key] = self._monotonic()

    def made(self, namespace: str, name: str, labels: Mapping[str, str]) -> PodRecord:
        """Take in a new pod."""
        key = f"{namespace}/{name}"
        record = PodRecord(namespace, name, labels, self._submitted.pop(key, 0.0) or self._monotonic())
        self.pods[key] = record
        self._news.set()
        return record

    def attempted(self, key: str) -> None:
        """Note that the scheduler has tried a pod and found no node."""
        record = self.pods.get(key)
        if record is not None and not record.is_attempted:
            record.is_attempted = True
            self._news.set()

    def placed(self, key: str) -> None:
        """Note that a pod has a node."""
        record = self.pods.get(key)
        if record is None or record.bound_at:
            return
        record.bound_at = self._monotonic()
        self.bound[record.namespace] += 1
        for watcher in self._watchers:
            watcher(record)
        self._news.set()

    def gone(self, key: str) -> None:
        """Forget a deleted pod."""
        self.pods.pop(key, None)
        self._news.set()

    def watch(self, watcher: Callable[[PodRecord], None]) -> Callable[[], None]:
        """Call `watcher` with each pod as it is bound; return what ends that."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def selected(self, namespaces: Collection[str], labels: Mapping[str, str] = {}) -> list[PodRecord]:
        """Return the pods of these namespaces (none: all) with these labels."""
        return [one for one in self.pods.values() if one.is_selected(namespaces, labels)]

    async def until(self, holds: Callable[[], bool], *, within_s: float, pause_s: float = 0.02) -> bool:
        """Await the moment when `holds()`, asked at most each `pause_s` and only after news; False when it takes too long."""
        loop = asyncio.get_running_loop()
        end = loop.time() + within_s
        while not holds():
            if loop.time() >= end:
                return False
            self._news.clear()
            try:
                async with asyncio.timeout_at(end):
                    await self._news.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(pause_s)
        return True
