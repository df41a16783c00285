"""The next steps of a pod, as a table: what is seen, and what is done about it."""

from __future__ import annotations

from typing import Any

import pytest

from korch_agent.cri.protocol import ContainerStatus, Sandbox
from korch_agent.pods.observed import CONTAINER_HASH, CONTAINER_RESOURCES, RESTART_COUNT, Crash, Observed, Probed, Waiting, container_hash
from korch_agent.pods.plan import (
    Finish,
    KillContainer,
    MountVolumes,
    RemoveContainer,
    RemoveSandbox,
    ResizeContainer,
    RunSandbox,
    StartContainer,
    StopSandbox,
    plan,
)

NOW = 1000.0
C = {"name": "c", "image": "app:1"}
INIT = {"name": "i", "image": "app:1"}
SIDECAR = {"name": "s", "image": "app:1", "restartPolicy": "Always"}


def pod(*, deleting: int | None = None, **spec: Any) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": "p", "namespace": "d", "uid": "u"}
    if deleting is not None:
        meta |= {"deletionTimestamp": "2027-01-01T00:00:00Z", "deletionGracePeriodSeconds": deleting}
    return {"metadata": meta, "spec": {"containers": [C], "restartPolicy": "Always", "terminationGracePeriodSeconds": 30} | spec}


def sandbox(number: int = 0, *, ready: bool = True) -> Sandbox:
    return Sandbox(id=f"sb{number}", name="p", namespace="d", uid="u", attempt=number, is_ready=ready, created_at=number)


def status(name: str = "c", state: Any = "running", *, code: int = 0, number: int = 0, where: str = "sb0", ended: float = NOW, **more: Any):
    return ContainerStatus(
        id=f"{name}{number}", sandbox_id=where, name=name, attempt=number, state=state, exit_code=code,
        created_at=number, started_at=1, finished_at=int(ended * 1e9) if state == "exited" else 0,
        annotations={RESTART_COUNT: str(number), CONTAINER_HASH: container_hash(C | {"name": name})} | more,
    )  # fmt: skip


def seen(*containers: ContainerStatus, sandboxes: tuple[Sandbox, ...] = (sandbox(),), **more: Any) -> Observed:
    by_name: dict[str, list[ContainerStatus]] = {}
    for one in containers:
        by_name.setdefault(one.name, []).append(one)
    return Observed(
        sandboxes=sandboxes, containers={name: tuple(found) for name, found in by_name.items()}, **({"volumes_ready": True} | more)
    )


EXITED = status(state="exited", code=1)
TWO_CPUS = C | {"resources": {"limits": {"cpu": "2"}}}
ONE_CPU = '{"limits":{"cpu":"1"}}'
RULE = {"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}
START = StartContainer("c", "app", 0)
RESTART = StartContainer("c", "app", 1, "c0")
TABLE = {
    "volumes come first": (pod(), seen(sandboxes=(), volumes_ready=False), [MountVolumes()]),
    "volumes that failed wait": (pod(), seen(sandboxes=(), volumes_ready=False, volumes_retry_at=NOW + 1), []),
    "then the sandbox": (pod(), seen(sandboxes=()), [RunSandbox(0)]),
    "a sandbox that failed waits": (pod(), seen(sandboxes=(), sandbox_retry_at=NOW + 1), []),
    "then the containers": (pod(), seen(), [START]),
    "one that runs is left alone": (pod(), seen(status()), []),
    "one that could not start waits": (pod(), seen(waiting={"c": Waiting("ErrImagePull", "", NOW + 1)}), []),
    "init containers before it": (pod(initContainers=[INIT]), seen(), [StartContainer("i", "init", 0)]),
    "while one runs nothing else starts": (pod(initContainers=[INIT]), seen(status("i")), []),
    "after it the others": (pod(initContainers=[INIT]), seen(status("i", "exited")), [START]),
    "a failed one is tried again": (
        pod(initContainers=[INIT]), seen(status("i", "exited", code=1)), [StartContainer("i", "init", 1, "i0")],
    ),
    "a sidecar must have started": (
        pod(initContainers=[SIDECAR]), seen(status("s"), probed={"s0": Probed(started=False)}), [],
    ),
    "a started sidecar lets the others start": (pod(initContainers=[SIDECAR]), seen(status("s")), [START]),
    "a dead sidecar is restarted beside the others": (
        pod(initContainers=[SIDECAR]), seen(status("s", "exited"), status()), [StartContainer("s", "init", 1, "s0")],
    ),
    "an ended one is restarted at once": (pod(), seen(EXITED), [RESTART]),
    "but later when it backs off": (pod(), seen(EXITED, crashes={"c": Crash(10, NOW)}), []),
    "and again after that": (pod(), seen(status(state="exited", ended=NOW - 11), crashes={"c": Crash(10, NOW - 20)}), [RESTART]),
    "rules for exit codes win over the policy": (
        pod(restartPolicy="Never", containers=[C | {"restartPolicyRules": [RULE]}]),
        seen(EXITED), [RESTART],
    ),
    "a failed liveness probe kills": (
        pod(), seen(status(), probed={"c0": Probed(live=False, kill_message="m", grace_s=3)}), [KillContainer("c0", "c", 3, "m")],
    ),
    "one that is being killed is not killed again": (pod(), seen(status(), probed={"c0": Probed(live=False)}, killing={"c0": 5.0}), []),
    "new resources are applied in place": (
        pod(containers=[TWO_CPUS]), seen(status(**{CONTAINER_RESOURCES: ONE_CPU})), [ResizeContainer("c0", "c")],
    ),
    "or by a restart where the policy says so": (
        pod(containers=[TWO_CPUS | {"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]}]),
        seen(status(**{CONTAINER_RESOURCES: ONE_CPU})), [KillContainer("c0", "c", 30, "Container c resize requires restart")],
    ),
    "a new image restarts": (
        pod(containers=[C | {"image": "app:2"}]), seen(status()),
        [KillContainer("c0", "c", 30, "Container c definition changed, will be restarted")],
    ),
    "a dead sandbox is replaced when nothing runs in it": (
        pod(), seen(EXITED, sandboxes=(sandbox(ready=False),)), [StopSandbox("sb0"), RunSandbox(1)],
    ),
    "what ran in the old sandbox runs again in the new": (
        pod(), seen(EXITED, sandboxes=(sandbox(1), sandbox(0, ready=False))), [RESTART],
    ),
    "but a job that has run does not": (
        pod(restartPolicy="OnFailure"), seen(status(state="exited"), sandboxes=(sandbox(1), sandbox(0, ready=False))),
        [StopSandbox("sb1"), Finish(False)],
    ),
    "one dead instance is kept": (
        pod(), seen(status(number=2), status(state="exited", number=1), status(state="exited")), [RemoveContainer("c0")],
    ),
    "a sandbox of the past without instances goes": (
        pod(), seen(status(where="sb1"), sandboxes=(sandbox(1), sandbox(0, ready=False))), [RemoveSandbox("sb0")],
    ),
    "a pod that is done loses its sandbox": (
        pod(restartPolicy="Never"), seen(status(state="exited")), [StopSandbox("sb0"), Finish(False)],
    ),
    "once": (pod(restartPolicy="Never"), seen(status(state="exited"), sandboxes=(sandbox(ready=False),), is_finished=True), []),
    "past its deadline it is stopped": (
        pod(activeDeadlineSeconds=5), seen(status(), started_at=NOW - 6), [KillContainer("c0", "c", 30, "Stopping container c")],
    ),
    "a deleted pod is stopped with its grace": (pod(deleting=7), seen(status()), [KillContainer("c0", "c", 7, "Stopping container c")]),
    "with less when asked again": (
        pod(deleting=7), seen(status(), killing={"c0": 20.0}), [KillContainer("c0", "c", 7, "Stopping container c")],
    ),
    "sidecars after the others": (
        pod(deleting=7, initContainers=[SIDECAR]), seen(status(), status("s"), killing={"c0": 5.0}), [],
    ),
    "then everything goes": (pod(deleting=7), seen(EXITED), [StopSandbox("sb0"), Finish(True)]),
    "also what never came to be": (pod(deleting=0), seen(sandboxes=()), [Finish(True)]),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_the_next_steps(case: str) -> None:
    wanted_pod, observed, actions = TABLE[case]
    assert list(plan(wanted_pod, observed, NOW).actions) == actions


@pytest.mark.parametrize(
    ("observed", "wake_at"),
    [
        (seen(EXITED, crashes={"c": Crash(40, NOW)}), NOW + 40),
        (seen(waiting={"c": Waiting("ErrImagePull", "", NOW + 3)}), NOW + 3),
        (seen(status()), None),
    ],
)
def test_a_plan_says_when_to_look_again(observed: Observed, wake_at: float | None) -> None:
    assert plan(pod(), observed, NOW).wake_at == wake_at
