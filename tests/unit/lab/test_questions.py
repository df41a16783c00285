"""Do these pods fit, how many nodes does it take, what does a drain do: on clusters small enough to try everything."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.lab.worlds import Generous, budget, nodes, packed, pod, tasks

from korch._core import native
from korch.lab.cluster import Cluster
from korch.lab.drain import Outcome, drain
from korch.lab.fit import fewest_nodes, place_all
from korch.lab.ledger import OverCommitted
from korch.lab.machines import read_shape
from korch.lab.policies import DEFAULT
from korch.lab.source import BadInput
from korch.lab.workload import PodBytes, Workload


def _each(*sizes: str) -> Workload:
    return tasks(*((f"t{index}", 0, None, size) for index, size in enumerate(sizes)))


def test_pods_that_fit_are_placed_and_the_others_refused_in_the_schedulers_words():
    found = place_all(nodes("2 x 4cpu,16Gi"), _each("3cpu", "3cpu", "2cpu"))
    assert found.placed == {"default/t0": "node-0", "default/t1": "node-1"}
    assert not found.fits
    [(words, count)] = found.reasons()
    assert count == 1
    assert words.startswith("0/2 nodes are available: 2 Insufficient cpu.")
    assert place_all(nodes("2 x 4cpu,16Gi"), _each("3cpu", "3cpu", "1cpu")).fits


def test_more_important_pods_are_placed_first():
    assert list(place_all(nodes("1 x 4cpu,16Gi"), _each("4cpu", "4cpu!7")).placed) == ["default/t1"]


def test_pods_that_the_cluster_has_count():
    cluster = nodes("1 x 4cpu,16Gi")
    cluster.pods = [pod("there", "node-0", cpu="3"), pod("waits", cpu="1")]
    found = place_all(cluster, _each("1cpu"))
    assert (list(found.placed), list(found.refused)) == (["default/waits"], ["default/t0"])


def test_the_policy_decides_what_fits():
    # Spread, one core is taken on each node and nobody has four; packed, the second node is free.
    work = _each("1cpu!9", "1cpu!9", "4cpu")
    assert [place_all(nodes("2 x 4cpu,16Gi"), work, policy).fits for policy in (DEFAULT, packed)] == [False, True]
    needed = [fewest_nodes(nodes("1 x 4cpu,16Gi"), work, read_shape("4cpu,16Gi"), policy).count for policy in (DEFAULT, packed)]
    assert needed == [2, 1]


def test_no_more_nodes_are_needed_when_all_fit_already():
    found = fewest_nodes(nodes("2 x 4cpu,16Gi"), _each("3cpu", "3cpu"), read_shape("4cpu,16Gi"))
    assert (found.count, found.is_proved) == (0, True)


def test_no_answer_rests_on_a_node_that_was_given_more_than_it_has():
    few, many, generous = nodes("1 x 4cpu,64Gi"), _each(*["3cpu"] * 4), Generous("generous")
    with pytest.raises(OverCommitted, match="node-0 has 4000 of cpu and was given 6000"):
        place_all(few, many, generous)
    with pytest.raises(OverCommitted, match="has 4000 of cpu and was given 6000"):
        fewest_nodes(few, many, read_shape("4cpu,64Gi"), generous)
    moved = Cluster(nodes("2 x 4cpu,64Gi").nodes, [pod("a", "node-0", "3"), pod("b", "node-1", "3")])
    with pytest.raises(OverCommitted, match="node-1 has 4000 of cpu and was given 6000"):
        drain(moved, ["node-0"], generous)


def test_a_pod_that_fits_on_no_node_of_the_shape_ends_the_search():
    with pytest.raises(BadInput, match=r"default/t1 fits on no node of it: 0/1 nodes are available: 1 Insufficient cpu"):
        fewest_nodes(nodes("1 x 4cpu,16Gi"), _each("4cpu", "9cpu"), read_shape("8cpu,16Gi"))


def test_daemonsets_take_their_room_on_nodes_that_are_added():
    cluster = nodes("1 x 1cpu,1Gi")
    spec = {"containers": [{"name": "d", "resources": {"requests": {"cpu": "2"}}}]}
    cluster.others = [{"kind": "DaemonSet", "metadata": {"name": "d", "namespace": "x"}, "spec": {"template": {"spec": spec}}}]
    assert fewest_nodes(cluster, _each("2cpu", "2cpu"), read_shape("4cpu,16Gi")).count == 2
    assert fewest_nodes(Cluster(cluster.nodes), _each("2cpu", "2cpu"), read_shape("4cpu,16Gi")).count == 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sizes=st.lists(st.sampled_from(["1cpu", "2cpu", "3cpu", "1cpu!5", "3cpu!5"]), min_size=1, max_size=14))
def test_the_answer_is_that_of_trying_every_number_with_the_plain_scheduler(sizes: list[str]):
    work, shape = _each(*sizes), read_shape("4cpu,8Gi")
    base = nodes("1 x 2cpu,4Gi")

    def fits(count: int) -> bool:
        engine = native.Scheduler()
        engine.upsert([orjson.dumps(one) for one in [*base.nodes, *(shape.node(f"added-{number}") for number in range(count))]], [])
        order = sorted(range(len(work)), key=lambda task: -work.priority(work.kinds[task]))
        pods = [PodBytes(work.templates[work.kinds[task]]).of(work.names[task]) for task in order]
        return all(one.node for one in engine.schedule(pods, now_ms=0, seed=0))

    found = fewest_nodes(base, work, shape)
    assert found.is_proved
    assert found.count == next(count for count in range(30) if fits(count))


# ---- drain ----


def _drained(cluster: Cluster, *names: str) -> dict[str, tuple[Outcome, str]]:
    return {one.pod.removeprefix("default/"): (one.outcome, one.to_node) for one in drain(cluster, names).moves}


def test_pods_of_a_drained_node_move_as_far_as_there_is_room():
    cluster = nodes("3 x 4cpu,16Gi")
    cluster.pods = [pod("a", "node-0", "3"), pod("b", "node-0", "1"), pod("c", "node-1", "1"), pod("d", "node-2", "4")]
    assert _drained(cluster, "node-0") == {"a": (Outcome.MOVED, "node-1"), "b": (Outcome.PENDING, "")}
    assert _drained(cluster, "node-1") == {"c": (Outcome.PENDING, "")}, "node-0 is full and node-2 too"


def test_daemon_pods_stay_and_unowned_ones_would_be_lost():
    cluster = nodes("2 x 4cpu,16Gi")
    cluster.pods = [pod("daemon", "node-0", owner="DaemonSet"), pod("bare", "node-0", owner=""), pod("web", "node-0")]
    found = _drained(cluster, "node-0")
    assert found == {"daemon": (Outcome.STAYS, ""), "bare": (Outcome.LOST, ""), "web": (Outcome.MOVED, "node-1")}


def test_a_budget_lets_pods_go_one_by_one_as_long_as_each_finds_a_new_place():
    cluster = nodes("3 x 4cpu,16Gi")
    cluster.pods = [pod(name, "node-0", labels={"app": "db"}) for name in ("a", "b", "c")]
    cluster.others = [budget("db", {"app": "db"}, 1)]
    assert {outcome for outcome, _ in _drained(cluster, "node-0").values()} == {Outcome.MOVED}


def test_a_budget_blocks_when_the_first_pod_stays_pending():
    cluster = nodes("2 x 4cpu,16Gi")
    cluster.pods = [pod("a", "node-0", "2", labels={"app": "db"}), pod("b", "node-0", "2", labels={"app": "db"}), pod("x", "node-1", "3")]
    cluster.others = [budget("db", {"app": "db"}, 1)]
    found = drain(cluster, ["node-0"])
    assert [(one.pod, one.outcome) for one in found.moves] == [("default/a", Outcome.PENDING), ("default/b", Outcome.BLOCKED)]
    assert found.moves[1].why == "Cannot evict pod as it would violate the pod's disruption budget default/db."


def test_a_budget_without_status_gets_its_allowance_from_its_spec():
    cluster = nodes("2 x 4cpu,16Gi")
    cluster.pods = [pod("a", "node-0", labels={"app": "db"}), pod("b", "node-1", labels={"app": "db"})]
    guard = budget("db", {"app": "db"}, 0)
    del guard["status"]
    guard["spec"] = {"selector": {"matchLabels": {"app": "db"}}, "minAvailable": "100%"}
    cluster.others = [guard]
    assert _drained(cluster, "node-0") == {"a": (Outcome.BLOCKED, "")}
    guard["spec"]["minAvailable"] = 1
    assert _drained(cluster, "node-0") == {"a": (Outcome.MOVED, "node-1")}


def test_nodes_that_are_drained_together_take_nothing_from_each_other():
    cluster = nodes("3 x 4cpu,16Gi")
    cluster.pods = [pod("a", "node-0"), pod("b", "node-1")]
    assert {node for _, node in _drained(cluster, "node-0", "node-1").values()} == {"node-2"}


def test_an_unknown_node_is_refused():
    with pytest.raises(BadInput, match='nodes "nope" not found'):
        drain(nodes("1 x 4cpu,16Gi"), ["nope"])
