"""Results: data items in the format of scheduler_perf, and the tables, files and pages made of them.

A data item is a metric of one collecting with its labels, its unit and its values by bucket (Average, Perc50 and so on). JSON is exactly
what upstream's benchmark writes and its dashboard reads; CSV and Parquet have one value a line, the seconds of the run among them.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from korch.lab.bench.collector import Measurement, buckets
from korch.lab.bench.configuration import MetricSelector, Workload

VERSION = "v1"
_NOT_APPLICABLE = "not applicable"
_COLUMNS = ("name", "metric", "labels", "bucket", "at_s", "value", "unit")


@dataclass(frozen=True, slots=True)
class DataItem:
    """Values of one metric by bucket."""

    data: dict[str, float]
    unit: str
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a threshold was reached; `value` is None when the metric was not measured."""

    metric: str
    value: float | None
    threshold: float
    is_passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one workload went: measured, or `error` says why not."""

    name: str
    level: str
    items: Sequence[DataItem] = ()
    measurements: Sequence[Measurement] = ()
    verdicts: Sequence[Verdict] = ()
    duration_s: float = 0.0
    error: str = ""
    warnings: Sequence[str] = field(default_factory=tuple)


def items_of(measurement: Measurement) -> list[DataItem]:
    """Return what was measured as data items; latencies are in milliseconds, as upstream has them."""
    base = {"Name": measurement.name}
    found = [DataItem(buckets(measurement.throughputs), "pods/s", base | {"Metric": "SchedulingThroughput"})]
    for result, values in measurement.attempts_s.items():
        labels = {"Metric": "scheduler_scheduling_attempt_duration_seconds", "result": result}
        found.append(_milliseconds(values, base | labels))
    if measurement.algorithm_s:
        rate = len(measurement.algorithm_s) / max(math.fsum(measurement.algorithm_s), 1e-9)
        found.append(DataItem({"Average": rate}, "pods/s", base | {"Metric": "DecisionThroughput"}))
    found.append(_milliseconds(measurement.algorithm_s, base | {"Metric": "scheduler_scheduling_algorithm_duration_seconds"}))
    found.append(_milliseconds(measurement.pod_latencies_s, base | {"Metric": "scheduler_pod_scheduling_duration_seconds"}))
    found.append(DataItem({"Duration": measurement.duration_s}, "s", base | {"Metric": "SchedulingDuration"}))
    memory = buckets(measurement.resident_mib) | {"Max": max(measurement.resident_mib, default=0.0)}
    found.append(DataItem(memory, "MB", base | {"Metric": "process_resident_memory"}))
    if measurement.bound:
        cpu = {"Average": measurement.cpu_s * 1000 / measurement.bound, "Settled": measurement.settled_cpu_s * 1000 / measurement.bound}
        found.append(DataItem(cpu, "ms", base | {"Metric": "process_cpu_per_pod"}))
    return [one for one in found if one.data]


def verdicts(workload: Workload, items: Sequence[DataItem]) -> list[Verdict]:
    """Return how the workload's threshold was met, once for each item that it is about; nothing without a threshold."""
    selector = workload.selector
    if not workload.threshold:
        return []
    found = [one for one in items if _is_meant(selector, one)]
    if not found:
        return [Verdict(selector.name, None, workload.threshold, False)]
    values = [one.data[selector.data_bucket] for one in found]
    passes = [value <= workload.threshold if selector.expect_lower else value >= workload.threshold for value in values]
    return [Verdict(selector.name, value, workload.threshold, passed) for value, passed in zip(values, passes, strict=True)]


def to_json(outcomes: Sequence[Outcome]) -> bytes:
    """Return scheduler_perf's result document: every item has every label that any has."""
    items = [one for outcome in outcomes for one in outcome.items]
    names = sorted({name for one in items for name in one.labels})
    shown = [
        {"data": one.data, "unit": one.unit, "labels": {name: one.labels.get(name, _NOT_APPLICABLE) for name in names}} for one in items
    ]
    return orjson.dumps({"version": VERSION, "dataItems": shown}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def read_json(path: Path) -> list[DataItem]:
    """Return the items of a result document, ours or upstream's. Raises ValueError that names the file, OSError. Blocks."""
    try:
        document = orjson.loads(path.read_bytes())
        if document["version"] != VERSION:
            raise ValueError(f"version {document['version']!r} is not {VERSION!r}")
        found: list[DataItem] = []
        for one in document["dataItems"]:
            labels = {name: value for name, value in (one.get("labels") or {}).items() if value != _NOT_APPLICABLE}
            found.append(DataItem({name: float(value) for name, value in (one["data"] or {}).items()}, one["unit"], labels))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a result of scheduler_perf: {error}") from error
    return found


def rows(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, str, str, str, float | None, float, str]]:
    """Yield (name, metric, further labels, bucket, second, value, unit) for each value; the second is None but in series."""
    for outcome in outcomes:
        for item in outcome.items:
            more = ",".join(f"{name}={value}" for name, value in sorted(item.labels.items()) if name not in ("Name", "Metric"))
            for bucket, value in item.data.items():
                yield item.labels.get("Name", ""), item.labels.get("Metric", ""), more, bucket, None, value, item.unit
        for measurement in outcome.measurements:
            for sample in measurement.samples:
                series = {
                    "throughput": (sample.pods_per_s, "pods/s"),
                    "bound": (float(sample.bound), "pods"),
                    "cpu": (sample.cpu_s, "s"),
                    "resident_memory": (sample.resident_mib, "MB"),
                    "active": (float(sample.active), "pods"),
                    "backoff": (float(sample.backoff), "pods"),
                    "unschedulable": (float(sample.unschedulable), "pods"),
                    "gated": (float(sample.gated), "pods"),
                }
                for metric, (value, unit) in series.items():
                    yield measurement.name, metric, "", "Sample", sample.at_s, value, unit


def to_csv(outcomes: Sequence[Outcome]) -> bytes:
    """Return `rows` as CSV with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(rows(outcomes))
    return text.getvalue().encode()


def to_parquet(outcomes: Sequence[Outcome]) -> bytes:
    """Return `rows` as a Parquet file. Raises ImportError without pyarrow."""
    # An extra, so that nobody has to carry it for JSON.
    import pyarrow
    from pyarrow import parquet

    columns: list[Any] = list(zip(*rows(outcomes), strict=True)) or [()] * len(_COLUMNS)
    kinds = (*[pyarrow.string()] * 4, pyarrow.float64(), pyarrow.float64(), pyarrow.string())
    arrays = [pyarrow.array(values, type=kind) for values, kind in zip(columns, kinds, strict=True)]
    sink = io.BytesIO()
    parquet.write_table(pyarrow.table(dict(zip(_COLUMNS, arrays, strict=True))), sink)
    return sink.getvalue()


def _milliseconds(values: Sequence[float], labels: dict[str, str]) -> DataItem:
    return DataItem({name: value * 1000 for name, value in buckets(values).items()}, "ms", labels)


def _is_meant(selector: MetricSelector, item: DataItem) -> bool:
    if item.labels.get("Metric") != selector.name or selector.data_bucket not in item.data:
        return False
    return all(item.labels.get(name) == value for name, value in selector.labels.items())
