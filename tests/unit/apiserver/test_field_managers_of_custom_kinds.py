"""Custom kinds merge by the schema that was declared for them, and by field where none was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from korch.apiserver.field_managers import FieldManagers, managers_of, set_managed_fields
from korch.resources.openapi import native_schema
from korch.resources.resource import Resource
from korch.resources.subresources import STATUS

Object = dict[str, Any]

KIND = Resource(group="t.io", version="v1", kind="Thing", plural="things", schema="io.t.v1.Thing", subresources=(STATUS,))
PARTS = {
    "type": "array",
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["id"],
    "items": {"type": "object", "properties": {"id": {"type": "string"}, "size": {"type": "integer"}}},
}
DEFINITION = {
    "type": "object",
    "properties": {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"},
        "spec": {"type": "object", "properties": {"parts": PARTS}},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}
DECLARED = replace(KIND, definitions=lambda _is_v3: {"io.t.v1.Thing": DEFINITION})


def thing(*parts: Object) -> bytes:
    return orjson.dumps({"apiVersion": "t.io/v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": {"parts": parts}})


def applied(managers: FieldManagers, kind: Resource, live: bytes | None, config: bytes, *, manager: str, force: bool) -> bytes:
    """Apply and return the object with its managers, as it would be stored."""
    merged, managed = managers.apply(kind, "", live, config, manager=manager, now=0, force=force)
    obj = orjson.loads(merged)
    set_managed_fields(obj, managed)
    return orjson.dumps(obj)


def both_apply(managers: FieldManagers, kind: Resource) -> Object:
    first = applied(managers, kind, None, thing({"id": "a", "size": 1}), manager="one", force=False)
    return orjson.loads(applied(managers, kind, first, thing({"id": "b"}), manager="two", force=True))


def test_lists_with_keys_merge_item_by_item() -> None:
    managers = FieldManagers(native_schema())
    assert both_apply(managers, DECLARED)["spec"]["parts"] == [{"id": "a", "size": 1}, {"id": "b"}]


def test_without_a_schema_the_last_to_force_a_list_has_it() -> None:
    merged = both_apply(FieldManagers(native_schema()), KIND)
    assert merged["spec"]["parts"] == [{"id": "b"}]
    owned = {one["manager"]: one["fieldsV1"]["f:spec"] for one in merged["metadata"]["managedFields"]}
    assert owned == {"one": {}, "two": {".": {}, "f:parts": {}}}


def test_each_endpoint_records_its_own_part() -> None:
    managers = FieldManagers(native_schema())
    live = orjson.loads(thing())
    managers.track(KIND, "", None, live, manager="user", now=0)
    changed: Object = live | {"status": {"phase": "up"}, "spec": {"parts": [{"id": "z"}]}}
    managers.track(KIND, "status", orjson.dumps(live), changed, manager="controller", now=0)
    owned = {one["manager"]: one["fieldsV1"] for one in managers_of(changed)}
    assert owned["controller"] == {"f:status": {".": {}, "f:phase": {}}}
