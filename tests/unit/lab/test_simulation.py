"""Simulations whose course can be worked out by hand, and what holds for every one."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.lab.worlds import Generous, nodes, packed, pod, story, tasks

from korch._core import native
from korch.lab import export
from korch.lab.cluster import Cluster
from korch.lab.events import Autoscaling, Failure, RandomFailures, nodes_wanted
from korch.lab.ledger import Ledger, OverCommitted
from korch.lab.machines import read_shape
from korch.lab.policies import DEFAULT, Policy
from korch.lab.results import Run
from korch.lab.simulation import Options, simulate
from korch.lab.workload import PodBytes, Workload


def test_a_task_waits_until_one_that_ends_makes_room():
    run = simulate(nodes("1 x 4cpu,16Gi"), tasks(("a", 0, 10, "3cpu"), ("b", 2, 5, "2cpu"), ("c", 3, 1, "1cpu")))
    assert story(run) == {"a": (0, 10, "node-0"), "b": (10, 15, "node-0"), "c": (3, 4, "node-0")}
    assert run.waits_s() == [0, 0, 8]
    # 3 cores for 10 s, 2 for 5 s and 1 for 1 s, of 4 cores for 15 s.
    assert run.utilisation()["cpu"] == pytest.approx((30 + 10 + 1) / 60)
    assert run.horizon_s == 15


def test_of_tasks_that_wait_the_more_important_one_goes_first():
    work = tasks(("first", 0, 10, "4cpu!9"), ("low", 1, 10, "4cpu"), ("high", 2, 10, "4cpu!5"))
    assert story(simulate(nodes("1 x 4cpu,16Gi"), work)) == {
        "first": (0, 10, "node-0"),
        "high": (10, 20, "node-0"),
        "low": (20, 30, "node-0"),
    }


def test_a_preempted_task_comes_again_and_runs_from_the_start():
    run = simulate(nodes("1 x 4cpu,16Gi"), tasks(("low", 0, 10, "4cpu"), ("high", 6, 5, "4cpu!5")))
    assert story(run) == {"low": (0, 21, "node-0"), "high": (6, 11, "node-0")}
    assert (run.preemptions, run.lost_work_s, list(run.records.restarts)) == (1, 6, [1, 0])
    # Four cores all the time, six seconds of it for nothing.
    assert run.utilisation()["cpu"] == 1


def test_what_fits_nowhere_waits_with_the_schedulers_words():
    run = simulate(nodes("2 x 4cpu,16Gi"), tasks(("big", 0, 10, "9cpu"), ("small", 0, 10, "1cpu")))
    assert story(run)["big"] == (None, None, None)
    assert run.waiting[0].startswith("0/2 nodes are available: 2 Insufficient cpu.")
    assert run.summary()["waiting at the end"] == 1


def test_a_node_that_fails_loses_its_tasks_and_takes_new_ones_when_it_is_back():
    options = Options(failures=(Failure("node-0", 4, 3),))
    run = simulate(nodes("1 x 4cpu,16Gi"), tasks(("a", 0, 10, "1cpu"), ("b", 5, 1, "1cpu")), DEFAULT, options)
    assert story(run) == {"a": (0, 17, "node-0"), "b": (7, 8, "node-0")}
    assert (run.killed_by_failures, run.node_failures, run.lost_work_s) == (1, 1, 4)
    assert run.capacity_area["cpu"] == 4000 * (17 - 3)


def test_pods_of_the_cluster_run_on_those_of_daemonsets_return_with_their_node_and_unowned_ones_do_not():
    cluster = nodes("2 x 4cpu,16Gi")
    daemon, bare = pod("d", "node-0", owner="DaemonSet"), pod("bare", "node-0", owner="")
    cluster.pods = [daemon, bare, pod("web", "node-0", cpu="2"), pod("new", cpu="4")]
    run = simulate(cluster, Workload(), DEFAULT, Options(until_s=20, failures=(Failure("node-0", 5, 5),)))
    found = story(run)
    assert found["d"] == (0, None, "node-0")
    assert found["bare"] == (0, None, None)
    # node-1 is full of the pod that waited, so the replaced pod waits for node-0.
    assert (found["new"], found["web"]) == ((0, None, "node-1"), (0, None, "node-0"))


def test_nodes_are_added_while_pods_wait_and_removed_when_they_stay_empty():
    autoscaling = Autoscaling(read_shape("4cpu,16Gi"), most=3, boot_s=30, idle_s=60, scan_s=10)
    work = tasks(("a", 0, 100, "4cpu"), ("b", 1, 50, "4cpu"), ("c", 1, 50, "2cpu"), ("d", 1, 50, "2cpu"), ("huge", 1, 5, "5cpu"))
    run = simulate(nodes("1 x 4cpu,16Gi"), work, DEFAULT, Options(autoscaling=autoscaling))
    found = story(run)
    # Scanned at 10 s, there at 40 s: one node for b, one for c and d together.
    assert found["b"][:2] == (40, 90)
    assert found["c"] == found["d"] and found["c"][:2] == (40, 90)
    assert {found["b"][2], found["c"][2]} == {"auto-0", "auto-1"}
    assert (run.nodes_added, run.nodes_removed, run.ledger.up_count) == (2, 2, 1)
    assert found["huge"] == (None, None, None)
    # Four cores until the last look for waiting pods, and four each from 40 s to 150 s.
    assert run.capacity_area["cpu"] == 4000 * (run.horizon_s + 2 * 110)


def test_new_nodes_are_packed_first_fit():
    assert nodes_wanted([], [4], 0) == 0
    assert nodes_wanted([[(0, 3)], [(0, 2)], [(0, 2)], [(0, 1)]], [4], 0) == 2
    assert nodes_wanted([[(0, 3)], [(0, 2)], [(0, 2)], [(0, 1)]], [4], 1) == 1


def test_policies_differ_in_where_they_put_pods():
    work = tasks(("a", 0, None, "1cpu"), ("b", 1, None, "1cpu"), ("c", 2, None, "3cpu"))
    spread, dense = (simulate(nodes("2 x 4cpu,16Gi"), work, policy, Options(until_s=10)) for policy in (DEFAULT, packed))
    assert len({story(spread)[name][2] for name in "ab"}) == 2
    assert len({story(dense)[name][2] for name in "ab"}) == 1
    # With one core taken on each node three are left on both: nothing is unusable; packed, two and four.
    assert [story(run)["c"][0] for run in (spread, dense)] == [2, 2]


def test_fragmentation_is_the_share_of_what_is_free_that_does_not_help():
    templates = tasks(("a", 0, None, "3cpu"), ("b", 0, None, "2cpu")).templates
    ledger = Ledger(nodes("2 x 4cpu,16Gi").nodes, templates)
    ledger.place(1, 0)
    # 2 cores are free on node-0 and 4 on node-1; the template of 3 cores, half of all, cannot use the 2.
    cpu = ledger.fragmentation([(0, 0.5), (1, 0.5)])[ledger.resources.index("cpu")]
    assert cpu == pytest.approx(0.5 * 2 / 6)


def test_the_ledger_refuses_what_a_node_does_not_have():
    ledger = Ledger(nodes("1 x 4cpu,16Gi").nodes, tasks(("a", 0, None, "3cpu")).templates)
    ledger.place(0, 0)
    with pytest.raises(OverCommitted, match="node node-0 has 4000 of cpu and was given 6000"):
        ledger.place(0, 0)


@pytest.mark.parametrize("is_batched", [True, False])
@pytest.mark.parametrize(
    ("work", "given"),
    [
        pytest.param(tasks(*((f"t{at}", 0, None, "1cpu") for at in range(9))), 5000, id="together"),
        pytest.param(tasks(*((f"t{at}", at, 6, "1cpu") for at in range(9))), 5000, id="churn"),
        # The node has memory for two tasks: the third one takes the place of a less important one.
        pytest.param(tasks(("a", 0, 90, "1cpu"), ("b", 0, 90, "1cpu"), ("c", 5, 9, "8cpu!5")), 9000, id="preemption"),
    ],
)
def test_a_simulation_ends_as_soon_as_the_engine_gives_a_node_more_than_it_has(work: Workload, given: int, is_batched: bool):
    memory = 2 if given == 9000 else 64
    with pytest.raises(OverCommitted, match=f"node node-0 has 4000 of cpu and was given {given}"):
        simulate(nodes(f"1 x 4cpu,{memory}Gi"), work, Generous("generous"), Options(is_batched=is_batched))


def test_a_simulation_ends_when_a_node_that_came_back_is_given_more_than_it_has():
    options = Options(failures=(Failure("node-0", 4, 3),))
    work = tasks(("small", 0, 9, "1cpu"), ("big", 8, 9, "8cpu"))
    with pytest.raises(OverCommitted, match="node node-0 has 4000 of cpu and was given 9000"):
        simulate(nodes("1 x 4cpu,64Gi"), work, Generous("generous"), options)


def test_a_policy_that_does_not_look_at_resources_is_found_out_and_told():
    config = b"""{"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration", "profiles": [
        {"plugins": {"multiPoint": {"disabled": [{"name": "NodeResourcesFit"}]}}}]}"""
    run = simulate(nodes("1 x 1cpu,1Gi"), tasks(("a", 0, None, "3cpu")), Policy("blind", config), Options(until_s=1))
    assert run.unchecked == ["cpu", "memory"]
    assert story(run)["a"][2] == "node-0"
    assert b"nodes may have been given more than they have" in export.html([run])


def test_time_takes_samples_of_the_state_between_events():
    run = simulate(nodes("1 x 4cpu,16Gi"), tasks(("a", 0, 10, "4cpu"), ("b", 2, 10, "4cpu")), DEFAULT, Options(samples=12))
    assert run.samples.time_s == [float(one) for one in range(12)] + [12, 13, 14, 15, 16, 17, 18, 19, 20]
    assert run.samples.running == [1] * 20 + [0]
    assert run.samples.pending == [0, 0] + [1] * 8 + [0] * 11


def test_failures_are_drawn_for_each_node_by_the_seed_alone():
    draw = RandomFailures(100, 10).draw
    few, many = draw(["a"], 1000, 1), draw(["a", "b"], 1000, 1)
    assert few == [one for one in many if one.node == "a"]
    assert few and few != draw(["a"], 1000, 2)


# ---- what holds for every simulation ----

_ASKS = st.sampled_from(["1cpu", "2cpu", "3cpu", "5cpu", "1cpu!5", "3cpu!5", "2cpu!9"])
_TASK = st.tuples(st.integers(0, 30), st.sampled_from([0, 1, 3, 7, 20, None]), _ASKS)
_WORK = st.lists(_TASK, max_size=25).map(lambda rows: tasks(*((f"t{index}", *row) for index, row in enumerate(rows))))


def _everything(run: Run) -> bytes:
    return export.tasks_csv([run]) + export.summary([run]) + export.html([run])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(work=_WORK, count=st.integers(1, 4), fails=st.booleans(), policy=st.sampled_from([DEFAULT, packed]))
def test_long_batches_and_single_steps_give_the_same(work: Workload, count: int, fails: bool, policy: Policy):
    failures = (Failure("node-0", 5, 4), Failure("node-0", 12)) if fails else ()
    runs = [
        simulate(nodes(f"{count} x 4cpu,16Gi"), work, policy, Options(failures=failures, is_batched=one)) for one in (True, False, True)
    ]
    assert _everything(runs[0]) == _everything(runs[1]) == _everything(runs[2])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(work=_WORK, count=st.integers(1, 3), seed=st.integers(0, 3))
def test_no_task_starts_early_or_twice_and_no_node_is_overcommitted_at_any_time(work: Workload, count: int, seed: int):
    run = simulate(nodes(f"{count} x 4cpu,16Gi"), work, DEFAULT, Options(seed=seed, random_failures=RandomFailures(15, 3)))
    capacity = 4000
    rows = [(task, run.records.started_s[task], run.records.ended_s[task], run.records.nodes[task]) for task in range(len(work))]
    for task, start, end, _ in rows:
        if start == start:
            assert start >= work.arrivals_s[task]
        if end == end and not run.records.restarts[task]:
            assert end == pytest.approx(start + max(work.durations_s[task], 0.001))
    # Tasks that were never stopped are on one node all the time: their sum over any instant must fit.
    settled = [
        (start, end, node, run.ledger.takes[work.kinds[task]])
        for task, start, end, node in rows
        if node >= 0 and not run.records.restarts[task]
    ]
    for moment, _, _, _ in settled:
        used = [0] * count
        for start, end, node, takes in settled:
            if start <= moment and not end <= moment:
                used[node] += next(amount for index, amount in takes if index == 0)
        assert max(used) <= capacity
    for index, totals in enumerate(run.ledger.used):
        for used, has in zip(totals, run.ledger.capacity[index], strict=True):
            assert 0 <= used <= has


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(work=_WORK, count=st.integers(1, 4))
def test_pods_that_all_come_at_once_go_where_the_plain_scheduler_puts_them(work: Workload, count: int):
    together = Workload()
    together.extend(work)
    for task in range(len(together)):
        together.arrivals_s[task], together.durations_s[task] = 0.0, float("inf")
    run = simulate(nodes(f"{count} x 4cpu,16Gi"), together)
    engine = native.Scheduler()
    engine.upsert([orjson.dumps(one) for one in nodes(f"{count} x 4cpu,16Gi").nodes], [])
    order = sorted(range(len(together)), key=lambda task: -together.priority(together.kinds[task]))
    pods = [PodBytes(together.templates[together.kinds[task]]).of(together.names[task]) for task in order]
    decided = engine.schedule(pods, now_ms=0, seed=0)
    # Sorted by priority nothing is ever preempted, so what the simulation shows is the scheduler's first word.
    assert {together.names[task]: one.node or None for task, one in zip(order, decided, strict=True)} == {
        name: node for name, (_, _, node) in story(run).items()
    }
    assert run.preemptions == 0


def test_an_empty_workload_ends_at_once():
    run = simulate(Cluster(nodes("1 x 4cpu,16Gi").nodes), Workload())
    assert (run.horizon_s, run.summary()["tasks"]) == (0, 0)
    assert export.html([run])
