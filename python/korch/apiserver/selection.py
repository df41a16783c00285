"""Which objects a list or a watch is about: its selectors as the store's requirements, checked against what the kind offers."""

from __future__ import annotations

from korch.api.errors import BadRequest
from korch.api.selectors import Requirements, SelectorError, parse_fields, parse_labels
from korch.resources.resource import Resource


def requirements(resource: Resource, label_selector: str, field_selector: str) -> Requirements:
    """Return both selectors as one tuple. Raises BadRequest for bad syntax and for fields that the kind cannot select by."""
    if not label_selector and not field_selector:
        return ()
    try:
        labels = parse_labels(label_selector) if label_selector else ()
    except SelectorError as error:
        raise BadRequest(str(error)) from error
    try:
        fields = parse_fields(field_selector) if field_selector else ()
    except SelectorError as error:
        raise BadRequest(str(error)) from error
    for _, key, _, _ in fields:
        if key not in ("metadata.name", "metadata.namespace") and key not in resource.selectable_fields:
            if resource.selectable_fields:
                raise BadRequest(f"field label not supported: {key}")
            raise BadRequest(f'"{key}" is not a known field selector: only "metadata.name", "metadata.namespace"')
    return labels + fields


def single_name(selector: Requirements) -> str:
    """Return the name when the selector allows one object name only, else ""."""
    for target, key, operator, values in selector:
        if target == "field" and key == "metadata.name" and operator == "=":
            return values[0]
    return ""


def selected_name(field_selector: str) -> str:
    """Return the name when a field selector as text allows one object name only, else "" (for bad syntax too)."""
    return selected_value(field_selector, "metadata.name")


def selected_value(field_selector: str, field: str) -> str:
    """Return the one value that a field selector as text asks of `field`, "" when it does not (or is no selector)."""
    if field not in field_selector:
        return ""
    try:
        wanted = parse_fields(field_selector)
    except SelectorError:
        return ""
    return next((values[0] for _, key, operator, values in wanted if key == field and operator == "="), "")
