"""Who is served next when more is asked than can be done at once: seats, shared among priority levels, taken by requests.

The server has so many seats. Every priority level owns some by its shares, keeps what it does not lend, and borrows what others have
free; a level that lacks seats of its own goes before any that borrows, so what is lent returns as fast as requests end. A request that
finds its seat free takes it without waiting, which is nearly always, and costs two look-ups. Others wait in their level's
queues, for a quarter of the request timeout at most, or are refused with 429. Upstream adjusts what is borrowed every ten
seconds; here it is weighed with every request. Mirrors apiserver's pkg/util/flowcontrol (apf_controller.go, apf_filter.go).
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from korch.api.errors import TooManyRequests
from korch.apiserver.flow_objects import flow_schemas, priority_levels
from korch.apiserver.flowcontrol.classify import Schema
from korch.apiserver.flowcontrol.level import Level, Limits, Waiting
from korch.apiserver.flowcontrol.width import Count, seats
from korch.apiserver.identity import User
from korch.apiserver.request_info import RequestInfo
from korch.runtime.clock import Clock

SEATS_DEFAULT = 600
_REMEMBERED_MAX = 10_000
_RETRY_AFTER_S = 1
_MANDATORY = ("exempt", "catch-all")
_SCHEMA_HEADER, _LEVEL_HEADER = b"x-kubernetes-pf-flowschema-uid", b"x-kubernetes-pf-prioritylevel-uid"
Headers = tuple[tuple[bytes, bytes], ...]
Objects = Callable[[], Sequence[dict[str, Any]]]


class Refused(TooManyRequests):
    """There is no seat and no place to wait. `headers` of the flow come with it."""

    def __init__(self, marks: Headers) -> None:
        super().__init__("Too many requests, please try again later.", _RETRY_AFTER_S)
        self.marks = marks


@dataclass(frozen=True, slots=True)
class _Way:
    """Where one kind of request of one user goes."""

    schema: Schema
    level: Level
    headers: Headers


class Seat:
    """What a request that is being served holds. `release` it once its work is done; more often does no harm."""

    __slots__ = ("_control", "_is_held", "_level", "_schema", "_since", "_waiting", "headers", "width")

    def __init__(self, control: FlowControl, way: _Way, width: int, since: float, waiting: Waiting | None = None) -> None:
        self.headers = way.headers
        self.width = width
        self._control = control
        self._level = way.level
        self._schema = way.schema.name
        self._since = since
        self._waiting = waiting
        self._is_held = True

    def release(self) -> None:
        """Give the seats back."""
        if self._is_held:
            self._is_held = False
            self._control.leave(self._level, self.width, self._waiting, self._since, self._schema)


class FlowControl:
    """The seats of one server. `schemas` and `levels` return the objects that are in force now, the same list while nothing changes."""

    def __init__(
        self, schemas: Objects, levels: Objects, clock: Clock, count: Count, *, total_seats: int = SEATS_DEFAULT, wait_s_max: float = 15.0
    ) -> None:
        self._schema_objects = schemas
        self._level_objects = levels
        self._clock = clock
        self._count = count
        self._total = total_seats
        self._wait_s_max = wait_s_max
        self._seen: tuple[Any, Any] = (None, None)
        self._schemas: list[Schema] = []
        self._levels: dict[str, Level] = {}
        # Levels that are no more, until what they had begun is done.
        self._retired: list[Level] = []
        self._ways: dict[Any, _Way] = {}
        # Seats that are in use or promised.
        self._reserved = 0
        self.dispatched: Counter[tuple[str, str]] = Counter()
        self.rejected: Counter[tuple[str, str, str]] = Counter()
        self.waited_s: defaultdict[tuple[str, str], float] = defaultdict(float)
        self.executing: Counter[tuple[str, str]] = Counter()
        self.in_queue: Counter[tuple[str, str]] = Counter()

    @property
    def levels(self) -> Sequence[Level]:
        """The priority levels in force."""
        self._refresh()
        return list(self._levels.values())

    async def enter(self, user: User, info: RequestInfo, query: Mapping[str, str]) -> Seat:
        """Return a seat for a request, which may have to wait for it. Raises Refused."""
        if (seat := self.take(user, info, query)) is not None:
            return seat
        way = self._way(user, info)
        return await self._wait(way, user, info, self._width(way.level, info, query))

    def take(self, user: User, info: RequestInfo, query: Mapping[str, str]) -> Seat | None:
        """Return a seat for a request that need not wait for it, None for one that has to."""
        self._refresh()
        way = self._way(user, info)
        level = way.level
        if level.limits.is_exempt:
            return self._seat(way, 1)
        width = self._width(level, info, query)
        return self._seat(way, width) if not level.waiting_count and self._may_run(level, width) else None

    def _width(self, level: Level, info: RequestInfo, query: Mapping[str, str]) -> int:
        return min(seats(info, query, self._count), max(1, level.most))

    def leave(self, level: Level, width: int, waiting: Waiting | None, since: float, schema: str) -> None:
        """Take back the seats of a request (see `Seat.release`) and serve who waits for them."""
        self.executing[level.limits.name, schema] -= 1
        if waiting is not None:
            level.charge(waiting, self._clock.monotonic() - since)
        level.executing -= 1
        self._use(level, -width)
        self._serve()

    # -- seats

    def _seat(self, way: _Way, width: int, waiting: Waiting | None = None) -> Seat:
        key = (way.level.limits.name, way.schema.name)
        if waiting is None:
            # One that has waited was counted when its turn came.
            way.level.executing += 1
            self._use(way.level, width)
        self.dispatched[key] += 1
        self.executing[key] += 1
        return Seat(self, way, width, self._clock.monotonic(), waiting)

    def _use(self, level: Level, width: int) -> None:
        before = level.seats_in_use
        level.seats_in_use = before + width
        if not level.limits.is_exempt:
            self._reserved += max(level.seats_in_use, level.guaranteed) - max(before, level.guaranteed)

    def _may_run(self, level: Level, width: int) -> bool:
        wanted = level.seats_in_use + width
        if wanted <= level.guaranteed or not level.seats_in_use:
            return True
        if wanted > level.most:
            return False
        if wanted > level.nominal and any(
            one.waiting_count and one.seats_in_use < one.nominal for one in self._levels.values() if one is not level
        ):
            return False
        return self._reserved + max(wanted, level.guaranteed) - max(level.seats_in_use, level.guaranteed) <= self._total

    async def _wait(self, way: _Way, user: User, info: RequestInfo, width: int) -> Seat:
        level, key = way.level, (way.level.limits.name, way.schema.name)
        waiting = level.enqueue(way.schema.flow(user, info), way.schema.name, width)
        if waiting is None:
            self.rejected[*key, "queue-full" if level.limits.queues else "concurrency-limit"] += 1
            raise Refused(way.headers)
        began = self._clock.monotonic()
        self.in_queue[key] += 1
        try:
            async with asyncio.timeout(self._wait_s_max):
                await waiting.granted
        except TimeoutError:
            if not self._was_granted(waiting, level):
                self.rejected[*key, "time-out"] += 1
                raise Refused(way.headers) from None
        except asyncio.CancelledError:
            if self._was_granted(waiting, level):
                self._seat(way, width, waiting).release()
            else:
                self.rejected[*key, "cancelled"] += 1
            raise
        finally:
            self.in_queue[key] -= 1
            self.waited_s[key] += self._clock.monotonic() - began
        return self._seat(way, width, waiting)

    def _was_granted(self, waiting: Waiting, level: Level) -> bool:
        """Whether its turn came in the same moment as its end; otherwise it is taken out of its queue."""
        if waiting.granted.done() and not waiting.granted.cancelled():
            return True
        level.give_up(waiting)
        return False

    def _serve(self) -> None:
        """Let those who wait have what is free: levels that lack seats of their own first, then those that borrow."""
        while True:
            waiting = [one for one in (*self._levels.values(), *self._retired) if one.waiting_count]
            if not waiting:
                return
            waiting.sort(key=lambda one: one.seats_in_use / max(1, one.nominal))
            for level in waiting:
                turn = level.next()
                if turn is not None and self._may_run(level, turn.seats):
                    level.take(turn)
                    level.executing += 1
                    self._use(level, turn.seats)
                    turn.granted.set_result(None)
                    break
            else:
                return

    # -- what is in force

    def _way(self, user: User, info: RequestInfo) -> _Way:
        place = (info.group, info.resource, info.subresource, info.namespace) if info.is_resource else info.path
        key = (user.name, tuple(user.groups), info.verb, place)
        found = self._ways.get(key)
        if found is None:
            if len(self._ways) >= _REMEMBERED_MAX:
                self._ways.clear()
            schema = next((one for one in self._schemas if one.is_about(user, info)), self._schemas[-1])
            level = self._levels[schema.level]
            headers = ((_SCHEMA_HEADER, schema.uid.encode()), (_LEVEL_HEADER, level.limits.uid.encode()))
            found = self._ways[key] = _Way(schema, level, headers)
        return found

    def _refresh(self) -> None:
        schemas, levels = self._schema_objects(), self._level_objects()
        if schemas is self._seen[0] and levels is self._seen[1]:
            return
        self._seen = (schemas, levels)
        self._ways.clear()
        self._set_levels([Limits.of(one) for one in (*levels, *_missing(priority_levels(), levels))])
        known = [Schema.of(one) for one in (*schemas, *_missing(flow_schemas(), schemas))]
        # A schema without its level holds nothing; the catch-all comes last by its precedence.
        self._schemas = sorted((one for one in known if one.level in self._levels), key=lambda one: (one.precedence, one.name))

    def _set_levels(self, limits: Sequence[Limits]) -> None:
        before, self._levels = self._levels, {}
        for one in limits:
            kept = before.pop(one.name, None)
            if kept is not None and kept.limits != one:
                before[one.name], kept = kept, None
            self._levels[one.name] = kept or Level(one)
        self._retired = [one for one in (*self._retired, *before.values()) if not one.is_idle]
        shares = sum(one.limits.shares for one in self._levels.values()) or 1
        for level in self._levels.values():
            said = level.limits
            level.nominal = -(-self._total * said.shares // shares)
            level.guaranteed = level.nominal - round(level.nominal * said.lendable_percent / 100)
            borrowed = self._total if said.borrowing_percent is None else round(level.nominal * said.borrowing_percent / 100)
            level.most = min(self._total, level.nominal + borrowed)
        self._reserved = sum(
            max(one.seats_in_use, one.guaranteed) for one in (*self._levels.values(), *self._retired) if not one.limits.is_exempt
        )
        self._serve()


def _missing(mandatory: Sequence[dict[str, Any]], present: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mandatory objects that are not there (any more): without them nothing would be defined for some requests."""
    names = {one["metadata"]["name"] for one in present}
    return [one for one in mandatory if one["metadata"]["name"] in _MANDATORY and one["metadata"]["name"] not in names]
