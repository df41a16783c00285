"""A simulation wakes pods by what the change was and by the plugins that rejected them."""

from __future__ import annotations

import pytest

from korch.lab.cluster_events import ClusterEvent


@pytest.mark.parametrize(
    ("event", "plugin", "moves"),
    [
        (ClusterEvent.NODE_ADD, "NodeName", True),
        (ClusterEvent.NODE_ALLOCATABLE, "NodeResourcesFit", True),
        (ClusterEvent.NODE_ALLOCATABLE, "NodeAffinity", False),
        (ClusterEvent.NODE_TAINT, "TaintToleration", True),
        (ClusterEvent.NODE_LABEL, "NodeAffinity", True),
        (ClusterEvent.POD_GONE, "NodePorts", True),
        (ClusterEvent.POD_GONE, "TaintToleration", False),
        (ClusterEvent.POD_BOUND, "NodeResourcesFit", False),
    ],
)
def test_an_event_helps_pods_that_certain_plugins_rejected(event: ClusterEvent, plugin: str, moves: bool) -> None:
    assert event.may_help(frozenset({plugin})) is moves
    assert event.may_help(frozenset())
