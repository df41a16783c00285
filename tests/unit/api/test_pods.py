"""What controllers, scheduler and agent ask of a pod."""

from __future__ import annotations

from typing import Any

import pytest

from korch.api.pods import available_in_s, is_active, is_available, is_ready, is_terminal, requests

Object = dict[str, Any]
NOW = 1_800_000_000.0


def ready(since: str = "2027-01-15T07:59:30Z", status: str = "True") -> Object:
    return {"status": {"conditions": [{"type": "Ready", "status": status, "lastTransitionTime": since}]}}


@pytest.mark.parametrize(
    ("pod", "min_ready_s", "available", "in_s"),
    [
        ({}, 0, False, None),
        (ready(status="False"), 0, False, None),
        (ready(), 0, True, 0.0),
        (ready(), 30, True, 0.0),
        (ready(), 31, False, 1.0),
    ],
)
def test_a_pod_is_available_once_it_was_ready_for_long_enough(pod: Object, min_ready_s: float, available: bool, in_s: float | None) -> None:
    assert is_ready(pod) is (in_s is not None)
    assert is_available(pod, min_ready_s, NOW) is available
    assert available_in_s(pod, min_ready_s, NOW) == in_s


@pytest.mark.parametrize(
    ("pod", "active", "terminal"),
    [
        ({"status": {"phase": "Running"}}, True, False),
        ({"status": {"phase": "Running"}, "metadata": {"deletionTimestamp": "t"}}, False, False),
        ({"status": {"phase": "Succeeded"}}, False, True),
        ({"status": {"phase": "Failed"}}, False, True),
        ({}, True, False),
    ],
)
def test_a_pod_counts_until_it_ends_or_is_deleted(pod: Object, active: bool, terminal: bool) -> None:
    assert (is_active(pod), is_terminal(pod)) == (active, terminal)


def container(cpu: str, **more: Any) -> Object:
    return {"resources": {"requests": {"cpu": cpu}}, **more}


@pytest.mark.parametrize(
    ("spec", "cpu_milli"),
    [
        ({"containers": [container("100m"), container("200m")]}, 300),
        ({"containers": [container("100m")], "initContainers": [container("500m"), container("400m")]}, 500),
        ({"containers": [container("100m")], "initContainers": [container("50m")]}, 100),
        ({"containers": [container("100m")], "initContainers": [container("50m", restartPolicy="Always")]}, 150),
        (
            {"containers": [container("100m")], "initContainers": [container("50m", restartPolicy="Always"), container("200m")]},
            250,
        ),
        ({"containers": [container("100m")], "overhead": {"cpu": "10m"}}, 110),
        ({"containers": [container("100m")], "resources": {"requests": {"cpu": "1"}}}, 1000),
    ],
)
def test_what_a_pod_sets_aside(spec: Object, cpu_milli: int) -> None:
    assert requests({"spec": spec}) == {"cpu": cpu_milli}


def test_amounts_other_than_cpu_are_whole() -> None:
    resources = {"requests": {"memory": "1Gi", "example.com/gpu": "2", "cpu": "1.5"}}
    assert requests({"spec": {"containers": [{"resources": resources}]}}) == {"memory": 2**30, "example.com/gpu": 2, "cpu": 1500}
