"""Two results side by side: the same metric of the same workload before and after, as a ratio.

A ratio above 1 means that the second result has the larger value; whether that is good depends on the unit: more pods a second are
better, less of anything else is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from korch.lab.bench.result import DataItem

_MORE_IS_BETTER = frozenset({"pods/s"})


@dataclass(frozen=True, slots=True)
class Row:
    """One value in both results. `gain` is how many times better the second is: 1 the same, below 1 worse."""

    name: str
    metric: str
    bucket: str
    unit: str
    before: float
    after: float
    ratio: float | None
    gain: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What both results have, and the names of what only one has."""

    rows: Sequence[Row]
    only_before: Sequence[str]
    only_after: Sequence[str]

    def worse_than(self, gain: float, metrics: Sequence[str]) -> list[Row]:
        """Return the averages of these metrics that became worse than `gain` allows: 0.9 allows a tenth."""
        return [one for one in self.rows if one.metric in metrics and one.bucket == "Average" and one.gain is not None and one.gain < gain]


def compare(before: Sequence[DataItem], after: Sequence[DataItem]) -> Comparison:
    """Set two results side by side, in the order of the first."""
    first, second = _values(before), _values(after)
    rows = [_row(key, first[key], second[key]) for key in first if key in second]
    names = {key[0] for key in first}, {key[0] for key in second}
    return Comparison(rows, sorted(names[0] - names[1]), sorted(names[1] - names[0]))


_Key = tuple[str, str, str, str]


def _values(items: Sequence[DataItem]) -> dict[_Key, float]:
    found: dict[_Key, float] = {}
    for item in items:
        more = ",".join(value for name, value in sorted(item.labels.items()) if name not in ("Name", "Metric"))
        metric = item.labels.get("Metric", "") + (f"[{more}]" if more else "")
        for bucket, value in item.data.items():
            found[item.labels.get("Name", ""), metric, bucket, item.unit] = value
    return found


def _row(key: _Key, before: float, after: float) -> Row:
    name, metric, bucket, unit = key
    ratio = after / before if before else None
    gain = ratio if unit in _MORE_IS_BETTER else (before / after if after else None)
    return Row(name, metric, bucket, unit, before, after, ratio, gain)
