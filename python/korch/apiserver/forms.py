"""Stored bytes in the form that the client accepts: as they are, as a Table, or metadata alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import orjson

from korch.api.errors import BadRequest
from korch.apiserver.encoding import dump, list_body
from korch.apiserver.listing import ListPage
from korch.apiserver.negotiation import Form
from korch.apiserver.pipeline import Target
from korch.apiserver.table import IncludeObject, partial_metadata, partial_metadata_list, to_table
from korch.apiserver.watching import Transform
from korch.resources.resource import Resource

Object = dict[str, Any]

_INCLUDES = ("None", "Metadata", "Object")


def include_object(query_value: str) -> IncludeObject:
    """Return what a Table's rows carry. Raises BadRequest."""
    if query_value not in ("", *_INCLUDES):
        raise BadRequest(f"unrecognized includeObject value: {query_value!r}")
    return cast(IncludeObject, query_value or "Metadata")


def one_object(resource: Resource, body: bytes, form: Form, *, now: float, include: IncludeObject) -> bytes:
    """Return one object in `form`. Raises NotAcceptable for kinds without that form."""
    if not form.kind:
        return body
    obj: Object = orjson.loads(body)
    if form.kind == "Table":
        meta = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        return dump(_versioned(to_table(resource, [obj], list_meta=meta, now=now, include_object=include), form))
    return dump(_versioned(partial_metadata(obj), form))


def page(target: Target, found: ListPage, form: Form, *, now: float, include: IncludeObject) -> bytes:
    """Return a page of a list in `form`."""
    resource = target.resource
    if not form.kind:
        return list_body(
            resource.list_name,
            resource.api_version,
            found.items,
            resource_version=str(found.revision),
            continue_token=found.continue_token,
            remaining=found.remaining,
        )
    objects = [orjson.loads(item) for item in found.items]
    meta: Object = {"resourceVersion": str(found.revision)}
    if found.continue_token:
        meta["continue"] = found.continue_token
        if found.remaining is not None:
            meta["remainingItemCount"] = found.remaining
    if form.kind == "Table":
        return dump(_versioned(to_table(resource, objects, list_meta=meta, now=now, include_object=include), form))
    return dump(_versioned(partial_metadata_list(objects, list_meta=meta), form))


def watch_transform(resource: Resource, form: Form, *, now: Any, include: IncludeObject) -> Transform | None:
    """Return what a watch in `form` does to each object, None for nothing. `now()` is seconds since the epoch."""
    if not form.kind:
        return None
    is_first = True

    def table(event_type: str, body: bytes) -> bytes:
        nonlocal is_first
        obj: Object = orjson.loads(body)
        meta = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        if event_type == "BOOKMARK" and obj["metadata"].get("annotations"):
            meta["annotations"] = obj["metadata"]["annotations"]
        rows: Sequence[Object] = () if event_type == "BOOKMARK" else (obj,)
        shown = to_table(resource, rows, list_meta=meta, now=now(), include_object=include, with_columns=is_first)
        is_first = False
        return dump(_versioned(shown, form))

    def partial(_event_type: str, body: bytes) -> bytes:
        return dump(_versioned(partial_metadata(orjson.loads(body)), form))

    return table if form.kind == "Table" else partial


def _versioned(shown: Object, form: Form) -> Object:
    if form.version != "v1":
        shown["apiVersion"] = f"meta.k8s.io/{form.version}"
    return shown
