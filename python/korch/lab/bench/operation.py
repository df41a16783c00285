"""The operations of a workload, one Struct for each op code, with the fields that scheduler_perf gives them.

Counts, durations and the like may be left to a parameter of the workload (`countParam: $pods`); `resolved` puts the values in. Field
names are read without regard to case, as Go does. Mirrors scheduler_perf's operations.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast, get_args

import msgspec
import yaml

Stage = Literal["", "Scheduled", "Attempted"]
NAMED = "Param"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class OperationError(ValueError):
    """A field of an operation is wrong; `field` is its name in the file, "" for the operation as a whole."""

    def __init__(self, field_name: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field_name
        self.reason = reason


class Operation(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What all operations have in common."""

    opcode: str

    def check(self) -> None:
        """Raise OperationError when fields contradict each other. Counts are those of the file, or resolved."""


class VolumeNodeResources(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """How many volumes of one driver a node can attach."""

    count: int | None = None


class NodeAllocatable(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Strategy: add to what nodes can give, and make a CSINode for each."""

    node_allocatable: dict[str, str] = {}
    csi_node_allocatable: dict[str, VolumeNodeResources] = {}
    migrated_plugins: list[str] = []


class LabelNodes(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Strategy: a label whose values go round."""

    label_key: str
    label_values: list[str]


class UniqueLabel(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Strategy: a label with a value of its own for each node."""

    label_key: str


class CreateNodes(Operation, frozen=True, kw_only=True):
    """Make nodes, and then change each by at most one strategy."""

    count: int = 0
    count_param: str = ""
    node_template_path: str | None = None
    template_params: dict[str, Any] = {}
    node_allocatable_strategy: NodeAllocatable | None = None
    label_node_prepare_strategy: LabelNodes | None = None
    unique_node_label_strategy: UniqueLabel | None = None

    def check(self) -> None:
        _check_count("count", self.count)
        given = [self.node_allocatable_strategy, self.label_node_prepare_strategy, self.unique_node_label_strategy]
        if sum(one is not None for one in given) > 1:
            raise OperationError("", "at most one strategy may be given for nodes")
        labels = self.label_node_prepare_strategy
        if labels is not None and not labels.label_values:
            raise OperationError("labelNodePrepareStrategy", "labelValues must not be empty")


class CreateNamespaces(Operation, frozen=True, kw_only=True):
    """Make namespaces `PREFIX-0`, `PREFIX-1` and so on."""

    prefix: str = ""
    count: int = 0
    count_param: str = ""
    namespace_template_path: str | None = None

    def check(self) -> None:
        _check_count("count", self.count)


class CreatePods(Operation, frozen=True, kw_only=True):
    """Make pods, and wait until they are scheduled unless told otherwise."""

    count: int = 0
    count_param: str = ""
    count_multiplier_param: str = ""
    steady_state: bool = False
    steady_state_param: str = ""
    duration: str = ""
    duration_param: str = ""
    collect_metrics: bool = False
    namespace: str | None = None
    pod_template_path: str | None = None
    skip_wait_to_completion: bool = False
    persistent_volume_template_path: str | None = None
    persistent_volume_claim_template_path: str | None = None
    template_params: dict[str, Any] = {}
    signature_batch_size: int = 0
    signature_batch_size_param: str = ""

    def check(self) -> None:
        _check_count("count", self.count)
        _check_count("signatureBatchSize", self.signature_batch_size)
        if self.skip_wait_to_completion and self.collect_metrics:
            raise OperationError("", "collectMetrics and skipWaitToCompletion cannot be true at the same time")
        if self.skip_wait_to_completion and self.steady_state:
            raise OperationError("", "skipWaitToCompletion and steadyState cannot be true at the same time")
        if (self.persistent_volume_template_path is None) != (self.persistent_volume_claim_template_path is None):
            raise OperationError("", "a persistentVolumeTemplatePath goes with a persistentVolumeClaimTemplatePath")
        if self.duration:
            seconds("duration", self.duration)


class CreatePodSets(Operation, frozen=True, kw_only=True):
    """Do one createPods in each of the namespaces `PREFIX-0`, `PREFIX-1` and so on."""

    count: int = 0
    count_param: str = ""
    namespace_prefix: str = ""
    create_pods_op: CreatePods

    def check(self) -> None:
        _check_count("count", self.count)
        self.create_pods_op.check()


class DeletePods(Operation, frozen=True, kw_only=True):
    """Delete the pods of a namespace."""

    namespace: str = ""
    label_selector: dict[str, str] = {}
    skip_wait_to_completion: bool = False
    delete_pods_per_second: int = 0

    def check(self) -> None:
        _check_count("deletePodsPerSecond", self.delete_pods_per_second)


class Churn(Operation, frozen=True, kw_only=True):
    """Make objects, and with `recreate` delete them again, until the workload ends."""

    mode: str = ""
    number: int = 0
    interval_milliseconds: int = 0
    namespace: str | None = None
    template_paths: list[str] = []

    def check(self) -> None:
        if self.mode not in ("create", "recreate"):
            raise OperationError("mode", f"invalid mode: {self.mode}. must be one of [recreate create]")
        _check_count("number", self.number)
        if self.mode == "recreate" and self.number == 0:
            raise OperationError("number", "number cannot be 0 when mode is recreate")
        _check_count("intervalMilliseconds", self.interval_milliseconds)
        if not self.template_paths:
            raise OperationError("templatePaths", "at least one template spec file needs to be specified")


class Barrier(Operation, frozen=True, kw_only=True):
    """Wait for pods that were made with skipWaitToCompletion."""

    namespaces: list[str] = []
    label_selector: dict[str, str] = {}
    stage_requirement: str = ""

    def check(self) -> None:
        if self.stage_requirement not in get_args(Stage):
            raise OperationError("stageRequirement", f"invalid StageRequirement {self.stage_requirement}")


class Sleep(Operation, frozen=True, kw_only=True):
    """Let time pass."""

    duration: str = ""
    duration_param: str = ""

    def check(self) -> None:
        if self.duration:
            seconds("duration", self.duration)


class CreateAny(Operation, frozen=True, kw_only=True):
    """Make objects of any kind."""

    namespace: str = ""
    template_path: str = ""
    count: int | None = None
    count_param: str = ""
    template_params: dict[str, Any] = {}

    def check(self) -> None:
        _check_template(self.template_path)
        _check_count("count", self.count or 0)


class UpdateAny(Operation, frozen=True, kw_only=True):
    """Change objects of any kind, and their status."""

    namespace: str = ""
    template_path: str = ""
    count: int | None = None
    count_param: str = ""
    update_per_second: int = 0
    subresources: list[str] = []

    def check(self) -> None:
        _check_template(self.template_path)
        _check_count("count", self.count or 0)
        _check_count("updatePerSecond", self.update_per_second)


class CreatePodGroups(Operation, frozen=True, kw_only=True):
    """Make PodGroups."""

    namespace: str = ""
    template_path: str = ""
    template_params: dict[str, Any] = {}
    count: int = 0
    count_param: str = ""

    def check(self) -> None:
        _check_template(self.template_path)
        if not self.namespace:
            raise OperationError("namespace", "namespace must be set")
        _check_count("count", self.count)


class StartCollectingMetrics(Operation, frozen=True, kw_only=True):
    """Begin to measure pods of some namespaces."""

    name: str = ""
    namespaces: list[str] = []
    label_selector: dict[str, str] = {}

    def check(self) -> None:
        if not self.namespaces:
            raise OperationError("namespaces", "namespaces cannot be empty")


class StopCollectingMetrics(Operation, frozen=True, kw_only=True):
    """End what startCollectingMetrics began."""


class StartCollectingProfile(Operation, frozen=True, kw_only=True):
    """Begin a CPU profile."""

    type: str = ""
    file_path: str = ""

    def check(self) -> None:
        if not self.file_path:
            raise OperationError("filePath", "filePath cannot be empty")
        _check_profile(self.type)


class StopCollectingProfile(Operation, frozen=True, kw_only=True):
    """End and write a CPU profile."""

    type: str = ""

    def check(self) -> None:
        _check_profile(self.type)


class CreateResourceClaims(Operation, frozen=True, kw_only=True):
    """Make ResourceClaims."""

    namespace: str = ""
    template_path: str = ""
    count: int = 0
    count_param: str = ""

    def check(self) -> None:
        _check_template(self.template_path)
        _check_count("count", self.count)


class AllocResourceClaims(Operation, frozen=True, kw_only=True):
    """Allocate the ResourceClaims of a namespace, without pods."""

    namespace: str = ""


OPERATIONS: Mapping[str, type[Operation]] = {
    "allocResourceClaims": AllocResourceClaims,
    "barrier": Barrier,
    "churn": Churn,
    "createAny": CreateAny,
    "createNamespaces": CreateNamespaces,
    "createNodes": CreateNodes,
    "createPodGroups": CreatePodGroups,
    "createPodSets": CreatePodSets,
    "createPods": CreatePods,
    "createResourceClaims": CreateResourceClaims,
    "deletePods": DeletePods,
    "sleep": Sleep,
    "startCollectingMetrics": StartCollectingMetrics,
    "startCollectingProfile": StartCollectingProfile,
    "stopCollectingMetrics": StopCollectingMetrics,
    "stopCollectingProfile": StopCollectingProfile,
    "updateAny": UpdateAny,
}


@dataclass(slots=True)
class Parameters:
    """A workload's parameters, and which of them were asked for."""

    values: dict[str, Any]
    used: set[str] = field(default_factory=set)

    def get(self, name: str, field_name: str, kind: type[Any] | tuple[type[Any], ...]) -> Any:
        """Return a parameter of this type. `field_name` is the field that names it. Raises OperationError."""
        self.used.add(name)
        if name not in self.values:
            raise OperationError(field_name, f"parameter {name} is undefined")
        value = self.values[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise OperationError(field_name, f"parameter {name} has the wrong type {type(value).__name__}")
        return value

    def unused(self) -> list[str]:
        """Return the names that nothing has asked for."""
        return [one for one in self.values if one not in self.used]


def decode(value: Any) -> Operation:
    """Return the operation that a decoded YAML mapping stands for. Raises OperationError."""
    if not isinstance(value, dict):
        raise OperationError("", "an operation must be a mapping")
    opcode = next((one for name, one in value.items() if name.lower() == "opcode"), "")
    kind = OPERATIONS.get(opcode)
    if kind is None:
        raise OperationError("opcode", f"unknown opcode {opcode!r}")
    operation = to_struct(value, kind)
    _check_references(operation)
    operation.check()
    return operation


S = TypeVar("S", bound=msgspec.Struct)


def to_struct(value: Any, kind: type[S]) -> S:
    """Return `value` as a Struct, field names in any case. Raises OperationError that names the field."""
    try:
        return msgspec.convert(_exact(value, kind), kind)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$")
        name = where.strip("`").lstrip(".").partition(".")[0].partition("[")[0]
        raise OperationError(name, reason) from error


def _exact(value: Any, kind: type[msgspec.Struct]) -> Any:
    """Return a mapping with the field names that the Struct has, here and in Structs within it."""
    if not isinstance(value, dict):
        return value
    names = {one.encode_name.lower(): one for one in msgspec.structs.fields(kind)}
    exact: dict[str, Any] = {}
    for given, inner in value.items():
        known = names.get(given.lower())
        nested = next((one for one in (*get_args(known.type), known.type) if _is_struct(one)), None) if known is not None else None
        # Null is an absent field, as in Go.
        if known is None or inner is not None:
            exact[known.encode_name if known is not None else given] = _exact(inner, nested) if nested is not None else inner
    return exact


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def resolved(operation: Operation, parameters: Parameters) -> Operation:
    """Return the operation with the workload's parameters in their places. Raises OperationError."""
    changes: dict[str, Any] = {}
    for one in msgspec.structs.fields(type(operation)):
        reference = getattr(operation, one.name)
        if not one.encode_name.endswith(NAMED) or not reference or one.name == "count_multiplier_param":
            continue
        target = one.name.removesuffix("_param")
        kind: type[Any] | tuple[type[Any], ...] = (int, float)
        if target in ("duration", "steady_state"):
            kind = str if target == "duration" else bool
        value = parameters.get(reference[1:], one.encode_name, kind)
        changes[target] = int(value) if kind == (int, float) else value
    if isinstance(operation, CreatePods) and operation.count_multiplier_param:
        factor = parameters.get(operation.count_multiplier_param[1:], "countMultiplierParam", (int, float))
        changes["count"] = changes.get("count", operation.count) * int(factor)
    if getattr(operation, "template_params", None):
        changes["template_params"] = _template_params(cast(Any, operation).template_params, parameters)
    made = msgspec.structs.replace(operation, **changes)
    made.check()
    if isinstance(made, CreatePods) and made.steady_state and seconds("duration", made.duration or "0s") <= 0:
        raise OperationError("", "when creating pods in a steady state, the test duration must be > 0")
    if isinstance(made, CreatePodGroups) and made.count < 1:
        raise OperationError("count", f"count must be greater than 0, got {made.count}")
    return made


def seconds(field_name: str, text: str) -> float:
    """Return a Go duration in seconds. Raises OperationError."""
    if text != "0" and not re.fullmatch(f"(?:{_DURATION.pattern})+", text):
        raise OperationError(field_name, f"time: invalid duration {text!r}")
    return sum(float(amount) * _UNITS_S[unit] for amount, unit in _DURATION.findall(text))


def _template_params(given: Mapping[str, Any], parameters: Parameters) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in given.items():
        if not (isinstance(value, str) and value.startswith("$")):
            found[name] = value
            continue
        reference, bar, default = value[1:].partition("|")
        parameters.used.add(reference)
        if reference in parameters.values:
            found[name] = parameters.values[reference]
        elif bar:
            found[name] = yaml.safe_load(default)
        else:
            raise OperationError("templateParams", f"parameter {reference!r} not found")
    return found


def _check_references(operation: Operation) -> None:
    for one in msgspec.structs.fields(type(operation)):
        value = getattr(operation, one.name)
        if one.encode_name.endswith(NAMED) and value and not (isinstance(value, str) and value.startswith("$")):
            raise OperationError(one.encode_name, f"invalid {one.encode_name}={value!r}: it must be the name of a parameter after a $")


def _check_count(field_name: str, count: int) -> None:
    if count < 0:
        raise OperationError(field_name, f"invalid {field_name}={count}; should be non-negative")


def _check_template(path: str) -> None:
    if not path:
        raise OperationError("templatePath", "templatePath must be set")


def _check_profile(kind: str) -> None:
    if kind.upper() != "CPU":
        raise OperationError("type", f"only CPU profile type is supported, got {kind!r}")
