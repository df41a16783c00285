"""Objects as the rows that `kubectl get` prints: meta.k8s.io/v1 Table, made from a kind's printer columns.

The server prints, so that every client shows the same columns; each row carries the object's metadata (or all, or nothing of it)
for whoever wants more than cells. Columns with a priority above 0 are always sent; clients show them with -o wide.
Mirrors apiserver's rest.TableConvertor and handlers/response.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from korch.api.errors import NotAcceptable
from korch.api.meta import at
from korch.resources.columns import NAME
from korch.resources.resource import Column, Object, Resource

IncludeObject = Literal["Metadata", "Object", "None"]

# What a kind without columns of its own shows.
DEFAULT_COLUMNS: tuple[Column, ...] = (
    NAME,
    Column(
        "Created At",
        lambda obj, _now: at(obj, "metadata", "creationTimestamp") or "",
        type="date",
        description="When the object was created.",
    ),
)


def to_table(
    resource: Resource,
    objects: Iterable[Object],
    *,
    list_meta: Mapping[str, Any],
    now: float,
    include_object: IncludeObject = "Metadata",
    with_columns: bool = True,
) -> Object:
    """Return a Table of `objects`, which are in the form of `resource` (not of its storage).

    `list_meta` is the list's metadata; for one object or a watch event give its resourceVersion alone. `now` is in seconds since
    the epoch. A watch sends its columns with the first event only: `with_columns=False` leaves them out of the others.
    Raises NotAcceptable for a virtual kind, which has no table.
    """
    if resource.is_virtual:
        raise NotAcceptable(
            "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        )
    columns = resource.columns or DEFAULT_COLUMNS
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": dict(list_meta),
        "columnDefinitions": [_definition(column) for column in columns] if with_columns else None,
        "rows": [_row(resource, columns, obj, now, include_object) for obj in objects],
    }


def partial_metadata(obj: Object) -> Object:
    """Return the PartialObjectMetadata of an object. The metadata is shared, not copied."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj.get("metadata") or {}}


def partial_metadata_list(objects: Iterable[Object], *, list_meta: Mapping[str, Any]) -> Object:
    """Return the PartialObjectMetadataList of `objects`."""
    return {
        "kind": "PartialObjectMetadataList",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": dict(list_meta),
        "items": [partial_metadata(obj) for obj in objects],
    }


def _definition(column: Column) -> Object:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    }


def _row(resource: Resource, columns: tuple[Column, ...], obj: Object, now: float, include_object: IncludeObject) -> Object:
    row: Object = {"cells": [column.value(obj, now) for column in columns]}
    if resource.row_conditions is not None and (conditions := resource.row_conditions(obj)):
        row["conditions"] = conditions
    if include_object == "Object":
        row["object"] = {"kind": resource.kind, "apiVersion": resource.api_version, **obj}
    else:
        row["object"] = partial_metadata(obj) if include_object == "Metadata" else None
    return row
