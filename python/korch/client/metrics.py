"""Work queues and informers as Prometheus metrics, under upstream's names, read when they are scraped.

Register one collector per process: `registry.register(ControllerMetrics(controllers))`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from korch.client.controller import Controller


class ControllerMetrics(Collector):
    """Metrics of these controllers, labelled by the controller's name."""

    def __init__(self, controllers: Sequence[Controller]) -> None:
        self._controllers = controllers

    def collect(self) -> Iterable[Metric]:
        """Yield the metric families with the values of this moment."""
        depth = GaugeMetricFamily("workqueue_depth", "Current depth of workqueue", labels=["name"])
        adds = CounterMetricFamily("workqueue_adds", "Total number of adds handled by workqueue", labels=["name"])
        retries = CounterMetricFamily("workqueue_retries", "Total number of retries handled by workqueue", labels=["name"])
        waited = SummaryMetricFamily(
            "workqueue_queue_duration_seconds", "How long in seconds an item stays in workqueue before being requested", labels=["name"]
        )
        worked = SummaryMetricFamily(
            "workqueue_work_duration_seconds", "How long in seconds processing an item from workqueue takes", labels=["name"]
        )
        synced = GaugeMetricFamily(
            "korch_controller_synced", "Whether the controller's caches are filled and its workers run", labels=["name"]
        )
        for one in self._controllers:
            stats, label = one.queue.stats, [one.name]
            depth.add_metric(label, len(one.queue))
            adds.add_metric(label, stats.adds)
            retries.add_metric(label, stats.retries)
            waited.add_metric(label, stats.handled, stats.queue_seconds)
            worked.add_metric(label, stats.handled, stats.work_seconds)
            synced.add_metric(label, float(one.is_synced))
        return [depth, adds, retries, waited, worked, synced]
