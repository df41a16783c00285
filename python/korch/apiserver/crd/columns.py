"""Printer columns of a custom kind: a JSONPath each. Mirrors apiextensions' registry/customresource/tableconvertor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from korch.api.duration import since
from korch.resources.apiextensions.jsonpath import find
from korch.resources.columns import AGE, NAME
from korch.resources.resource import Column, Object


def custom_columns(declared: Sequence[Object] | None) -> tuple[Column, ...]:
    """Return the columns of a kind: its name and what it declares, or its name and age."""
    if not declared:
        return (NAME, AGE)
    return (NAME, *(_column(one) for one in declared))


def _column(declared: Object) -> Column:
    kind = declared.get("type") or "string"
    description = declared.get("description") or f"Custom resource definition column (in JSONPath format): {declared.get('jsonPath') or ''}"
    return Column(
        declared.get("name") or "",
        _reader(declared.get("jsonPath") or "", kind),
        type=kind,
        format=declared.get("format") or "",
        description=description,
        priority=declared.get("priority") or 0,
    )


def _reader(path: str, kind: str) -> Callable[[Object, float], Any]:
    def read(obj: Object, now: float) -> Any:
        found = find(path, obj)
        return _cell(found[0], kind, now) if found else None

    return read


def _cell(value: Any, kind: str, now: float) -> Any:
    match kind:
        case "date":
            if not isinstance(value, str):
                return None
            try:
                return since(value, now)
            except ValueError:
                return "<invalid>"
        case "integer":
            return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
        case "number":
            return value if isinstance(value, int | float) and not isinstance(value, bool) else None
        case "boolean":
            return value if isinstance(value, bool) else None
        case _:
            return text(value)


def text(value: Any) -> str:
    """Return a value as text, as columns and field selectors see it."""
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value).decode()
