"""A pod's life on a node, as its status tells it: the real kubelet over a fake runtime, on virtual time."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from tests.unit.agent.node_on_virtual_time import OneNode, condition, container, is_ready, on_one_node, state

from korch.api.gvk import CONFIG_MAPS, PODS
from korch.client.protocol import DeleteOptions


def test_a_pod_starts_and_reports_where_and_what_it_runs() -> None:
    async def story(node: OneNode) -> dict[str, Any]:
        await node.create()
        return await node.until(is_ready)

    pod = on_one_node(story)
    status = pod["status"]
    assert (status["phase"], status["hostIP"], status["podIP"], status["qosClass"]) == ("Running", "192.0.2.1", "10.244.0.1", "BestEffort")
    assert status["podIPs"] == [{"ip": "10.244.0.1"}] and status["hostIPs"] == [{"ip": "192.0.2.1"}]
    (one,) = status["containerStatuses"]
    assert (one["ready"], one["started"], one["restartCount"], one["image"]) == (True, True, 0, "docker.io/library/app:1")
    assert one["containerID"].startswith("containerd://") and "running" in one["state"]
    assert {one["type"]: (one["status"], one["observedGeneration"]) for one in status["conditions"]} == {
        "PodReadyToStartContainers": ("True", 1),
        "Initialized": ("True", 1),
        "Ready": ("True", 1),
        "ContainersReady": ("True", 1),
        "PodScheduled": ("True", 1),
    }


def test_the_events_of_a_start_are_those_of_the_kubelet() -> None:
    async def story(node: OneNode) -> list[str]:
        await node.create()
        await node.until(is_ready)
        return await node.reasons()

    assert on_one_node(story) == ["Pulled", "Created", "Started"]


@pytest.mark.parametrize(
    ("policy", "command", "phase", "restarts"),
    [
        ("Never", ("sh", "-c", "exit 0"), "Succeeded", False),
        ("Never", ("sh", "-c", "exit 2"), "Failed", False),
        ("OnFailure", ("sh", "-c", "exit 0"), "Succeeded", False),
        ("OnFailure", ("sh", "-c", "exit 2"), "Running", True),
        ("Always", ("sh", "-c", "exit 0"), "Running", True),
    ],
)
def test_what_a_pod_becomes_when_its_container_ends(policy: str, command: tuple[str, ...], phase: str, restarts: bool) -> None:
    async def story(node: OneNode) -> dict[str, Any]:
        await node.create(restartPolicy=policy, containers=[container("c", *command)])
        await asyncio.sleep(8)
        found = await node.pod()
        assert found is not None
        return found

    pod = on_one_node(story)
    assert pod["status"]["phase"] == phase
    (one,) = pod["status"]["containerStatuses"]
    assert (one["restartCount"] > 0) == restarts
    assert not is_ready(pod)
    if not restarts:
        assert one["state"]["terminated"]["exitCode"] == int(command[-1].split()[1])
        assert condition(pod, "Ready")["reason"] == ("PodCompleted" if phase == "Succeeded" else "PodFailed")
    else:
        assert one["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        assert one["state"]["waiting"]["message"].startswith("back-off 10s restarting failed container=c pod=p_d(")
        assert one["lastState"]["terminated"]["exitCode"] == int(command[-1].split()[1])


def test_restarts_back_off_from_10_seconds_doubling_to_300() -> None:
    async def story(node: OneNode) -> list[float]:
        await node.create(containers=[container("c", "false")])
        starts: list[float] = []
        seen = 0
        while len(starts) < 9:
            await asyncio.sleep(0.5)
            count = sum(1 for call in node.runtime.calls if call[0] == "start_container")
            if count > seen:
                starts.append(node.seams.clock.monotonic())
                seen = count
        return [round(later - earlier) for earlier, later in itertools.pairwise(starts)]

    # The first restart is immediate, so the first two starts fall into one look.
    assert on_one_node(story) == [pytest.approx(one, abs=1) for one in (10, 20, 40, 80, 160, 300, 300, 300)]


def test_init_containers_run_one_after_the_other_before_the_others() -> None:
    async def story(node: OneNode) -> tuple[dict[str, Any], list[str]]:
        await node.create(initContainers=[container("i1", "sleep", "5"), container("i2", "sleep", "5")])
        during = await node.until(lambda pod: "running" in state(pod, "i2", "initContainerStatuses"))
        await node.until(is_ready)
        return during, [what for call, what in node.runtime.calls if call == "create_container"]

    during, created = on_one_node(story)
    assert created == ["i1", "i2", "c"]
    assert during["status"]["phase"] == "Pending"
    assert condition(during, "Initialized")["message"] == "containers with incomplete status: [i2]"
    assert state(during)["waiting"]["reason"] == "PodInitializing"


def test_a_failed_init_container_fails_a_pod_that_never_restarts() -> None:
    async def story(node: OneNode) -> dict[str, Any]:
        await node.create(initContainers=[container("i", "false")], restartPolicy="Never")
        return await node.until(lambda pod: pod["status"]["phase"] == "Failed")

    pod = on_one_node(story)
    assert state(pod)["waiting"]["reason"] == "PodInitializing"
    assert state(pod, "i", "initContainerStatuses")["terminated"]["exitCode"] == 1


def test_a_sidecar_starts_first_stays_and_is_stopped_last() -> None:
    async def story(node: OneNode) -> tuple[list[str], str]:
        await node.create(
            restartPolicy="Never", initContainers=[container("s", restartPolicy="Always")], containers=[container("c", "sleep", "5")]
        )
        done = await node.until(lambda pod: pod["status"]["phase"] in ("Succeeded", "Failed"))
        return [what for call, what in node.runtime.calls if call == "create_container"], done["status"]["phase"]

    assert on_one_node(story) == (["s", "c"], "Succeeded")


def test_a_deleted_pod_is_stopped_and_its_object_removed_at_once() -> None:
    async def story(node: OneNode) -> tuple[float, list[str]]:
        await node.create()
        await node.until(is_ready)
        await node.delete()
        took = await node.gone()
        await asyncio.sleep(1)
        assert await node.runtime.list_sandboxes() == [] and await node.runtime.list_containers() == []
        return took, await node.reasons()

    took, reasons = on_one_node(story)
    assert took < 0.5
    assert reasons[-1] == "Killing"


@pytest.mark.parametrize("grace_s", [1, 7])
def test_a_container_that_ignores_the_stop_signal_gets_its_grace_and_no_more(grace_s: int) -> None:
    async def story(node: OneNode) -> float:
        await node.create()
        await node.until(is_ready)
        node.runtime.ignores_term.add("c")
        await node.delete(grace_s=grace_s)
        return await node.gone()

    assert on_one_node(story) == pytest.approx(grace_s, abs=0.5)


def test_a_hook_that_takes_the_whole_grace_leaves_two_seconds_to_stop_in() -> None:
    async def story(node: OneNode) -> float:
        hook = {"preStop": {"exec": {"command": ["sleep", "60"]}}}
        await node.create(containers=[container("c", lifecycle=hook)])
        await node.until(is_ready)
        node.runtime.ignores_term.add("c")
        await node.delete(grace_s=3)
        return await node.gone()

    assert on_one_node(story) == pytest.approx(5, abs=0.5)


def test_a_shorter_grace_period_is_acted_upon_while_the_longer_one_runs() -> None:
    async def story(node: OneNode) -> float:
        await node.create()
        await node.until(is_ready)
        node.runtime.ignores_term.add("c")
        await node.delete(grace_s=600)
        await asyncio.sleep(5)
        await node.delete(grace_s=4)
        return await node.gone()

    assert on_one_node(story) == pytest.approx(4, abs=0.5)


def test_a_pod_whose_object_vanished_is_taken_away() -> None:
    async def story(node: OneNode) -> None:
        await node.create()
        await node.until(is_ready)
        await node.client.delete(PODS, "p", namespace="d", options=DeleteOptions(grace_period_s=0))
        await asyncio.sleep(3)
        assert await node.runtime.list_sandboxes() == []

    on_one_node(story)


def test_restarting_the_agent_restarts_no_container_and_takes_no_pod_out_of_service() -> None:
    async def story(node: OneNode) -> None:
        probe = {"exec": {"command": ["true"]}, "periodSeconds": 5}
        await node.create(containers=[container("c", readinessProbe=probe, livenessProbe=probe)])
        before = await node.until(is_ready)
        await node.stop()
        await asyncio.sleep(30)
        node.start()
        await asyncio.sleep(30)
        after = await node.pod()
        assert after is not None
        assert after["status"] == before["status"]
        assert [call for call, _ in node.runtime.calls].count("start_container") == 1

    on_one_node(story)


def test_what_a_pod_left_behind_while_the_agent_was_down_is_taken_away() -> None:
    async def story(node: OneNode) -> None:
        await node.create()
        await node.until(is_ready)
        await node.stop()
        await node.client.delete(PODS, "p", namespace="d", options=DeleteOptions(grace_period_s=0))
        node.start()
        await asyncio.sleep(10)
        assert await node.runtime.list_sandboxes() == []

    on_one_node(story)


def test_readiness_follows_its_probe_and_liveness_restarts() -> None:
    async def story(node: OneNode) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
        fails = {"exec": {"command": ["false"]}, "periodSeconds": 2, "failureThreshold": 3}
        await node.create("unready", containers=[container("c", readinessProbe=fails)])
        await node.create("dying", containers=[container("c", livenessProbe=fails)])
        dying = await node.until(lambda pod: (pod["status"].get("containerStatuses") or [{}])[0].get("restartCount", 0) > 0, "dying")
        unready = await node.pod("unready")
        assert unready is not None
        return unready, dying, await node.reasons()

    unready, dying, reasons = on_one_node(story)
    assert "running" in state(unready) and not is_ready(unready)
    assert condition(unready, "Ready")["message"] == "containers with unready status: [c]"
    assert dying["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 143
    assert "Unhealthy" in reasons and "Killing" in reasons


def test_a_startup_probe_holds_the_others_back() -> None:
    async def story(node: OneNode) -> dict[str, Any]:
        startup = {"exec": {"command": ["false"]}, "periodSeconds": 5, "failureThreshold": 100}
        ready = {"exec": {"command": ["true"]}, "periodSeconds": 1}
        await node.create(containers=[container("c", startupProbe=startup, readinessProbe=ready)])
        await asyncio.sleep(20)
        found = await node.pod()
        assert found is not None
        return found

    (one,) = on_one_node(story)["status"]["containerStatuses"]
    assert (one["started"], one["ready"]) == (False, False)


@pytest.mark.parametrize(
    ("more", "reason", "message"),
    [
        ({"image": "absent:1", "imagePullPolicy": "Never"}, "ErrImageNeverPull", 'Container image "absent:1" is not present with pull'),
        ({"image": "absent:1"}, "ImagePullBackOff", 'Back-off pulling image "absent:1": ErrImagePull: failed to pull'),
        ({"image": "BAD//"}, "InvalidImageName", 'Failed to apply default image tag "BAD//"'),
        (
            {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "gone", "key": "k"}}}]},
            "CreateContainerConfigError",
            'configmap "gone" not found',
        ),
        (
            {"securityContext": {"runAsNonRoot": True}},
            "CreateContainerConfigError",
            "container has runAsNonRoot and image will run as root",
        ),
    ],
)
def test_why_a_container_cannot_start_is_said_in_the_kubelets_words(more: dict[str, Any], reason: str, message: str) -> None:
    async def story(node: OneNode) -> dict[str, Any]:
        await node.create(containers=[container("c", **more)])
        return await node.until(lambda pod: state(pod).get("waiting", {}).get("reason") == reason)

    pod = on_one_node(story)
    assert pod["status"]["phase"] == "Pending"
    assert state(pod)["waiting"]["message"].startswith(message)


def test_an_image_is_pulled_when_it_comes_into_being_later() -> None:
    async def story(node: OneNode) -> list[str]:
        await node.create(containers=[container("c", image="late:1")])
        await node.until(lambda pod: state(pod).get("waiting", {}).get("reason") == "ImagePullBackOff")
        node.runtime.add_image("docker.io/library/late:1", present=False)
        await node.until(is_ready, within_s=120)
        return await node.reasons()

    assert {"Pulling", "Pulled", "Failed", "BackOff"} <= set(on_one_node(story))


def test_a_missing_config_map_keeps_the_pod_pending_until_it_exists() -> None:
    async def story(node: OneNode) -> list[str]:
        volume = {"name": "v", "configMap": {"name": "later"}}
        mount = [{"name": "v", "mountPath": "/v"}]
        await node.create(volumes=[volume], containers=[container("c", volumeMounts=mount)])
        pending = await node.until(lambda pod: pod["status"].get("conditions"))
        assert pending["status"]["phase"] == "Pending"
        assert state(pending)["waiting"]["reason"] == "ContainerCreating"
        await asyncio.sleep(20)
        await node.put(CONFIG_MAPS, "later", data={"k": "v"})
        await node.until(is_ready, within_s=5)
        return await node.reasons()

    assert "FailedMount" in on_one_node(story)


def test_a_pod_that_outlives_its_deadline_fails() -> None:
    async def story(node: OneNode) -> dict[str, Any]:
        await node.create(activeDeadlineSeconds=10)
        return await node.until(lambda pod: pod["status"]["phase"] == "Failed")

    status = on_one_node(story)["status"]
    assert (status["reason"], status["message"]) == ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")


def test_a_sandbox_that_dies_is_replaced_and_its_containers_restarted() -> None:
    async def story(node: OneNode) -> dict[str, Any]:
        await node.create()
        await node.until(is_ready)
        (sandbox,) = await node.runtime.list_sandboxes()
        node.runtime.lose_sandbox(sandbox.id)
        return await node.until(lambda pod: is_ready(pod) and pod["status"]["containerStatuses"][0]["restartCount"] == 1)

    assert on_one_node(story)["status"]["podIPs"] == [{"ip": "10.244.0.2"}]


@pytest.mark.parametrize("seed", range(20))
def test_pods_come_and_go_whatever_the_runtime_does(seed: int) -> None:
    async def story(node: OneNode) -> None:
        node.runtime.delay_s, node.runtime.fault_rate = 0.5, 0.1
        names = [f"p{number}" for number in range(8)]
        for name in names:
            await node.create(name)
        for name in names:
            await node.until(is_ready, name, within_s=300)
        node.runtime.exit("c", 1)
        for name in names:
            await node.delete(name)
        for name in names:
            await node.gone(name, within_s=300)
        node.runtime.fault_rate = 0.0
        await asyncio.sleep(20)
        assert await node.runtime.list_sandboxes() == []

    on_one_node(story, seed=seed)
