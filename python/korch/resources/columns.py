"""Printer columns that many kinds share: name, age, and what a pod template runs.

A cell is a pure function of the object and the time. Mirrors the helpers of kubernetes' pkg/printers/internalversion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from korch.api.duration import since
from korch.api.meta import at
from korch.resources.resource import Column, Object

NONE = "<none>"
UNKNOWN = "<unknown>"
UNSET = "<unset>"


def age_cell(obj: Object, now: float) -> str:
    return since(at(obj, "metadata", "creationTimestamp"), now)


def text(name: str, *path: str, description: str = "", priority: int = 0, missing: str = "") -> Column:
    """Return a string column that shows the field at `path`, or `missing`."""
    return Column(name, lambda obj, _now: at(obj, *path) or missing, description=description, priority=priority)


def number(name: str, *path: str, description: str = "", priority: int = 0) -> Column:
    """Return an integer column that shows the field at `path`, 0 when it is missing."""
    return Column(name, lambda obj, _now: at(obj, *path) or 0, type="integer", description=description, priority=priority)


def number_of(name: str, *path: str, description: str = "", priority: int = 0) -> Column:
    """Return an integer column that counts the list at `path`."""
    return Column(name, lambda obj, _now: len(at(obj, *path) or ()), type="integer", description=description, priority=priority)


def cell(name: str, read: Callable[[Object], str], *, description: str = "", priority: int = 0) -> Column:
    """Return a string column whose cell depends on the object alone."""
    return Column(name, lambda obj, _now: read(obj), description=description, priority=priority)


def format_labels(labels: Mapping[str, str] | None) -> str:
    """Return `a=1,b=2` in key order, `<none>` for no labels."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) if labels else NONE


def format_selector(selector: Mapping[str, Any] | None) -> str:
    """Return a LabelSelector in selector syntax, requirements in key order: `a=1,b in (x,y),!c`."""
    if selector is None:
        return NONE
    parts = [(key, f"{key}={value}") for key, value in (selector.get("matchLabels") or {}).items()]
    for requirement in selector.get("matchExpressions") or ():
        key, operator = requirement.get("key", ""), requirement.get("operator", "")
        values = ",".join(sorted(requirement.get("values") or ()))
        rendered = {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key, "DoesNotExist": f"!{key}"}
        parts.append((key, rendered.get(operator, key)))
    return ",".join(part for _, part in sorted(parts)) or NONE


def template_columns(*path: str, selector: bool = True) -> tuple[Column, ...]:
    """Return the -o wide columns of a workload whose pod template lies at `path`; the selector lies at spec.selector."""

    def join(obj: Object, key: str) -> str:
        return ",".join(one.get(key, "") for one in at(obj, *path, "spec", "containers") or ())

    wide = (
        cell("Containers", lambda obj: join(obj, "name"), description="Names of each container in the template.", priority=1),
        cell("Images", lambda obj: join(obj, "image"), description="Images referenced by each container in the template.", priority=1),
    )
    if not selector:
        return wide
    shown = cell("Selector", lambda obj: format_selector(at(obj, "spec", "selector")), description="Which pods belong to it.", priority=1)
    return (*wide, shown)


NAME = Column("Name", lambda obj, _now: at(obj, "metadata", "name") or "", format="name", description="Name, unique within its namespace.")
AGE = Column("Age", age_cell, description="Time since the object was created.")
