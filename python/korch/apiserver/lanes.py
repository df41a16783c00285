"""Writes that go the way of one that was allowed a moment ago: whose they are and whether they may is known, how they are done is planned.

Clients send the same line and headers again and again; what changes is the object's name at the end of the path, and the body. So a write
that went well leaves a lane, and the next ones with the same line and headers spend nothing on parsing, authentication, authorization
and negotiation: they take their turn in flow control, and are written, counted and refused as any other. What may be wrong with the object
itself is found behind the lane, where it always is; whatever could be wrong before (an unknown path, a missing permission, bad options)
never leaves a lane, so there is one place that knows how to refuse it.

Lanes end as the grants of reads do: with every change of roles, bindings, accounts and kinds before its writer is answered, and after
some seconds for the sake of tokens. A lane is for any name, which is sound because roles only add up; nodes, which are allowed by name,
get none.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from korch.api.errors import Timeout
from korch.apiserver.deadlines import Deadlines
from korch.apiserver.exchange import GZIP_BYTES_MIN, GZIP_LEVEL, Disconnected, Exchange, read, warning
from korch.apiserver.flowcontrol.flow_control import Refused, Seat
from korch.apiserver.grants import GUARDED, TOKEN_TTL_S, is_node
from korch.apiserver.guards import Guards, late
from korch.apiserver.identity import User
from korch.apiserver.metrics import Line, Metrics
from korch.apiserver.negotiation import PLAIN
from korch.apiserver.pipeline import Outcome, Target
from korch.apiserver.refusals import busy, refusal
from korch.apiserver.request_info import RequestInfo
from korch.apiserver.resource_endpoint import Plan, ResourceEndpoint
from korch.resources.resource import Catalogue, Resource
from korch.runtime import tasks
from korch.runtime.context import Runtime
from korch.storage import Storage, Watch

_LANES_MAX = 1024
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_PLAIN_HEADERS = ((b"content-type", b"application/json"), (b"cache-control", b"no-cache, private"))
Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """What is known of writes with one line and one set of headers. `info` is that of the request which left the lane."""

    epoch: int
    info: RequestInfo
    headers: Mapping[str, str]
    query: Mapping[str, str]
    user: User
    resource: Resource
    plan: Plan
    line: Line
    budget_s: float
    until: float
    takes_gzip: bool

    def target(self, name: str) -> Target:
        """Return what a request for `name` is about."""
        namespace = self.info.namespace if self.resource.namespaced else ""
        return Target(resource=self.resource, namespace=namespace, name=name, user=self.user)


class Lanes:
    """The lanes of one server."""

    def __init__(self, *, endpoint: ResourceEndpoint, guards: Guards, metrics: Metrics, runtime: Runtime, epoch: Epoch) -> None:
        self._endpoint = endpoint
        self._guards = guards
        self._metrics = metrics
        self._runtime = runtime
        self._epoch = epoch
        self._lanes: dict[Key, Lane] = {}
        self.deadlines = Deadlines()

    def find(self, scope: Mapping[str, Any]) -> tuple[Lane, str] | None:
        """Return the lane of a request, and the name of its object ("" for one that is to be created)."""
        if not self._lanes or scope["type"] != "http" or scope["method"] not in _VERBS:
            return None
        key, name = _key(scope)
        lane = self._lanes.get(key)
        if lane is None:
            return None
        if lane.epoch != self._epoch.now() or lane.until < self._runtime.clock.monotonic():
            del self._lanes[key]
            return None
        return lane, name

    def epoch(self) -> int:
        """Return the number of the time in which a request begins, for `learn`."""
        return self._epoch.now()

    def learn(self, exchange: Exchange, epoch: int) -> None:
        """Remember the way of a write that went well, if what holds for it holds for those that look alike.

        Nothing is learned when another epoch than that in which it was let in has begun.
        """
        info, resource = exchange.info, self._endpoint.plain_resource(exchange.info)
        method = exchange.scope["method"]
        if resource is None or _VERBS.get(method) != info.verb or not self._is_general(exchange, resource):
            return
        plan = self._endpoint.plan(info.verb, resource, exchange.headers, exchange.query)
        if plan.form != PLAIN or self._epoch.now() != epoch:
            return
        if len(self._lanes) >= _LANES_MAX:
            self._lanes.clear()
        self._lanes[_key(exchange.scope)[0]] = Lane(
            epoch=epoch,
            info=info,
            headers=exchange.headers,
            query=exchange.query,
            user=exchange.user,
            resource=resource,
            plan=plan,
            line=self._metrics.line(info, is_dry_run="dryRun" in exchange.query),
            budget_s=self._guards.budget_s(info, exchange.query),
            until=self._runtime.clock.monotonic() + TOKEN_TTL_S,
            takes_gzip="gzip" in exchange.headers.get("accept-encoding", ""),
        )

    def _is_general(self, exchange: Exchange, resource: Resource) -> bool:
        """Whether the name makes no difference, and nothing is to be told of such requests."""
        info, user, auditor = exchange.info, exchange.user, self._guards.auditor
        if is_node(user) or any(name.startswith("impersonate-") for name in exchange.headers):
            return False
        if resource.plural == "namespaces" and not resource.group and info.name:
            # Each is its own namespace.
            return False
        if auditor is not None and auditor.may_tell(user, info):
            return False
        return self._guards.authorizer.authorize(user, replace(info, name="")).is_allowed

    async def serve(self, lane: Lane, name: str, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request. Raises what is no refusal: a mistake of ours."""
        clock = self._runtime.clock
        started = clock.monotonic()
        passage = _Passage(lane, name, scope, send, lane.headers.get("audit-id") or self._runtime.rng.uid(), self._runtime)
        lane.line.begin()
        deadline = self.deadlines.set(lane.budget_s, passage.be_late) if lane.budget_s else None
        try:
            await passage.take_seat(self._guards)
            body = await read(receive)
            outcome = await self._endpoint.perform(lane.plan, lane.target(name), body, lambda: self._check_creation(passage))
            await passage.answer(outcome)
        except Disconnected:
            passage.code = passage.code or 499
        except Exception as error:
            await passage.refuse(error)
        finally:
            if deadline is not None:
                deadline.met()
            passage.leave()
            lane.line.end(passage.code or 500, clock.monotonic() - started)

    def _check_creation(self, passage: _Passage) -> None:
        self._endpoint.check_creation(passage.lane.user, passage.info)


class _Passage:
    """One request on a lane."""

    __slots__ = ("_audit_id", "_is_late", "_marks", "_runtime", "_scope", "_seat", "_send", "code", "lane", "name")

    def __init__(self, lane: Lane, name: str, scope: Any, send: Any, audit_id: str, runtime: Runtime) -> None:
        self.lane = lane
        self.name = name
        self.code = 0
        self._scope = scope
        self._send = send
        self._audit_id = audit_id
        self._runtime = runtime
        self._marks: Any = ()
        self._seat: Seat | None = None
        self._is_late = False

    @property
    def info(self) -> RequestInfo:
        return replace(self.lane.info, name=self.name, path=self._scope["path"])

    async def take_seat(self, guards: Guards) -> None:
        """Wait for a seat. Raises Refused."""
        if guards.flow is not None:
            lane = self.lane
            seat = guards.flow.take(lane.user, lane.info, lane.query)
            self._seat = seat or await guards.flow.enter(lane.user, lane.info, lane.query)
            self._marks = self._seat.headers

    def leave(self) -> None:
        """Give the seat back."""
        if self._seat is not None:
            self._seat.release()

    async def answer(self, outcome: Outcome) -> None:
        """Send what was written."""
        if self._is_late:
            return
        body, headers = outcome.body, [*_PLAIN_HEADERS]
        if len(body) >= GZIP_BYTES_MIN and self.lane.takes_gzip:
            body = await self._runtime.offload.run(gzip.compress, body, GZIP_LEVEL)
            headers += [(b"content-encoding", b"gzip"), (b"vary", b"Accept-Encoding")]
        headers.append((b"content-length", b"%d" % len(body)))
        headers += [warning(text) for text in outcome.warnings]
        headers += [(b"audit-id", self._audit_id.encode()), *self._marks]
        self.code = outcome.code
        await self._send({"type": "http.response.start", "status": outcome.code, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def refuse(self, error: Exception) -> None:
        """Send what went wrong, in the words of an ordinary request."""
        if self.code:
            raise error
        if isinstance(error, Refused):
            self._marks = error.marks
            await busy(self._exchange(), error)
        elif not self._is_late:
            await self._exchange().refuse(refusal(error, self.lane.info.verb, self._scope["path"]))

    def be_late(self) -> None:
        """The time is over: the work goes on to its own end, but nobody hears of it any more."""
        if not self.code:
            self._is_late = True
            tasks.spawn(self._exchange().refuse(Timeout(f"Timeout: {late(self.lane.info)}")), name="late answer")

    def _exchange(self) -> Exchange:
        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.code = message["status"]
                message["headers"] = [*message["headers"], (b"audit-id", self._audit_id.encode()), *self._marks]
            await self._send(message)

        lane = self.lane
        return Exchange(
            self._scope,
            None,
            send,
            headers=lane.headers,
            query=lane.query,
            info=self.info,
            user=lane.user,
            offload=self._runtime.offload,
            audit_id=self._audit_id,
        )


class Epoch:
    """Says whether anything has changed that permissions and kinds rest on; see `GUARDED`. One for a server."""

    def __init__(self, storage: Storage, catalogue: Catalogue) -> None:
        self._storage = storage
        self._catalogue = catalogue
        self._watches: list[Watch] = []
        self._generation = -1
        self._number = 0

    def now(self) -> int:
        """Return another number than last time when a guarded object was published since, or a kind has come or gone."""
        if self._generation != self._catalogue.generation or any([one.has_news for one in self._watches]):
            self._begin()
        return self._number

    def _begin(self) -> None:
        self._generation = self._catalogue.generation
        self._number += 1
        for watch in self._watches:
            watch.close()
        revision = self._storage.revision()
        self._watches = [self._storage.watch(prefix, revision) for prefix in GUARDED]
        for watch in self._watches:
            # A new watch may have news until somebody has looked.
            watch.take()


def _key(scope: Mapping[str, Any]) -> tuple[Key, str]:
    """Return what the lane of a request is found by, and the name at the end of its path where there is one."""
    method, path, name = scope["method"], scope["path"], ""
    if method != "POST":
        path, _, name = path.rpartition("/")
    headers = tuple([one for one in scope["headers"] if one[0] != b"content-length"])
    return (method, path, not name and method != "POST", scope["query_string"], headers), name
