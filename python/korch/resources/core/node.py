"""Node: a machine that runs pods."""

from __future__ import annotations

from korch.api.conditions import get_condition
from korch.api.errors import Cause, duplicate, forbidden_field, invalid
from korch.api.meta import at, labels_of
from korch.api.names import is_label_value, is_qualified_name
from korch.api.validation import check_enum
from korch.resources.columns import AGE, NAME, NONE, UNKNOWN, cell, text
from korch.resources.resource import Object, Resource, Strategy
from korch.resources.subresources import STATUS, proxy

_ROLE_PREFIX = "node-role.kubernetes.io/"
_ROLE_LABEL = "kubernetes.io/role"


def _status(node: Object) -> str:
    ready = get_condition(node, "Ready")
    words = ["Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"]
    if at(node, "spec", "unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _roles(node: Object) -> str:
    labels = labels_of(node)
    roles = {label.removeprefix(_ROLE_PREFIX) for label in labels if label.startswith(_ROLE_PREFIX)} | {labels.get(_ROLE_LABEL) or ""}
    return ",".join(sorted(roles - {""})) or NONE


def _address(node: Object, address_type: str) -> str:
    for address in at(node, "status", "addresses") or ():
        if address.get("type") == address_type:
            return address.get("address") or NONE
    return NONE


def default(node: Object) -> None:
    """Fill in a Node, in place: what is not said to be reserved can be allocated. Mirrors SetDefaults_NodeStatus."""
    status = node.get("status") or {}
    if status.get("allocatable") is None and status.get("capacity"):
        status["allocatable"] = dict(status["capacity"])


_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def validate(node: Object) -> list[Cause]:
    """Return what is wrong with a Node."""
    causes: list[Cause] = []
    seen: set[tuple[str, str]] = set()
    for position, taint in enumerate(at(node, "spec", "taints") or ()):
        path, key, effect = f"spec.taints[{position}]", taint.get("key") or "", taint.get("effect") or ""
        causes += [invalid(f"{path}.key", key, why) for why in is_qualified_name(key)]
        causes += [invalid(f"{path}.value", taint["value"], why) for why in is_label_value(taint.get("value") or "")]
        check_enum(causes, effect, f"{path}.effect", _EFFECTS)
        if (key, effect) in seen:
            causes.append(duplicate(path, taint))
        seen.add((key, effect))
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update changes what is given to a node once."""
    causes: list[Cause] = []
    for field, shown in (("podCIDR", "podCIDRs"), ("providerID", "providerID")):
        had = at(old, "spec", field)
        if had and had != at(new, "spec", field):
            detail = f'node updates may not change {field} except from "" to valid'
            causes.append(forbidden_field(f"spec.{shown}", detail))
    return causes


RESOURCE = Resource(
    group="",
    version="v1",
    kind="Node",
    plural="nodes",
    singular="node",
    schema="io.k8s.api.core.v1.Node",
    short_names=("no",),
    namespaced=False,
    strategy=Strategy(default=default, validate=validate, validate_update=validate_update, has_status=True, keeps_status_on_create=True),
    subresources=(proxy("NodeProxyOptions"), STATUS),
    selectable_fields={"spec.unschedulable": lambda node: "true" if at(node, "spec", "unschedulable") else "false"},
    columns=(
        NAME,
        cell("Status", _status, description="Whether the node is ready and takes pods."),
        cell("Roles", _roles, description="Roles, from labels."),
        AGE,
        text("Version", "status", "nodeInfo", "kubeletVersion", description="Version of the node agent."),
        cell("Internal-IP", lambda node: _address(node, "InternalIP"), description="Address inside the cluster.", priority=1),
        cell("External-IP", lambda node: _address(node, "ExternalIP"), description="Address outside the cluster.", priority=1),
        text("OS-Image", "status", "nodeInfo", "osImage", description="Operating system.", priority=1, missing=UNKNOWN),
        text("Kernel-Version", "status", "nodeInfo", "kernelVersion", description="Kernel.", priority=1, missing=UNKNOWN),
        text(
            "Container-Runtime",
            "status",
            "nodeInfo",
            "containerRuntimeVersion",
            description="Container runtime with its version.",
            priority=1,
            missing=UNKNOWN,
        ),
    ),
)
