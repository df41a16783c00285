"""One workload, ready to be played: parameters in their places, sets of pods unrolled, every template read and tried.

Whatever can be found wrong without a cluster is found here, before anything runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from korch.lab.bench.configuration import Step, Workload
from korch.lab.bench.manifest import Manifest, Object, check_object, read_manifest
from korch.lab.bench.operation import (
    AllocResourceClaims,
    Churn,
    CreateAny,
    CreateNamespaces,
    CreateNodes,
    CreatePodGroups,
    CreatePods,
    CreatePodSets,
    CreateResourceClaims,
    Operation,
    OperationError,
    Parameters,
    StartCollectingMetrics,
    StopCollectingMetrics,
    UpdateAny,
    resolved,
)
from korch.lab.bench.source import ConfigError
from korch.scheduler.config import read_config

BASE_NODE = Path(__file__).parent / "templates" / "node.yaml"
BASE_POD = Path(__file__).parent / "templates" / "pod.yaml"
_NO_DRA = "devices of ResourceClaims are not allocated: the scheduler has no plugin DynamicResources"
_NO_GANGS = "pods of a gang are not scheduled as one: the scheduler has no plugin GangScheduling"


@dataclass(frozen=True, slots=True)
class Act:
    """An operation with its number, its namespace and the templates that it names (by field, `object` for the main one)."""

    operation: Operation
    index: int
    namespace: str
    templates: Mapping[str, Manifest] = field(default_factory=dict)
    many: Sequence[Manifest] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will be done. `unsupported` says why it would be measured wrongly or never end, "" when it is fine."""

    workload: Workload
    acts: Sequence[Act]
    scheduler_config: bytes | None
    unsupported: str = ""
    warnings: Sequence[str] = ()

    @property
    def name(self) -> str:
        return self.workload.full_name

    @property
    def pods(self) -> int:
        """Return how many pods the operations make in all."""
        return sum(one.operation.count for one in self.acts if isinstance(one.operation, CreatePods))


def make_plan(workload: Workload) -> Plan:
    """Resolve and check everything about a workload. Raises ConfigError with file, line and reason. Blocks."""
    parameters = Parameters(dict(workload.params))
    planner = _Planner(workload, parameters)
    for step in workload.steps:
        planner.add(step)
    planner.finish()
    config = _scheduler_config(workload)
    unused = parameters.unused()
    warnings = [f"{workload.full_name}: the parameters {unused} are not used"] if unused else []
    return Plan(workload=workload, acts=planner.acts, scheduler_config=config, unsupported=planner.unsupported, warnings=warnings)


@dataclass(slots=True)
class _Planner:
    workload: Workload
    parameters: Parameters
    acts: list[Act] = field(default_factory=list)
    unsupported: str = ""
    collecting: Step | None = None

    def add(self, step: Step) -> None:
        operation = self._resolved(step, step.operation)
        if isinstance(operation, CreatePodSets):
            for number in range(operation.count):
                pods = msgspec.structs.replace(operation.create_pods_op, namespace=f"{operation.namespace_prefix}-{number}")
                self._append(step, self._resolved(Step(pods, (*step.address, "createPodsOp")), pods))
        else:
            self._append(step, operation)

    def finish(self) -> None:
        """Raise ConfigError when metrics are still being collected."""
        if self.collecting is not None:
            raise self.workload.error(self.collecting.address, "startCollectingMetrics without stopCollectingMetrics")

    def _resolved(self, step: Step, operation: Operation) -> Operation:
        try:
            return resolved(operation, self.parameters)
        except OperationError as error:
            raise self.workload.error((*step.address, error.field) if error.field else step.address, error.reason) from error

    def _append(self, step: Step, operation: Operation) -> None:
        index = len(self.acts)
        given = getattr(operation, "namespace", None)
        namespace = f"namespace-{index}" if given is None else given
        self._follow_metrics(step, operation)
        act = Act(operation, index, namespace)
        if isinstance(operation, CreateNodes):
            act = self._with(act, step, "nodeTemplatePath", operation.node_template_path, "Node", operation.count, default=BASE_NODE)
        elif isinstance(operation, CreateNamespaces) and operation.namespace_template_path is not None:
            act = self._with(act, step, "namespaceTemplatePath", operation.namespace_template_path, "Namespace", operation.count)
        elif isinstance(operation, CreatePods):
            act = self._with_pods(act, step, operation)
        elif isinstance(operation, CreateAny | UpdateAny | CreatePodGroups | CreateResourceClaims):
            kind = "PodGroup" if isinstance(operation, CreatePodGroups) else ""
            act = self._with(act, step, "templatePath", operation.template_path, kind, operation.count or 1)
        elif isinstance(operation, Churn):
            act = replace(act, many=[self._read(step, ("templatePaths", at), one, {}) for at, one in enumerate(operation.template_paths)])
            for one in act.many:
                check_object(one, 1)
        if isinstance(operation, AllocResourceClaims | CreateResourceClaims):
            self.unsupported = self.unsupported or _NO_DRA
        self.acts.append(act)

    def _follow_metrics(self, step: Step, operation: Operation) -> None:
        begins = isinstance(operation, StartCollectingMetrics)
        if self.collecting is not None and (begins or (isinstance(operation, CreatePods) and operation.collect_metrics)):
            raise self.workload.error(
                step.address, "metrics collection is overlapping: a collector is started before the previous is stopped"
            )
        if begins:
            self.collecting = step
        if isinstance(operation, StopCollectingMetrics):
            if self.collecting is None:
                raise self.workload.error(step.address, "missing startCollectingMetrics operation before stopping")
            self.collecting = None

    def _with_pods(self, act: Act, step: Step, operation: CreatePods) -> Act:
        act = self._with(act, step, "podTemplatePath", operation.pod_template_path, "Pod", operation.count, default=BASE_POD)
        volume, claim = operation.persistent_volume_template_path, operation.persistent_volume_claim_template_path
        if volume is not None and claim is not None:
            act = self._with(act, step, "persistentVolumeTemplatePath", volume, "PersistentVolume", operation.count, name="volume")
            act = self._with(act, step, "persistentVolumeClaimTemplatePath", claim, "PersistentVolumeClaim", operation.count, name="claim")
        return act

    def _with(
        self,
        act: Act,
        step: Step,
        field_name: str,
        path: str | None,
        kind: str,
        count: int,
        *,
        default: Path | None = None,
        name: str = "object",
    ) -> Act:
        params = getattr(act.operation, "template_params", {})
        if path is None and kind == "Pod" and self.workload.default_pod_template_path is not None:
            at = (*self.workload.case_address, "defaultPodTemplatePath")
            manifest = self._read(step, (), self.workload.default_pod_template_path, params, at=at)
        elif path is None and default is not None:
            manifest = read_manifest(default, params)
        else:
            manifest = self._read(step, (field_name,), path or "", params)
        found = check_object(manifest, max(1, count), kind)
        self.unsupported = self.unsupported or _unsupported(found)
        return replace(act, templates={**act.templates, name: manifest})

    def _read(self, step: Step, where: tuple[str | int, ...], path: str, params: Mapping[str, Any], *, at: Any = None) -> Manifest:
        full = self.workload.document.path.parent / path
        if not full.is_file():
            raise self.workload.error(at or (*step.address, *where), f"template file {path} does not exist")
        return read_manifest(full, params)


def _unsupported(found: Object) -> str:
    kind, spec = found.get("kind"), found.get("spec") or {}
    if kind in ("DeviceClass", "ResourceClaim", "ResourceClaimTemplate", "DeviceTaintRule") or spec.get("resourceClaims"):
        return _NO_DRA
    policy = spec.get("schedulingPolicy") or {}
    if kind == "PodGroup" and "gang" in policy:
        return _NO_GANGS
    return ""


def _scheduler_config(workload: Workload) -> bytes | None:
    if not workload.scheduler_config_path:
        return None
    at = (*workload.case_address, "schedulerConfigPath")
    path = workload.document.path.parent / workload.scheduler_config_path
    if not path.is_file():
        raise workload.error(at, f"scheduler configuration {workload.scheduler_config_path} does not exist")
    try:
        return read_config(path)
    except ValueError as error:
        raise ConfigError(path, 1, str(error).removeprefix(f"{path}: ")) from error
