"""LimitRange: what single pods, containers and claims of a namespace may ask for, and what they get when they ask for nothing."""

from __future__ import annotations

from korch.api import quantity
from korch.api.errors import Cause, duplicate, forbidden_field, invalid
from korch.api.names import is_qualified_name
from korch.resources.quantities import check_quantity
from korch.resources.rbac.rules import ROLE_COLUMNS
from korch.resources.resource import Object, Resource, Strategy

_FIELDS = ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")


def default(obj: Object) -> None:
    """Fill in the defaults of containers, in place: limits from max, requests from limits or min. Mirrors SetDefaults_LimitRangeItem."""
    for item in (obj.get("spec") or {}).get("limits") or ():
        if item.get("type") != "Container":
            continue
        limits = item.setdefault("default", {}) if item.get("max") or item.get("default") is not None else item.get("default") or {}
        for name, value in (item.get("max") or {}).items():
            limits.setdefault(name, value)
        requests = dict(item.get("defaultRequest") or {})
        for source in (item.get("default") or {}, item.get("min") or {}):
            for name, value in source.items():
                requests.setdefault(name, value)
        if requests:
            item["defaultRequest"] = requests


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a LimitRange. Mirrors ValidateLimitRange."""
    causes: list[Cause] = []
    seen: set[str] = set()
    for position, item in enumerate((obj.get("spec") or {}).get("limits") or ()):
        path, kind = f"spec.limits[{position}]", item.get("type") or ""
        causes += [invalid(f"{path}.type", kind, why) for why in is_qualified_name(kind)]
        if kind in seen:
            causes.append(duplicate(f"{path}.type", kind))
        seen.add(kind)
        _check_item(causes, item, kind, path)
    return causes


def _check_item(causes: list[Cause], item: Object, kind: str, path: str) -> None:
    for field in _FIELDS:
        for name, value in (item.get(field) or {}).items():
            check_quantity(causes, value, f"{path}.{field}[{name}]")
    if causes:
        return
    if kind == "Pod":
        for field in ("default", "defaultRequest"):
            if item.get(field):
                causes.append(forbidden_field(f"{path}.{field}", "may not be specified when `type` is 'Pod'"))
    if kind == "PersistentVolumeClaim" and not any("storage" in (item.get(field) or {}) for field in ("min", "max")):
        causes.append(
            Cause(
                "FieldValueRequired",
                "Required value: either minimum or maximum storage value is required, but neither was provided",
                f"{path}.limits",
            )
        )
    for name in sorted({name for field in _FIELDS for name in item.get(field) or ()}):
        _check_order(causes, item, name, path)


def _check_order(causes: list[Cause], item: Object, name: str, path: str) -> None:
    given = {field: (item.get(field) or {}).get(name) for field in _FIELDS}
    value = {field: quantity.milli(text) for field, text in given.items() if text is not None}

    def above(low: str, high: str) -> bool:
        return low in value and high in value and value[low] > value[high]

    where = f"{path}.{{}}[{name}]"
    if above("min", "max"):
        causes.append(invalid(where.format("min"), str(given["min"]), f"min value {given['min']} is greater than max value {given['max']}"))
    for low, high, words in (
        ("min", "defaultRequest", "min value {} is greater than default request value {}"),
        ("defaultRequest", "max", "default request value {} is greater than max value {}"),
        ("defaultRequest", "default", "default request value {} is greater than default limit value {}"),
        ("min", "default", "min value {} is greater than default value {}"),
        ("default", "max", "default value {} is greater than max value {}"),
    ):
        if above(low, high):
            at_field = "default" if "default" in (low, high) and "defaultRequest" not in (low, high) else "defaultRequest"
            causes.append(invalid(where.format(at_field), str(given[at_field]), words.format(given[low], given[high])))
    ratio = value.get("maxLimitRequestRatio")
    if ratio is not None and ratio < 1000:
        shown = str(given["maxLimitRequestRatio"])
        causes.append(invalid(where.format("maxLimitRequestRatio"), shown, f"ratio {shown} is less than 1"))


RESOURCE = Resource(
    group="",
    version="v1",
    kind="LimitRange",
    plural="limitranges",
    singular="limitrange",
    schema="io.k8s.api.core.v1.LimitRange",
    short_names=("limits",),
    strategy=Strategy(default=default, validate=validate),
    columns=ROLE_COLUMNS,
)
