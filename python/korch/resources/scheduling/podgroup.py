"""PodGroup: pods that are scheduled together. Served when the gate GenericWorkload and the version are switched on."""

from __future__ import annotations

from korch.api import names
from korch.api.errors import Cause, invalid, required
from korch.api.meta import at
from korch.api.validation import check_immutable
from korch.resources.columns import AGE, NAME, NONE, cell
from korch.resources.podspec.defaults import fill
from korch.resources.resource import Context, Object, Resource, Strategy
from korch.resources.scheduling.group_rules import check_group, check_group_update, drop_gated
from korch.resources.subresources import STATUS

INITIALLY_SCHEDULED = "PodGroupInitiallyScheduled"
DISRUPTION_TARGET = "DisruptionTarget"


def default(obj: Object) -> None:
    """Fill in a PodGroup, in place: its pods may be disrupted one by one."""
    fill(fill(obj, "spec", {}), "disruptionMode", {"single": {}})


def prepare_create(obj: Object, _context: Context) -> None:
    """Drop what belongs to gates that do not exist here."""
    drop_gated(obj["spec"])


def prepare_update(new: Object, _old: Object, _context: Context) -> None:
    """Drop what belongs to gates that do not exist here."""
    drop_gated(new["spec"])


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a new PodGroup. Mirrors ValidatePodGroup and the declarative rules."""
    causes: list[Cause] = []
    reference = at(obj, "spec", "workloadRef")
    if reference is not None:
        for field, check in (("workloadName", names.is_dns_subdomain), ("templateName", names.is_dns_label)):
            name = reference.get(field) or ""
            if not name:
                causes.append(required(f"spec.workloadRef.{field}"))
            else:
                causes += [invalid(f"spec.workloadRef.{field}", name, why) for why in check(name)]
    check_group(causes, obj["spec"], "spec")
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return what an update may not change: everything but the gang's size."""
    causes: list[Cause] = []
    check_immutable(causes, at(new, "spec", "workloadRef"), at(old, "spec", "workloadRef"), "spec.workloadRef")
    check_group_update(causes, new["spec"], old["spec"], "spec")
    return causes


def _status(obj: Object) -> str:
    conditions: dict[str, Object] = {one.get("type", ""): one for one in at(obj, "status", "conditions") or ()}
    if DISRUPTION_TARGET in conditions:
        return conditions[DISRUPTION_TARGET].get("reason", "")
    if INITIALLY_SCHEDULED not in conditions:
        return "Pending"
    return "Scheduled" if conditions[INITIALLY_SCHEDULED].get("status") == "True" else "Unschedulable"


RESOURCE = Resource(
    group="scheduling.k8s.io",
    version="v1beta1",
    kind="PodGroup",
    plural="podgroups",
    singular="podgroup",
    schema="io.k8s.api.scheduling.v1beta1.PodGroup",
    strategy=Strategy(
        default=default,
        prepare_create=prepare_create,
        prepare_update=prepare_update,
        validate=validate,
        validate_update=validate_update,
        validates_update_alone=True,
        has_status=True,
        allows_unconditional_update=False,
    ),
    subresources=(STATUS,),
    columns=(
        NAME,
        cell(
            "Policy",
            lambda obj: "Gang" if at(obj, "spec", "schedulingPolicy", "gang") is not None else "Basic",
            description="Whether the pods are scheduled together or as usual.",
        ),
        cell("Workload", lambda obj: at(obj, "spec", "workloadRef", "workloadName") or NONE, description="The Workload it was made from."),
        cell("Status", _status, description="What became of it in scheduling."),
        AGE,
    ),
)
