"""What flow control tells Prometheus, under kube-apiserver's names; read from its counters when somebody asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from korch.apiserver.flowcontrol.flow_control import FlowControl

_PREFIX = "apiserver_flowcontrol_"
_LABELS = ("priority_level", "flow_schema")


class FlowMetrics(Collector):
    """A collector for a registry."""

    def __init__(self, flow: FlowControl) -> None:
        self._flow = flow

    def describe(self) -> Iterable[Metric]:
        """Return nothing: names are found when values are."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield all values."""
        flow = self._flow
        dispatched = CounterMetricFamily(f"{_PREFIX}dispatched_requests", "Requests that were served.", labels=_LABELS)
        waited = CounterMetricFamily(f"{_PREFIX}request_wait_seconds", "Seconds that requests have waited for a seat.", labels=_LABELS)
        rejected = CounterMetricFamily(f"{_PREFIX}rejected_requests", "Requests that were refused.", labels=(*_LABELS, "reason"))
        executing = GaugeMetricFamily(f"{_PREFIX}current_executing_requests", "Requests being served.", labels=_LABELS)
        in_queue = GaugeMetricFamily(f"{_PREFIX}current_inqueue_requests", "Requests that wait.", labels=_LABELS)
        for family, counts in (
            (dispatched, flow.dispatched),
            (waited, flow.waited_s),
            (rejected, flow.rejected),
            (executing, flow.executing),
            (in_queue, flow.in_queue),
        ):
            for labels, value in counts.items():
                family.add_metric(labels, value)
            yield family
        seats = GaugeMetricFamily(f"{_PREFIX}current_executing_seats", "Seats in use.", labels=_LABELS[:1])
        nominal = GaugeMetricFamily(f"{_PREFIX}nominal_limit_seats", "Seats that a level owns.", labels=_LABELS[:1])
        lower = GaugeMetricFamily(f"{_PREFIX}lower_limit_seats", "Seats that a level does not lend.", labels=_LABELS[:1])
        upper = GaugeMetricFamily(f"{_PREFIX}upper_limit_seats", "Seats that a level may have at most.", labels=_LABELS[:1])
        for level in flow.levels:
            name = (level.limits.name,)
            for family, value in ((seats, level.seats_in_use), (nominal, level.nominal), (lower, level.guaranteed), (upper, level.most)):
                family.add_metric(name, value)
        yield from (seats, nominal, lower, upper)
