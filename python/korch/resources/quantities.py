"""Quantities in objects: is one well formed and not negative, how is a list of them shown."""

from __future__ import annotations

from collections.abc import Mapping

from korch.api import quantity
from korch.api.errors import Cause, invalid
from korch.api.validation import NOT_NEGATIVE

_PATTERN = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


def check_quantity(causes: list[Cause], value: str | int | float, path: str, *, minimum: int = 0) -> None:
    """Check that `value` is a quantity, and at least `minimum` (0 or 1)."""
    try:
        found = quantity.milli(value)
    except ValueError:
        causes.append(invalid(path, value, _PATTERN))
        return
    if found < minimum or (minimum and found <= 0):
        causes.append(invalid(path, str(value), NOT_NEGATIVE if not minimum else "must be greater than zero"))


def check_resource_list(causes: list[Cause], values: Mapping[str, str | int | float] | None, path: str) -> None:
    """Check every quantity of a ResourceList."""
    for name, value in (values or {}).items():
        check_quantity(causes, value, f"{path}[{name}]")


def canonical(value: str | int | float | None) -> str:
    """Return a quantity as upstream prints it, "" for none, the text as it is when it is no quantity."""
    if value is None:
        return ""
    try:
        return quantity.canonical(value)
    except ValueError:
        return str(value)
