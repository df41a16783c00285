"""Decoding a body as a kind: prune and check against the schema on the way, then answer for what was wrong with it.

The native schema walk copies the JSON once, leaving out what the kind does not know. What it left out is an error, a
warning header or nobody's business, as `fieldValidation` says. Mirrors apiserver's endpoints/handlers/create.go (decoding half)
and fieldmanager-free field validation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from korch._core import native
from korch.api.errors import BadRequest
from korch.resources.resource import Resource

Object = dict[str, Any]


# From a body to what is left of it, unknown fields, duplicate fields, and type errors as (path, message).
CustomCheck = Callable[[bytes], tuple[bytes, list[str], list[str], list[tuple[str, str]]]]


@dataclass(frozen=True, slots=True)
class Checked:
    """A pruned body. `strict` are the findings that only strict validation refuses; `errors` are those that nobody accepts."""

    body: bytes
    strict: Sequence[str] = ()
    error: str = ""


class Codec:
    """Bodies of every kind, checked by one schema table."""

    def __init__(self, schema: native.Schema) -> None:
        self.schema = schema
        # The checks of custom kinds, by the name of their definition.
        self.custom: dict[str, CustomCheck] = {}

    def check(self, definition: str, body: bytes) -> Checked:
        """Return `body` pruned to what `definition` knows, with what was found. Raises ValueError when it is no JSON."""
        custom = self.custom.get(definition)
        pruned, unknown, duplicates, errors = custom(body) if custom else self.schema.check(definition, body)
        strict = [f'unknown field "{path}"' for path in unknown] + [f'duplicate field "{path}"' for path in duplicates]
        return Checked(pruned, strict, errors[0][1] if errors else "")

    def decode(self, resource: Resource, body: bytes, field_validation: str, warnings: list[str]) -> Object:
        """Return the object in `body`, which must be of this kind and version. Raises BadRequest; appends to `warnings`."""
        return self.decode_as(resource.schema, resource.kind, resource.api_version, body, field_validation, warnings)

    def decode_as(self, definition: str, kind: str, api_version: str, body: bytes, field_validation: str, warnings: list[str]) -> Object:
        """Return the object in `body` decoded as `definition`. Raises BadRequest; appends to `warnings`."""
        given_kind, given_version = _type_meta(body, kind, api_version)
        version = api_version.rpartition("/")[2]
        if given_version != api_version:
            raise BadRequest(f"the API version in the data ({given_version}) does not match the expected API version ({api_version})")
        if given_kind != kind:
            why = f"converting ({version}.{given_kind}) to ({kind}): unknown conversion"
            raise BadRequest(f'{given_kind} in version "{version}" cannot be handled as a {kind}: {why}')
        try:
            checked = self.check(definition, body)
        except ValueError as error:
            raise BadRequest(f'{given_kind} in version "{version}" cannot be handled as a {kind}: {error}') from error
        if checked.error:
            raise BadRequest(f'{given_kind} in version "{version}" cannot be handled as a {kind}: {checked.error}')
        if checked.strict:
            if field_validation == "Strict":
                found = ", ".join(checked.strict)
                raise BadRequest(f'{given_kind} in version "{version}" cannot be handled as a {kind}: strict decoding error: {found}')
            if field_validation == "Warn":
                warnings.extend(checked.strict)
        obj: Object = orjson.loads(checked.body)
        return normal(obj, kind, api_version)


def normal(obj: Object, kind: str, api_version: str) -> Object:
    """Return `obj` with kind, apiVersion and metadata in front and present."""
    metadata = obj.get("metadata") or {}
    return {"kind": kind, "apiVersion": api_version, "metadata": metadata} | {
        key: value for key, value in obj.items() if key not in ("kind", "apiVersion", "metadata")
    }


class _TypeMeta(msgspec.Struct, frozen=True, rename="camel"):
    kind: str | None = None
    api_version: str | None = None


_decode_type_meta = msgspec.json.Decoder(_TypeMeta).decode


def _type_meta(body: bytes, kind: str, api_version: str) -> tuple[str, str]:
    """Return kind and apiVersion as the body gives them, the expected ones where it gives none. Raises BadRequest."""
    try:
        given = _decode_type_meta(body)
    except UnicodeDecodeError:
        # Bytes that are no text count as the replacement character, as everywhere in the decoder.
        return _type_meta(body.decode(errors="replace").encode(), kind, api_version)
    except msgspec.MsgspecError as error:
        raise BadRequest(f"couldn't get version/kind; json parse error: {_json_problem(body, error)}") from error
    return given.kind or kind, given.api_version or api_version


def _json_problem(body: bytes, error: Exception) -> str:
    try:
        given: Any = orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        return str(problem)
    if isinstance(given, dict):
        return str(error)
    return f"json: cannot unmarshal {_json_word(given)} into Go value of type struct {{ APIVersion string; Kind string }}"


def _json_word(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, list):
        return "array"
    return "string" if isinstance(value, str) else "number"
