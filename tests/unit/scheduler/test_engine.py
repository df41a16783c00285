"""What crosses into the engine and back: bytes, errors, decisions."""

from __future__ import annotations

import orjson
import pytest

from korch._core import native


def node(name: str, cpu: str = "4") -> bytes:
    return orjson.dumps({"metadata": {"name": name}, "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}})


def pod(name: str, cpu: str = "1", node_name: str = "") -> bytes:
    container = {"name": "c", "resources": {"requests": {"cpu": cpu}}}
    return orjson.dumps(
        {"metadata": {"name": name, "namespace": "d", "uid": name}, "spec": {"nodeName": node_name, "containers": [container]}}
    )


def test_a_decision_names_the_node_or_counts_the_reasons() -> None:
    engine = native.Scheduler()
    engine.upsert([node("n1"), node("n2", "1")], [pod("old", "2", "n1")])
    placed, refused = engine.schedule([pod("a", "2"), pod("b", "3")], now_ms=0, seed=0)
    assert (placed.key, placed.uid, placed.node, placed.message, placed.reasons) == ("d/a", "a", "n1", "", {})
    assert (refused.node, refused.nodes, refused.reasons) == ("", 2, {"Insufficient cpu": 2})
    assert (refused.unresolvable, refused.plugins, refused.nominated) == (1, ["NodeResourcesFit"], "")


def test_forgotten_and_removed_pods_free_their_room() -> None:
    engine = native.Scheduler()
    engine.upsert([node("n1")], [pod("old", "2", "n1")])
    assert engine.schedule([pod("a", "2")], now_ms=0, seed=0)[0].node == "n1"
    assert engine.schedule([pod("b", "2")], now_ms=0, seed=0)[0].node == ""
    engine.forget(["d/a", "d/old"])
    assert engine.stats() == {"nodes": 1, "pods": 1}
    engine.remove("Pod", ["d/old", "d/unknown"])
    assert engine.schedule([pod("c", "4")], now_ms=0, seed=0)[0].node == "n1"


def test_the_same_snapshot_and_seed_give_the_same_decisions() -> None:
    def decide(seed: int) -> list[str]:
        engine = native.Scheduler()
        engine.upsert([node(f"n{i}") for i in range(50)], [])
        return [one.node for one in engine.schedule([pod(f"p{i}") for i in range(100)], now_ms=0, seed=seed)]

    assert decide(0) == decide(0)
    assert decide(5) == decide(5)
    assert decide(5) != decide(6)
    assert sorted(set(decide(5))) == sorted(f"n{i}" for i in range(50))


def test_bytes_that_are_no_object_are_refused_and_change_nothing() -> None:
    engine = native.Scheduler()
    with pytest.raises(ValueError, match="cannot read Node"):
        engine.upsert([node("n1"), b"{"], [])
    with pytest.raises(ValueError, match="cannot read Pod"):
        engine.schedule([pod("a"), b"[1]"], now_ms=0, seed=0)
    with pytest.raises(ValueError, match="profiles"):
        native.Scheduler(b'{"kind": "KubeSchedulerConfiguration", "apiVersion": "kubescheduler.config.k8s.io/v1", "profiles": [{}, {}]}')
    assert engine.stats() == {"nodes": 0, "pods": 0}
