"""Test cases and workloads, as a scheduler_perf configuration file has them.

A file is a list of test cases; each has operations in common and workloads that give them numbers. Everything is read strictly: an
unknown field or op code, or a value of the wrong type, is an error with its line. Mirrors scheduler_perf's testCase and Workload.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from korch.lab.bench import operation
from korch.lab.bench.operation import Operation, OperationError
from korch.lab.bench.source import Address, ConfigError, Document, load

THROUGHPUT = "SchedulingThroughput"


class MetricSelector(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Which measured value a threshold is about, and on which side of it is good."""

    name: str = THROUGHPUT
    labels: dict[str, str] = {}
    data_bucket: str = "Average"
    expect_lower: bool = False


class _Workload(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    name: str
    params: dict[str, Any] = {}
    labels: list[str] = []
    threshold: float | dict[str, float] = 0.0
    threshold_metric_selector: MetricSelector | None = None
    feature_gates: dict[str, bool] = {}


class _LabelValues(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    label: str
    values: list[str] = []


class _Metrics(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    metrics: dict[str, list[_LabelValues] | None] = {}


class _TestCase(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    name: str
    workload_template: list[Any]
    workloads: list[Any]
    feature_gates: dict[str, bool] = {}
    metrics_collector_config: _Metrics | None = None
    scheduler_config_path: str = ""
    default_pod_template_path: str | None = None
    labels: list[str] = []
    default_threshold_metric_selector: MetricSelector | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """An operation of a test case and where it stands."""

    operation: Operation
    address: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One workload with what its test case says for all. `threshold` is a number of the selected metric, 0 for none."""

    case: str
    name: str
    topic: str
    document: Document
    address: Address
    steps: Sequence[Step]
    params: Mapping[str, Any]
    labels: frozenset[str]
    feature_gates: Mapping[str, bool]
    threshold: float
    selector: MetricSelector
    scheduler_config_path: str
    default_pod_template_path: str | None
    case_address: Address

    @property
    def full_name(self) -> str:
        """Return `TestCase/Workload`."""
        return f"{self.case}/{self.name}"

    def error(self, address: Address, reason: str) -> ConfigError:
        """Return the error that names the place in the file and this workload."""
        return self.document.error(address, f"{self.full_name}: {reason}")


def read(path: Path) -> list[Workload]:
    """Return all workloads of a file, in its order. Raises ConfigError with file, line and reason. Blocks."""
    document = load(path)
    if not isinstance(document.value, list):
        raise document.error((), "a list of test cases is expected")
    found: list[Workload] = []
    for index in range(len(document.value)):
        found += _workloads(document, (index,))
    for case in {one.case for one in found}:
        names = [one.name for one in found if one.case == case]
        for name in names:
            if names.count(name) > 1:
                twice = [one for one in found if (one.case, one.name) == (case, name)][1]
                raise document.error((*twice.address, "name"), f"{case}: workload name {name} is not unique")
    return found


def select(workloads: Sequence[Workload], patterns: Sequence[str], labels: str = "") -> list[Workload]:
    """Return the workloads whose `TestCase/Workload` one of the patterns (with * and ?) names, all without patterns.

    A pattern without a slash names test cases. `labels` is a list like `performance,-short`: what a workload must have, or not.
    Raises LookupError for a pattern that nothing matches."""
    chosen = list(workloads)
    if patterns:
        for pattern in patterns:
            if not any(_is_named(one, pattern) for one in workloads):
                known = ", ".join(sorted({one.case for one in workloads}))
                raise LookupError(f"no workload {pattern!r}; the test cases are {known}")
        chosen = [one for one in workloads if any(_is_named(one, pattern) for pattern in patterns)]
    for term in filter(None, (one.strip() for one in labels.split(","))):
        chosen = [one for one in chosen if (term.lstrip("+-") in one.labels) != term.startswith("-")]
    return chosen


def _is_named(workload: Workload, pattern: str) -> bool:
    return fnmatchcase(workload.full_name if "/" in pattern else workload.case, pattern)


def _workloads(document: Document, at: Address) -> list[Workload]:
    case = _struct(document, at, _TestCase)
    steps = [
        Step(_operation(document, (*at, "workloadTemplate", index)), (*at, "workloadTemplate", index))
        for index in range(len(case.workload_template))
    ]
    if not case.workload_template:
        raise document.error((*at, "workloadTemplate"), f"{case.name}: there is no operation")
    topic = document.path.parent.name
    found: list[Workload] = []
    for index in range(len(case.workloads)):
        address = (*at, "workloads", index)
        one = _struct(document, address, _Workload)
        threshold = one.threshold.get(topic, 0.0) if isinstance(one.threshold, dict) else one.threshold
        if threshold < 0:
            raise document.error((*address, "threshold"), f"invalid Threshold={threshold:g}; should be non-negative")
        selector = one.threshold_metric_selector or case.default_threshold_metric_selector or MetricSelector()
        if not selector.data_bucket:
            raise document.error((*address, "thresholdMetricSelector"), f"dataBucket should be set for metric {selector.name}")
        found.append(
            Workload(
                case=case.name,
                name=one.name,
                topic=topic,
                document=document,
                address=address,
                steps=steps,
                params=one.params,
                labels=frozenset(case.labels) | frozenset(one.labels),
                feature_gates=case.feature_gates | one.feature_gates,
                threshold=threshold,
                selector=selector,
                scheduler_config_path=case.scheduler_config_path,
                default_pod_template_path=case.default_pod_template_path,
                case_address=at,
            )
        )
    return found


def _struct(document: Document, at: Address, kind: type[operation.S]) -> operation.S:
    try:
        return operation.to_struct(_value(document, at), kind)
    except OperationError as error:
        raise document.error((*at, error.field) if error.field else at, error.reason) from error


def _operation(document: Document, at: Address) -> Operation:
    try:
        return operation.decode(_value(document, at))
    except OperationError as error:
        raise document.error((*at, error.field) if error.field else at, error.reason) from error


def _value(document: Document, at: Address) -> Any:
    value = document.value
    for key in at:
        if isinstance(value, dict):
            key = next((one for one in value if str(one).lower() == str(key).lower()), key)
        value = value[key]
    return value
