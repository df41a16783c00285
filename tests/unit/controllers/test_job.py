"""A Job counts every ended pod once, tries again with patience, and says how it ended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.controllers.cluster import Cluster, cluster_story

from korch.api.conditions import get_condition
from korch.api.errors import NotFound
from korch.api.gvk import JOBS, PODS
from korch.controllers.job import indexed_pod
from korch.controllers.workload import job_state
from korch.controllers.workload.indexes import format_indexes, parse_indexes
from korch.controllers.workload.job_state import INDEX, INDEX_FAILURES, TRACKING
from korch.runtime.clock import rfc3339

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("indexes", "text"), [([], ""), ([3], "3"), ([1, 2], "1,2"), ([0, 1, 2, 5, 7, 8], "0-2,5,7,8"), (range(100), "0-99")]
)
def test_indexes_have_a_short_text(indexes: list[int], text: str) -> None:
    assert format_indexes(indexes) == text
    assert parse_indexes(text, 100) == set(indexes)


def test_indexes_beyond_the_completions_are_not_read() -> None:
    assert parse_indexes("0,4-9,x", 6) == {0, 4, 5}


def job(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "j", "namespace": "d", "uid": "j"},
        "spec": {"parallelism": 2, "backoffLimit": 6, "podReplacementPolicy": "TerminatingOrFailed", "template": {"spec": {}}, **spec},
    }


def pod(name: str, phase: str, *, index: int | None = None, tracked: bool = True, ended_s: float = 5, code: int = 0, **meta: Any) -> Any:
    annotations = {INDEX: str(index)} if index is not None else {}
    if (failures := meta.pop("failures", None)) is not None:
        annotations[INDEX_FAILURES] = str(failures)
    conditions = meta.pop("conditions", [])
    ended = {"exitCode": code, "finishedAt": rfc3339(NOW - ended_s)}
    containers = [{"name": "c", "state": {"terminated": ended}}] if phase in ("Succeeded", "Failed") else []
    return {
        "metadata": {
            "name": name,
            "namespace": "d",
            "uid": name,
            "annotations": annotations,
            "finalizers": [TRACKING] if tracked else [],
            **meta,
        },
        "spec": {},
        "status": {"phase": phase, "containerStatuses": containers, "conditions": conditions},
    }


def test_a_pod_is_counted_when_its_finalizer_is_gone() -> None:
    status = {"succeeded": 1, "failed": 2, "uncountedTerminatedPods": {"succeeded": ["a", "b"], "failed": ["c"]}}
    settled = job_state.settle(status, [pod("a", "Succeeded"), pod("b", "Succeeded", tracked=False)])
    assert settled == {"succeeded": 2, "failed": 3, "uncountedTerminatedPods": {"succeeded": ["a"]}}


def test_what_is_uncounted_is_not_new_and_counts_already() -> None:
    status = {"uncountedTerminatedPods": {"succeeded": ["a"]}}
    state = job_state.assess(job(completions=3), status, [pod("a", "Succeeded"), pod("b", "Succeeded"), pod("c", "Running")])
    assert ([one["metadata"]["name"] for one in state.new_succeeded], state.succeeded, len(state.active)) == (["b"], 2, 1)
    planned = job_state.plan_status(state, job_state.settle(status, state.pods), job_state.releasable(state, is_ending=False))
    assert planned["uncountedTerminatedPods"] == {"succeeded": ["a", "b"]}
    assert (planned["active"], planned["ready"], planned["terminating"]) == (1, 0, 0)


@pytest.mark.parametrize(
    ("spec", "pods", "reason"),
    [
        pytest.param({"completions": 2}, [pod("a", "Succeeded")], None, id="one missing"),
        pytest.param({"completions": 2}, [pod("a", "Succeeded"), pod("b", "Succeeded")], "CompletionsReached", id="enough"),
        pytest.param({}, [pod("a", "Succeeded"), pod("b", "Running")], None, id="a work queue waits for the rest"),
        pytest.param({}, [pod("a", "Succeeded")], "CompletionsReached", id="a work queue is empty"),
        pytest.param({"backoffLimit": 1}, [pod("a", "Failed")], None, id="one failure is allowed"),
        pytest.param({"backoffLimit": 0}, [pod("a", "Failed")], "BackoffLimitExceeded", id="none is allowed"),
        pytest.param({"activeDeadlineSeconds": 10}, [], "DeadlineExceeded", id="too late"),
        pytest.param({"activeDeadlineSeconds": 60}, [], None, id="in time"),
        pytest.param(
            {"podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]}},
            [pod("a", "Failed", code=42)],
            "PodFailurePolicy",
            id="an exit code that ends all",
        ),
        pytest.param(
            {"backoffLimit": 0, "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}},
            [pod("a", "Failed", conditions=[{"type": "DisruptionTarget", "status": "True"}])],
            None,
            id="a disruption that does not count",
        ),
        pytest.param(
            {"completionMode": "Indexed", "completions": 3, "backoffLimitPerIndex": 0, "maxFailedIndexes": 0},
            [pod("a", "Failed", index=1)],
            "MaxFailedIndexesExceeded",
            id="too many failed indexes",
        ),
        pytest.param(
            {"completionMode": "Indexed", "completions": 2, "backoffLimitPerIndex": 0},
            [pod("a", "Failed", index=1), pod("b", "Succeeded", index=0)],
            "FailedIndexes",
            id="every index ended, one badly",
        ),
        pytest.param(
            {"completionMode": "Indexed", "completions": 5, "successPolicy": {"rules": [{"succeededIndexes": "2-4", "succeededCount": 1}]}},
            [pod("a", "Succeeded", index=3)],
            "SuccessPolicy",
            id="a success rule",
        ),
    ],
)
def test_how_a_job_ends(spec: dict[str, Any], pods: list[Any], reason: str | None) -> None:
    status = {"startTime": rfc3339(NOW - 20)}
    verdict = job_state.judge(job_state.assess(job(**spec), status, pods), status, NOW)
    assert (verdict.reason if verdict else None) == reason


def test_the_message_of_a_failure_rule_names_container_code_and_rule() -> None:
    subject = job(podFailurePolicy={"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]})
    assert job_state.failure_action(subject, pod("a", "Failed", code=42)) == (
        "FailJob",
        "Container c for pod d/a failed with exit code 42 matching FailJob rule at index 0",
    )


def test_free_indexes_are_the_lowest_without_a_pod() -> None:
    pods = [pod("a", "Running", index=0), pod("b", "Succeeded", index=1), pod("c", "Failed", index=2)]
    state = job_state.assess(job(completionMode="Indexed", completions=6), {"completedIndexes": "4"}, pods)
    assert job_state.free_indexes(state, 2) == [2, 3]
    double = job_state.assess(
        job(completionMode="Indexed", completions=6), {}, [pod("a", "Running", index=0), pod("b", "Running", index=0)]
    )
    assert [one["metadata"]["name"] for one in job_state.surplus_indexed(double)] == ["b"]


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        ([], 0),
        ([pod("a", "Failed", ended_s=4)], 6),
        ([pod("a", "Failed", ended_s=40), pod("b", "Failed", ended_s=4)], 16),
        ([pod("a", "Failed", ended_s=40), pod("b", "Succeeded", ended_s=10), pod("c", "Failed", ended_s=4)], 6),
        ([pod("a", "Failed", ended_s=40)], 0),
    ],
)
def test_after_failures_a_job_waits_longer_and_longer(pods: list[Any], expected: float) -> None:
    assert job_state.backoff_s(job_state.assess(job(), {}, pods), NOW) == expected


def test_a_failed_pod_of_an_index_waits_for_its_successor() -> None:
    spec = {"completionMode": "Indexed", "completions": 2, "backoffLimitPerIndex": 1}
    first = pod("a", "Failed", index=0, failures=0)
    state = job_state.assess(job(**spec), {}, [first])
    assert (job_state.releasable(state, is_ending=False), job_state.last_failures(state, 0)) == ([], 1)
    state = job_state.assess(job(**spec), {}, [first, pod("b", "Running", index=0, failures=1)])
    assert job_state.releasable(state, is_ending=False) == [first]
    state = job_state.assess(job(**spec), {}, [pod("b", "Failed", index=0, failures=1)])
    assert state.failed_indexes == {0}


def test_a_pod_of_an_indexed_job_learns_its_index() -> None:
    made = indexed_pod({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}}, "j", 3, 1)
    assert made["metadata"] == {
        "generateName": "j-3-",
        "labels": {"a": "b", INDEX: "3"},
        "annotations": {INDEX: "3", INDEX_FAILURES: "1"},
    }
    assert made["spec"]["hostname"] == "j-3"
    assert made["spec"]["containers"][0]["env"][0]["valueFrom"]["fieldRef"]["fieldPath"] == f"metadata.labels['{INDEX}']"


def work(name: str, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    template = {
        "metadata": {"annotations": annotations or {}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "work:1"}]},
    }
    return {"metadata": {"name": name}, "spec": {"template": template, **spec}}


async def ended(cluster: Cluster, name: str, condition: str, within_s: float = 600) -> dict[str, Any]:
    async def holds() -> Any:
        found = await cluster.get(JOBS, name)
        said = get_condition(found, condition)
        return found if said is not None and said["status"] == "True" else None

    return await cluster.until(holds, within_s)


async def no_finalizers(cluster: Cluster) -> bool:
    return not any(TRACKING in (one["metadata"].get("finalizers") or ()) for one in await cluster.all(PODS))


def test_a_job_runs_to_completion_and_goes_after_its_time() -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.make(JOBS, work("j", completions=5, parallelism=2, ttlSecondsAfterFinished=30))
        done = await ended(cluster, "j", "Complete")
        status = done["status"]
        assert (status["succeeded"], status.get("failed", 0), status["ready"], status["terminating"]) == (5, 0, 0, 0)
        assert status["startTime"] and status["completionTime"] and status.get("uncountedTerminatedPods", {}) == {}
        assert [one["type"] for one in status["conditions"]] == ["SuccessCriteriaMet", "Complete"]
        assert await no_finalizers(cluster) and len(await cluster.all(PODS)) == 5
        await asyncio.sleep(1)
        assert "Job completed" in await cluster.messages("Completed")
        version = (await cluster.get(JOBS, "j"))["metadata"]["resourceVersion"]
        await asyncio.sleep(20)
        assert (await cluster.get(JOBS, "j"))["metadata"]["resourceVersion"] == version
        await asyncio.sleep(30)
        with pytest.raises(NotFound):
            await cluster.get(JOBS, "j")
        assert await cluster.all(PODS) == []

    cluster_story(story)


def test_an_indexed_job_runs_every_index_once() -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.make(JOBS, work("j", completions=6, parallelism=3, completionMode="Indexed"))
        done = await ended(cluster, "j", "Complete")
        assert (done["status"]["succeeded"], done["status"]["completedIndexes"]) == (6, "0-5")
        hosts = sorted(one["spec"]["hostname"] for one in await cluster.all(PODS))
        assert hosts == [f"j-{number}" for number in range(6)]

    cluster_story(story)


def test_a_failing_job_backs_off_and_gives_up() -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.make(JOBS, work("j", {"korch.dev/sim-run-seconds": "1", "korch.dev/sim-exit-code": "3"}, backoffLimit=2))
        began = asyncio.get_running_loop().time()
        done = await ended(cluster, "j", "Failed")
        failed = get_condition(done, "Failed")
        assert (failed["reason"], failed["message"]) == ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
        assert get_condition(done, "FailureTarget")["reason"] == "BackoffLimitExceeded"
        assert (done["status"]["failed"], len(await cluster.all(PODS))) == (3, 3)
        assert asyncio.get_running_loop().time() - began > 30
        assert await no_finalizers(cluster)

    cluster_story(story)


def test_indexes_fail_on_their_own_account() -> None:
    async def story(cluster: Cluster) -> None:
        fails = {"korch.dev/sim-run-seconds": "1", "korch.dev/sim-exit-code": "3"}
        await cluster.make(JOBS, work("j", fails, completions=2, parallelism=2, completionMode="Indexed", backoffLimitPerIndex=1))
        done = await ended(cluster, "j", "Failed")
        assert get_condition(done, "Failed")["reason"] == "FailedIndexes"
        assert (done["status"]["failedIndexes"], done["status"]["failed"]) == ("0,1", 4)

    cluster_story(story)


def test_a_deadline_ends_running_pods() -> None:
    async def story(cluster: Cluster) -> None:
        body = work("j", {"korch.dev/sim-run-seconds": "3600"}, activeDeadlineSeconds=10, parallelism=2)
        body["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 2
        await cluster.make(JOBS, body)
        done = await ended(cluster, "j", "Failed")
        assert get_condition(done, "Failed")["reason"] == "DeadlineExceeded"
        assert done["status"].get("active", 0) == 0 and await no_finalizers(cluster)

    cluster_story(story)


def test_suspending_takes_the_pods_away_and_resuming_brings_new_ones() -> None:
    async def story(cluster: Cluster) -> None:
        body = work("j", {"korch.dev/sim-run-seconds": "3600"}, parallelism=2, completions=2)
        body["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 1
        await cluster.make(JOBS, body)

        async def running() -> bool:
            return len(await cluster.ready_pods()) == 2

        await cluster.until(running)
        await cluster.change(JOBS, "j", {"spec": {"suspend": True}})
        await asyncio.sleep(30)
        held = await cluster.get(JOBS, "j")
        assert await cluster.ready_pods() == [] and "startTime" not in held["status"]
        assert get_condition(held, "Suspended")["message"] == "Job suspended"
        await cluster.change(JOBS, "j", {"spec": {"suspend": False}})
        await cluster.until(running)
        assert get_condition(await cluster.get(JOBS, "j"), "Suspended")["status"] == "False"

    cluster_story(story)


@pytest.mark.parametrize("policy", ["Background", "Foreground", "Orphan"])
def test_no_pod_keeps_the_finalizer_of_a_deleted_job(policy: str) -> None:
    async def story(cluster: Cluster) -> None:
        body = work("j", {"korch.dev/sim-run-seconds": "3600"}, parallelism=2)
        body["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 1
        await cluster.make(JOBS, body)

        async def running() -> bool:
            return len(await cluster.ready_pods()) == 2

        await cluster.until(running)
        await cluster.delete(JOBS, "j", propagation_policy=policy)
        await asyncio.sleep(30)
        with pytest.raises(NotFound):
            await cluster.get(JOBS, "j")
        assert len(await cluster.all(PODS)) == (2 if policy == "Orphan" else 0)
        assert await no_finalizers(cluster)

    cluster_story(story)
