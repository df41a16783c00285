"""A run as one HTML page: thresholds and percentiles as tables, throughput, CPU and memory over time as lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from korch.lab.bench.collector import Measurement
from korch.lab.bench.result import Outcome
from korch.lab.report import Cell, Page, Section, Series

_BUCKETS = ("Average", "Perc50", "Perc90", "Perc95", "Perc99")


def to_html(outcomes: Sequence[Outcome], facts: Mapping[str, Cell]) -> bytes:
    """Return the page. `facts` stand below its title: machine, versions, level."""
    page = Page("Scheduling benchmark", list(facts.items()))
    overview = page.section("Workloads")
    overview.table(["workload", "pods/s", "threshold", "verdict", "CPU ms/pod", "seconds"], [_overview(one) for one in outcomes])
    overview.bars([(one.name, _average(one, "SchedulingThroughput")) for one in outcomes if one.items], title="Throughput", unit="pods/s")
    for one in outcomes:
        section = page.section(one.name)
        if one.error:
            section.text(one.error)
            continue
        rows = [[_metric(item.labels), item.unit, *[item.data.get(bucket) for bucket in _BUCKETS]] for item in one.items]
        section.table(["metric", "unit", *_BUCKETS], rows)
        for measurement in one.measurements:
            _charts(section, measurement)
    return page.html().encode()


def _overview(outcome: Outcome) -> list[Cell]:
    verdict = outcome.verdicts[0] if outcome.verdicts else None
    said = outcome.error or ("" if verdict is None else ("passed" if verdict.is_passed else "missed"))
    throughput = _average(outcome, "SchedulingThroughput") if outcome.items else None
    cpu = _average(outcome, "process_cpu_per_pod") if outcome.items else None
    return [outcome.name, throughput, verdict.threshold if verdict is not None else None, said, cpu, outcome.duration_s]


def _average(outcome: Outcome, metric: str) -> float:
    return next((one.data["Average"] for one in outcome.items if one.labels.get("Metric") == metric), 0.0)


def _metric(labels: Mapping[str, str]) -> str:
    more = [value for name, value in sorted(labels.items()) if name not in ("Name", "Metric")]
    return " ".join([labels.get("Metric", ""), *more])


def _charts(section: Section, measurement: Measurement) -> None:
    samples = measurement.samples
    if len(samples) < 2:
        return
    section.lines([Series("pods", [(one.at_s, one.pods_per_s) for one in samples])], title="Throughput", x_label="s", y_label="pods/s")
    places = {"active": "active", "backoff": "backoff", "unschedulable": "unschedulable", "gated": "gated"}
    waiting = [Series(name, [(one.at_s, float(getattr(one, place))) for one in samples]) for name, place in places.items()]
    section.lines(waiting, title="Pods that wait", x_label="s", y_label="pods")
    section.lines([Series("CPU", [(one.at_s, one.cpu_s) for one in samples])], title="CPU", x_label="s", y_label="s/sample")
    section.lines([Series("resident", [(one.at_s, one.resident_mib) for one in samples])], title="Memory", x_label="s", y_label="MB")
