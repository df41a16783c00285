"""The OpenAPI definitions of a custom kind, made from its schema.

v3 says what the schema says. v2 cannot: what it has no word for is left out, so that clients which validate by it do not refuse
what the server accepts. Mirrors apiextensions' controller/openapi/builder and its v2 conversion.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

Json = dict[str, Any]

_SCHEMAS = ("items", "additionalProperties", "not")
_LISTS = ("allOf", "anyOf", "oneOf")
_NOT_IN_V2 = ("allOf", "anyOf", "oneOf", "not", "nullable", "default", "example", "x-kubernetes-validations")


@cache
def _own() -> tuple[Json, Json, Json, Json]:
    """Return what every kind and list has, as the built-in ones say it: apiVersion, kind, metadata, and the metadata of a list."""
    from korch.resources import openapi

    known = openapi.definitions()
    kind, listed = known["io.k8s.api.core.v1.Pod"]["properties"], known["io.k8s.api.core.v1.PodList"]["properties"]
    return kind["apiVersion"], kind["kind"], kind["metadata"], listed["metadata"]


def definition_name(group: str, version: str, kind: str) -> str:
    """Return the name of a custom kind's definition: `com.example.v1.Kind` for the group example.com."""
    return ".".join((*reversed(group.split(".")), version, kind))


def definitions(group: str, version: str, kind: str, list_kind: str, schema: Mapping[str, Any], *, is_v3: bool) -> dict[str, Json]:
    """Return the definitions of a kind and of its list, by name."""
    name = definition_name(group, version, kind)
    api_version, kind_of, metadata, list_metadata = _own()
    if not is_v3 and schema.get("x-kubernetes-preserve-unknown-fields"):
        # What takes any field cannot be told in v2.
        body: Json = {"type": "object"}
    else:
        body = _converted(schema, is_v3=is_v3)
        body["properties"] = {"apiVersion": api_version, "kind": kind_of} | body.get("properties", {}) | {"metadata": metadata}
        body["type"] = "object"
    body["x-kubernetes-group-version-kind"] = [{"group": group, "kind": kind, "version": version}]
    listed: Json = {
        "description": f"{list_kind} is a list of {kind}",
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": api_version,
            "items": {"description": f"List of {kind}.", "type": "array", "items": {"$ref": f"#/definitions/{name}"}},
            "kind": kind_of,
            "metadata": list_metadata,
        },
        "x-kubernetes-group-version-kind": [{"group": group, "kind": list_kind, "version": version}],
    }
    return {name: body, definition_name(group, version, list_kind): listed}


def _converted(schema: Mapping[str, Any], *, is_v3: bool) -> Json:
    found: Json = {}
    hides = not is_v3 and (schema.get("nullable") or schema.get("x-kubernetes-preserve-unknown-fields"))
    for key, value in schema.items():
        if not is_v3 and key in _NOT_IN_V2:
            continue
        if hides and key in ("type", "properties", "items", "additionalProperties", "required"):
            continue
        if key == "properties":
            found[key] = {name: _converted(child, is_v3=is_v3) for name, child in value.items()}
        elif key in _SCHEMAS and isinstance(value, dict):
            found[key] = _converted(value, is_v3=is_v3)
        elif key in _LISTS:
            found[key] = [_converted(child, is_v3=is_v3) for child in value]
        elif not is_v3 and key == "type" and schema.get("x-kubernetes-int-or-string"):
            continue
        else:
            found[key] = value
    if schema.get("x-kubernetes-embedded-resource") and not hides:
        api_version, kind, metadata, _ = _own()
        own = {"apiVersion": api_version, "kind": kind, "metadata": metadata}
        found["properties"] = own | {name: child for name, child in found.get("properties", {}).items() if name != "metadata"}
    return found
