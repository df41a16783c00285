"""Throughput is sampled as upstream samples it, and values are summed up by the nearest rank."""

from __future__ import annotations

import pytest

from korch.lab.bench.collector import Throughput, buckets


@pytest.mark.parametrize(
    ("samples", "rates"),
    [
        # Nothing is sampled before the first pod, and its interval is dropped.
        ([(1.0, 0), (2.0, 0), (3.0, 50)], []),
        ([(1.0, 50), (2.0, 150), (3.0, 350)], [100, 200]),
        # Empty seconds get the rate of the interval that ends them.
        ([(1.0, 10), (2.0, 10), (3.0, 10), (4.0, 40)], [10, 10, 10]),
        # Late timers count as long as they took.
        ([(1.0, 10), (3.0, 50)], [20]),
        # Seconds without a pod at the end count nothing.
        ([(1.0, 10), (2.0, 20), (3.0, 20)], [10]),
    ],
)
def test_rates_are_those_of_upstreams_collector(samples: list[tuple[float, int]], rates: list[float]) -> None:
    throughput = Throughput(0.0)
    for now, bound in samples:
        throughput.sample(now, bound)
    assert throughput.rates == rates


def test_a_short_run_counts_as_one_interval_up_to_its_last_pod() -> None:
    throughput = Throughput(10.0)
    assert throughput.finished([]) == []
    assert throughput.finished([10.1, 10.5, 10.2]) == [6.0]
    throughput.sample(11.0, 3)
    throughput.sample(12.0, 5)
    assert throughput.finished([10.1, 10.5, 10.2, 11.5, 11.6]) == [2.0]


def test_percentiles_are_values_that_occurred() -> None:
    assert buckets([]) == {}
    assert buckets([3.0]) == {"Average": 3.0, "Perc50": 3.0, "Perc90": 3.0, "Perc95": 3.0, "Perc99": 3.0}
    hundred = [float(one) for one in range(100, 0, -1)]
    assert buckets(hundred) == {"Average": 50.5, "Perc50": 50.0, "Perc90": 90.0, "Perc95": 95.0, "Perc99": 99.0}
