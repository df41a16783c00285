"""Workload: templates of the PodGroups of an application. Served when the gate GenericWorkload and the version are switched on."""

from __future__ import annotations

from korch.api import names
from korch.api.errors import Cause, duplicate, forbidden_field, invalid, required
from korch.api.meta import at
from korch.api.validation import check_immutable, too_many
from korch.resources.columns import AGE, NAME
from korch.resources.resource import Context, Object, Resource, Strategy
from korch.resources.scheduling.group_rules import check_group, check_group_update, drop_gated

TEMPLATES_MAX = 8
_TEMPLATES = "spec.podGroupTemplates"


def _drop(obj: Object) -> None:
    spec: Object = obj["spec"]
    spec.pop("compositePodGroupTemplates", None)
    for template in spec.get("podGroupTemplates") or ():
        drop_gated(template)


def prepare_create(obj: Object, _context: Context) -> None:
    """Drop what belongs to gates that do not exist here."""
    _drop(obj)


def prepare_update(new: Object, _old: Object, _context: Context) -> None:
    """Drop what belongs to gates that do not exist here."""
    _drop(new)


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a new Workload. Mirrors ValidateWorkload and the declarative rules."""
    causes: list[Cause] = []
    _check_controller(causes, at(obj, "spec", "controllerRef"))
    templates: list[Object] = at(obj, "spec", "podGroupTemplates") or []
    if not templates:
        causes.append(invalid("spec", "", "must specify one of: `podGroupTemplates`, `compositePodGroupTemplates`"))
    _check_templates(causes, templates)
    for number, template in enumerate(templates):
        check_group(causes, template, f"{_TEMPLATES}[{number}]")
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return what an update may not change: everything but the sizes of gangs."""
    causes: list[Cause] = []
    check_immutable(causes, at(new, "spec", "controllerRef"), at(old, "spec", "controllerRef"), "spec.controllerRef")
    templates: list[Object] = at(new, "spec", "podGroupTemplates") or []
    before: dict[str, Object] = {one.get("name", ""): one for one in at(old, "spec", "podGroupTemplates") or ()}
    _check_templates(causes, templates)
    for number, template in enumerate(templates):
        path = f"{_TEMPLATES}[{number}]"
        if (known := before.pop(template.get("name", ""), None)) is None:
            causes.append(forbidden_field(path, "item may not be added"))
        else:
            check_group_update(causes, template, known, path)
    causes += [forbidden_field(_TEMPLATES, "item may not be removed") for _ in before]
    return causes


def _check_templates(causes: list[Cause], templates: list[Object]) -> None:
    """Check names and number of the templates, and that all have one rank."""
    if len(templates) > TEMPLATES_MAX:
        causes.append(too_many(_TEMPLATES, len(templates), TEMPLATES_MAX))
    seen: set[str] = set()
    for number, template in enumerate(templates):
        name, path = template.get("name") or "", f"{_TEMPLATES}[{number}]"
        if not name:
            causes.append(required(f"{path}.name"))
        else:
            causes += [invalid(f"{path}.name", name, why) for why in names.is_dns_label(name)]
        if name in seen:
            causes.append(duplicate(path, name))
        seen.add(name)
    if len({(one.get("priorityClassName") or "", one.get("priority")) for one in templates}) > 1:
        causes.append(invalid("spec", None, "detected multiple priority configurations"))


def _check_controller(causes: list[Cause], reference: Object | None) -> None:
    if reference is None:
        return
    if group := reference.get("apiGroup"):
        causes += [invalid("spec.controllerRef.apiGroup", group, why) for why in names.is_dns_subdomain(group)]
    for field in ("kind", "name"):
        value = reference.get(field) or ""
        if not value:
            causes.append(required(f"spec.controllerRef.{field}"))
        else:
            causes += [invalid(f"spec.controllerRef.{field}", value, why) for why in names.is_path_segment(value)]


RESOURCE = Resource(
    group="scheduling.k8s.io",
    version="v1beta1",
    kind="Workload",
    plural="workloads",
    singular="workload",
    schema="io.k8s.api.scheduling.v1beta1.Workload",
    strategy=Strategy(
        prepare_create=prepare_create,
        prepare_update=prepare_update,
        validate=validate,
        validate_update=validate_update,
        validates_update_alone=True,
        allows_unconditional_update=False,
    ),
    columns=(NAME, AGE),
)
