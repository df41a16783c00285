"""Deletes Events an hour after they were last written: they are for reading soon, and would fill the store.

Watches nothing: it lists Events page by page every minute, so that nobody keeps them in memory; writes their deletion.
Upstream has the store expire them (--event-ttl).
"""

from __future__ import annotations

import msgspec

from korch.api.errors import Expired, NotFound
from korch.api.gvk import EVENTS
from korch.client.controller import Controller, Requeue
from korch.client.informer import Informers
from korch.client.projections import Meta, decoder
from korch.client.protocol import Client, DeleteOptions, ListOptions
from korch.controllers.config import ControllerConfig
from korch.runtime.clock import parse_rfc3339
from korch.runtime.context import Runtime

SWEEP = "sweep"
PAGE_SIZE = 500


class _Series(msgspec.Struct, frozen=True):
    lastObservedTime: str = ""


class EventView(Meta, frozen=True):
    """The times of an Event."""

    lastTimestamp: str = ""
    eventTime: str = ""
    series: _Series = _Series()

    @property
    def last_written(self) -> float:
        """Return when it was last written, in seconds since the epoch; 0 when it bears no time."""
        times = (self.series.lastObservedTime, self.lastTimestamp, self.eventTime, self.metadata.creationTimestamp)
        return max((parse_rfc3339(one) for one in times if one), default=0.0)


_decode_event = decoder(EventView)


class EventTtlController(Controller):
    """Has one key, the sweep."""

    name = "event-ttl-controller"
    workers = 1

    def __init__(self, client: Client, informers: Informers, runtime: Runtime, config: ControllerConfig = ControllerConfig()) -> None:
        super().__init__(client, informers, runtime)
        self._config = config

    async def on_start(self) -> None:
        self.enqueue(SWEEP, self._config.event_ttl_period_s)

    async def reconcile(self, key: str) -> Requeue | None:
        token = ""
        while True:
            try:
                page = await self.client.list(EVENTS, ListOptions(limit=PAGE_SIZE, continue_token=token))
            except Expired:
                break
            oldest_kept = self.runtime.clock.now() - self._config.event_ttl_s
            for event in map(_decode_event, page.items):
                if event.last_written < oldest_kept:
                    await self._delete(event)
            token = page.continue_token
            if not token:
                break
        return Requeue(after_s=self._config.event_ttl_period_s)

    async def _delete(self, event: Meta) -> None:
        try:
            await self.client.delete(EVENTS, event.name, namespace=event.namespace, options=DeleteOptions(uid=event.uid))
        except NotFound:
            return
