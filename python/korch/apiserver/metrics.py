"""What the server tells Prometheus, under kube-apiserver's names. One registry a server, since a process may run several."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from korch.apiserver.request_info import RequestInfo

_DURATION_BUCKETS_S = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60)
_REQUEST_LABELS = ("verb", "group", "version", "resource", "subresource", "scope", "component", "dry_run", "code")
_DURATION_LABELS = ("verb", "group", "version", "resource", "subresource", "scope", "component", "dry_run")
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Line:
    """The series of requests that differ in nothing that is told of them, found once: finding them costs more than counting."""

    __slots__ = ("_duration", "_inflight", "_labels", "_total", "_totals")

    def __init__(self, labels: tuple[str, ...], *, total: Counter, duration: Histogram, inflight: Gauge) -> None:
        self._labels = labels
        self._total = total
        self._totals: dict[int, Counter] = {}
        self._duration = duration.labels(*labels)
        self._inflight = inflight

    def begin(self) -> None:
        """A request has been taken in."""
        self._inflight.inc()

    def end(self, code: int, seconds: float) -> None:
        """Its answer has gone out."""
        self._inflight.dec()
        total = self._totals.get(code)
        if total is None:
            total = self._totals[code] = self._total.labels(*self._labels, str(code))
        total.inc()
        self._duration.observe(seconds)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        # Reads that the front door has answered by itself, see `native.Front.reads`, and how many of them are counted already.
        self.front_reads: Callable[[], Iterable[tuple[Any, ...]]] = tuple
        self._counted: dict[tuple[str, ...], int] = {}
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._total = Counter("apiserver_request_total", "Requests by verb, resource and code.", _REQUEST_LABELS, registry=registry)
        self._duration = Histogram(
            "apiserver_request_duration_seconds",
            "Response latency in seconds, watches left out.",
            _DURATION_LABELS,
            buckets=_DURATION_BUCKETS_S,
            registry=registry,
        )
        self._inflight = Gauge("apiserver_current_inflight_requests", "Requests being served.", ("request_kind",), registry=registry)
        self._watches = Gauge("apiserver_longrunning_requests", "Open watches and streams.", ("verb", "resource"), registry=registry)
        self._reading, self._changing = self._inflight.labels("readOnly"), self._inflight.labels("mutating")
        self._lines: dict[tuple[str, ...], Line] = {}

    def add(self, collector: Collector) -> None:
        """Show what a part of the server counts by itself."""
        self._registry.register(collector)

    def begin(self, info: RequestInfo) -> None:
        """A request has been taken in."""
        if _is_long(info):
            self._watches.labels(info.verb.upper(), info.resource).inc()
        else:
            self._gauge(info).inc()

    def withdraw(self, info: RequestInfo) -> None:
        """A request that was taken in is answered, and counted, by the front door."""
        if _is_long(info):
            self._watches.labels(info.verb.upper(), info.resource).dec()
        else:
            self._gauge(info).dec()

    def end(self, info: RequestInfo, *, code: int, seconds: float, is_dry_run: bool) -> None:
        """Its answer has gone out."""
        if _is_long(info):
            self._total.labels(*_labels(info, is_dry_run), str(code)).inc()
            self._watches.labels(info.verb.upper(), info.resource).dec()
            return
        self.line(info, is_dry_run=is_dry_run).end(code, seconds)

    def line(self, info: RequestInfo, *, is_dry_run: bool) -> Line:
        """Return what counts requests like `info`, which is none that stays open."""
        labels = _labels(info, is_dry_run)
        if (line := self._lines.get(labels)) is None:
            line = Line(labels, total=self._total, duration=self._duration, inflight=self._gauge(info))
            self._lines[labels] = line
        return line

    def _gauge(self, info: RequestInfo) -> Gauge:
        return self._reading if info.verb in ("get", "list") else self._changing

    def text(self) -> bytes:
        """Return the exposition text."""
        for *collection, requests in self.front_reads():
            line = tuple(collection)
            verb, group, version, resource, scope = line
            labels = (verb, group, version, resource, "", scope, "apiserver", "", "200")
            self._total.labels(*labels).inc(requests - self._counted.get(line, 0))
            self._counted[line] = requests
        return generate_latest(self._registry)


def _labels(info: RequestInfo, is_dry_run: bool) -> tuple[str, ...]:
    scope = "resource" if info.name else "namespace" if info.namespace else "cluster" if info.is_resource else ""
    verb, dry_run = info.verb.upper(), "All" if is_dry_run else ""
    return (verb, info.group, info.version, info.resource, info.subresource, scope, "apiserver", dry_run)


def _is_long(info: RequestInfo) -> bool:
    return info.verb == "watch" or info.subresource in ("log", "exec", "attach", "portforward", "proxy")
