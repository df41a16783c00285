"""What a schema of a custom kind may be: OpenAPI v3 without references, and structural.

Structural means that every field is declared outside of allOf, anyOf, oneOf and not, with a type, so that pruning and defaulting
know what belongs where. Mirrors apiextensions-apiserver's pkg/apiserver/schema/validation.go and the schema half of
apis/apiextensions/validation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from korch._core import native
from korch.api.errors import Cause, forbidden_field, invalid, not_supported, required

Schema = Mapping[str, Any]

_JUNCTORS = ("allOf", "anyOf", "oneOf")
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]
_NOT_NESTED = {
    "type": "must be empty to be structural",
    "default": "must be undefined to be structural",
    "title": "must be empty to be structural",
    "description": "must be empty to be structural",
    "nullable": "must be false to be structural",
    "x-kubernetes-preserve-unknown-fields": "must be false to be structural",
    "x-kubernetes-embedded-resource": "must be false to be structural",
    "x-kubernetes-int-or-string": "must be false to be structural",
    "x-kubernetes-list-map-keys": "must be empty to be structural",
    "x-kubernetes-list-type": "must be undefined to be structural",
    "x-kubernetes-map-type": "must be undefined to be structural",
    "x-kubernetes-validations": "must be empty to be structural",
}
_UNSUPPORTED = ("id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref")
_ROOT_WITH_STATUS = (
    "properties", "required", "description", "type", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations", "title",
    "externalDocs", "example", "allOf", "oneOf", "anyOf", "not",
)  # fmt: skip
_TYPES = ("array", "boolean", "integer", "number", "object", "string")


def check_schema(causes: list[Cause], schema: Schema, path: str, *, has_status: bool) -> None:
    """Append what is wrong with a root schema at `path`. CEL rules are checked only when all else is right."""
    known = len(causes)
    if has_status and any(key not in _ROOT_WITH_STATUS and value for key, value in schema.items()):
        listed = 'must only have "properties", "required" or "description" at the root if the status subresource is enabled'
        causes.append(invalid(path, schema, listed))
    _check_open_api(causes, schema, path, is_root=True)
    structural: list[Cause] = []
    _check_structural(structural, schema, path, "root")
    causes += sorted(structural, key=Cause.line)
    if len(causes) > known:
        return
    compiled = native.StructuralSchema(orjson.dumps(schema))
    for below, index, part, reason, message in compiled.check_rules():
        where = f"{path}{below}"
        causes.append(Cause(reason, message, f"{where}.x-kubernetes-validations[{index}].{part}" if part else where))
    if len(causes) == known:
        _check_defaults(causes, schema, path)


def _check_open_api(causes: list[Cause], schema: Schema, path: str, *, is_root: bool = False) -> None:
    if schema.get("uniqueItems"):
        why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        causes.append(forbidden_field(f"{path}.uniqueItems", why))
    additional = schema.get("additionalProperties")
    if schema.get("properties") and additional not in (None, True):
        causes.append(forbidden_field(f"{path}.additionalProperties", "additionalProperties and properties are mutual exclusive"))
    if additional is False:
        causes.append(forbidden_field(f"{path}.additionalProperties", "additionalProperties cannot be set to false"))
    for key in _UNSUPPORTED:
        if schema.get(key) is not None:
            causes.append(forbidden_field(f"{path}.{key}", f"{key} is not supported"))
    kind = schema.get("type") or ""
    if kind == "null":
        causes.append(forbidden_field(f"{path}.type", "type cannot be set to null, use nullable as an alternative"))
    elif kind and kind not in _TYPES:
        causes.append(not_supported(f"{path}.type", kind, _TYPES))
    if isinstance(schema.get("items"), list):
        causes.append(forbidden_field(f"{path}.items", "items must be a schema object and not an array"))
    if is_root and schema.get("nullable"):
        causes.append(forbidden_field(f"{path}.nullable", "nullable cannot be true at the root"))
    if schema.get("x-kubernetes-preserve-unknown-fields") is False:
        causes.append(invalid(f"{path}.x-kubernetes-preserve-unknown-fields", False, "must be true or undefined"))
    _check_list_extensions(causes, schema, path)
    for child, where in _children(schema, path):
        _check_open_api(causes, child, where)


def _check_list_extensions(causes: list[Cause], schema: Schema, path: str) -> None:
    map_type, list_type = schema.get("x-kubernetes-map-type"), schema.get("x-kubernetes-list-type")
    kind = schema.get("type")
    if map_type is not None:
        if kind != "object":
            causes.append(_wrong(f"{path}.type", kind, "must be object if x-kubernetes-map-type is specified"))
        if map_type not in ("atomic", "granular"):
            causes.append(not_supported(f"{path}.x-kubernetes-map-type", map_type, ("atomic", "granular")))
    keys: Sequence[str] = schema.get("x-kubernetes-list-map-keys") or ()
    if list_type is not None:
        if kind != "array":
            causes.append(_wrong(f"{path}.type", kind, "must be array if x-kubernetes-list-type is specified"))
        if list_type not in ("atomic", "set", "map"):
            causes.append(not_supported(f"{path}.x-kubernetes-list-type", list_type, ("atomic", "set", "map")))
    items: Any = schema.get("items") or {}
    if keys and list_type != "map":
        causes.append(_wrong(f"{path}.x-kubernetes-list-type", list_type, "must be map if x-kubernetes-list-map-keys is non-empty"))
    if list_type == "map":
        _check_map_list(causes, items, keys, path)
    elif list_type == "set" and items.get("nullable"):
        causes.append(forbidden_field(f"{path}.items.nullable", "cannot be nullable when x-kubernetes-list-type is set"))


def _wrong(path: str, found: Any, why: str) -> Cause:
    """Return that `found` is not what it must be, or that it is missing."""
    return invalid(path, found, why) if found else required(path, why)


def _check_map_list(causes: list[Cause], items: Mapping[str, Any], keys: Sequence[str], path: str) -> None:
    if not keys:
        causes.append(required(f"{path}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map"))
    if items.get("type") != "object":
        causes.append(
            invalid(f"{path}.items.type", items.get("type") or "", "must be object if parent array's x-kubernetes-list-type is map")
        )
    properties: Mapping[str, Any] = items.get("properties") or {}
    for index, key in enumerate(keys):
        field = properties.get(key)
        where = f"{path}.items.properties[{key}]"
        if field is None:
            listed = "entries must all be names of item properties"
            causes.append(invalid(f"{path}.x-kubernetes-list-map-keys[{index}]", key, listed))
        elif field.get("type") in ("array", "object"):
            why = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            causes.append(invalid(f"{where}.type", field["type"], why))
        elif key not in (items.get("required") or ()) and field.get("default") is None:
            why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            causes.append(required(f"{where}.default", why))


def _children(schema: Schema, path: str) -> list[tuple[Schema, str]]:
    found = [(child, f"{path}.properties[{name}]") for name, child in (schema.get("properties") or {}).items()]
    for key in ("items", "additionalProperties", "not"):
        if isinstance(schema.get(key), dict):
            found.append((schema[key], f"{path}.{key}"))
    for key in _JUNCTORS:
        found += [(child, f"{path}.{key}[{index}]") for index, child in enumerate(schema.get(key) or ())]
    return found


def _check_structural(causes: list[Cause], schema: Schema, path: str, level: str) -> None:
    """Check the invariants of one node outside of junctors. `level` is root, item or field."""
    kind = schema.get("type") or ""
    properties: Mapping[str, Any] = schema.get("properties") or {}
    items, additional = schema.get("items"), schema.get("additionalProperties")
    is_embedded, is_open = schema.get("x-kubernetes-embedded-resource"), schema.get("x-kubernetes-preserve-unknown-fields")
    is_int_or_string = schema.get("x-kubernetes-int-or-string")
    if kind == "array" and items is None:
        causes.append(required(f"{path}.items", "must be specified"))
    if isinstance(items, dict):
        _check_structural(causes, items, f"{path}.items", "item")
    for name, child in properties.items():
        _check_structural(causes, child, f"{path}.properties[{name}]", "field")
    if additional is not None:
        if level == "root":
            causes.append(forbidden_field(f"{path}.additionalProperties", "must not be used at the root"))
        if isinstance(additional, dict):
            _check_structural(causes, additional, f"{path}.additionalProperties", "field")
    for key, flag in (("x-kubernetes-preserve-unknown-fields", is_open), ("x-kubernetes-embedded-resource", is_embedded)):
        if is_int_or_string and flag:
            causes.append(invalid(f"{path}.{key}", True, "must be false if x-kubernetes-int-or-string is true"))
    if is_embedded and kind != "object":
        why = "must be object if x-kubernetes-embedded-resource is true"
        causes.append(invalid(f"{path}.type", kind, why) if kind else required(f"{path}.type", why))
    elif not kind and not is_int_or_string and not is_open:
        where = {"root": "at the root", "item": "for specified array items", "field": "for specified object fields"}[level]
        causes.append(required(f"{path}.type", f"must not be empty {where}"))
    if level == "root" and kind and kind != "object":
        causes.append(invalid(f"{path}.type", kind, "must be object at the root"))
    if is_embedded and additional is not None:
        causes.append(forbidden_field(f"{path}.additionalProperties", "must not be used if x-kubernetes-embedded-resource is set"))
    if is_embedded and not is_open and not properties:
        why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
        causes.append(required(f"{path}.properties", why))
    if level == "root" or is_embedded:
        _check_type_meta(causes, properties, path, is_root=level == "root")
    _check_junctors(causes, schema, path, is_outermost=True)


def _check_type_meta(causes: list[Cause], properties: Mapping[str, Any], path: str, *, is_root: bool) -> None:
    for name in ("kind", "apiVersion"):
        if name in properties and properties[name].get("type") != "string":
            causes.append(invalid(f"{path}.properties[{name}].type", properties[name].get("type") or "", "must be string"))
    metadata = properties.get("metadata")
    if metadata is None:
        return
    where = f"{path}.properties[metadata]"
    if metadata.get("type") != "object":
        causes.append(invalid(f"{where}.type", metadata.get("type") or "", "must be object"))
    named = set(metadata.get("properties") or {})
    other = {key for key, value in metadata.items() if value and key not in ("type", "properties", "description")}
    if is_root and (named - {"name", "generateName"} or other):
        why = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        causes.append(forbidden_field(where, why))


def _check_junctors(causes: list[Cause], schema: Schema, path: str, *, is_outermost: bool) -> None:
    all_of: list[Schema] = schema.get("allOf") or [{}]
    first_all_of = all_of[0]
    for key in _JUNCTORS:
        if key == "anyOf" and schema.get("x-kubernetes-int-or-string") and schema.get(key) == _INT_OR_STRING:
            continue
        children: list[Schema] = schema.get(key) or []
        for index, child in enumerate(children):
            is_first = key == "allOf" and index == 0 and bool(schema.get("x-kubernetes-int-or-string"))
            skips = is_first and first_all_of.get("anyOf") == _INT_OR_STRING
            _check_nested(causes, {k: v for k, v in child.items() if not (skips and k == "anyOf")}, f"{path}.{key}[{index}]")
    if isinstance(schema.get("not"), dict):
        _check_nested(causes, schema["not"], f"{path}.not")
    if is_outermost and schema.get("pattern"):
        try:
            re.compile(schema["pattern"])
        except re.error as error:
            causes.append(invalid(f"{path}.pattern", schema["pattern"], f"must be a valid regular expression, but isn't: {error}"))


def _check_nested(causes: list[Cause], schema: Schema, path: str) -> None:
    """Check a schema inside a junctor, which may restrict values and declare nothing."""
    for key, why in _NOT_NESTED.items():
        if schema.get(key):
            causes.append(forbidden_field(f"{path}.{key}", why))
    if schema.get("additionalProperties") is not None:
        causes.append(forbidden_field(f"{path}.additionalProperties", "must be undefined to be structural"))
    for name, child in (schema.get("properties") or {}).items():
        if name == "metadata":
            causes.append(forbidden_field(f"{path}.properties[metadata]", "must not be specified in a nested context"))
        _check_nested(causes, child, f"{path}.properties[{name}]")
    if isinstance(schema.get("items"), dict):
        _check_nested(causes, schema["items"], f"{path}.items")
    _check_junctors(causes, schema, path, is_outermost=False)


def _check_defaults(causes: list[Cause], schema: Schema, path: str) -> None:
    """Check that every default is a value of its own schema."""
    default = schema.get("default")
    if default is not None:
        compiled = native.StructuralSchema(orjson.dumps(schema))
        raw = orjson.dumps(default)
        found, _ = compiled.validate(raw)
        causes += [
            Cause(reason, message, f"{path}.default" + (f".{field}" if field != "<nil>" else "")) for reason, message, field in found
        ]
    for name, child in (schema.get("properties") or {}).items():
        _check_defaults(causes, child, f"{path}.properties[{name}]")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            _check_defaults(causes, schema[key], f"{path}.{key}")
