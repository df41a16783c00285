"""The OpenAPI v2 document as protobuf: the form in which kubectl and client-go ask for it.

gnostic's schema of OpenAPI v2 has one message for each kind of object in the JSON. Four things differ from the JSON, and the tables
below are about these: keys of a map become repeated (name, value) pairs; vendor extensions (`x-...`) and free values (`default`,
`enum`, `example`) are YAML text; a value that may be of several forms is a union with a number for each; and false, 0 and "" are not
written, being what an absent field reads as. Mirrors kube-openapi's ToProtoBinary over gnostic-models/openapiv2.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

CONTENT_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
# What clients ask for. The "@" was taken out later, since a media type may not hold one; released clients still send it.
MEDIA_TYPES = frozenset({CONTENT_TYPE, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"})

Json = dict[str, Any]
_VARINT, _FIXED64, _LENGTH = 0, 1, 2
_TEXT = "string"
_SCALARS = frozenset({_TEXT, "bool", "int64", "double"})
_SHORT_VARINTS = [bytes([value]) for value in range(0x80)]
_EXTENSIONS, _ENTRIES = "x-*", "*"

# The keys that say what a primitive value may be, in the one order that headers, items and parameters share.
_PRIMITIVE_HEAD = "type format items:PrimitivesItems collectionFormat default:Any"
_RANGE = "maximum:double exclusiveMaximum:bool minimum:double exclusiveMinimum:bool"
_SIZES = "maxLength:int64 minLength:int64 pattern maxItems:int64 minItems:int64 uniqueItems:bool"
_PRIMITIVE = f"{_PRIMITIVE_HEAD} {_RANGE} {_SIZES} enum:[Any] multipleOf:double"
_PARAMETER = "required:bool in description name"

# Message -> its fields as `key:kind`, text where no kind is said, [kind] where repeated; their numbers count from 1. `x-*` takes the
# vendor extensions and `*` all other keys of a map: both are repeated pairs.
_LAYOUT = {
    "Document": "swagger info:Info host basePath schemes:[string] consumes:[string] produces:[string] paths:Paths"
    " definitions:Definitions parameters:ParameterDefinitions responses:ResponseDefinitions security:[SecurityRequirement]"
    " securityDefinitions:SecurityDefinitions tags:[Tag] externalDocs:ExternalDocs x-*:Any",
    "Info": "title version description termsOfService contact:Contact license:License x-*:Any",
    "Contact": "name url email x-*:Any",
    "License": "name url x-*:Any",
    "Tag": "name description externalDocs:ExternalDocs x-*:Any",
    "ExternalDocs": "description url x-*:Any",
    "Paths": "x-*:Any *:PathItem",
    "PathItem": "$ref get:Operation put:Operation post:Operation delete:Operation options:Operation head:Operation patch:Operation"
    " parameters:[ParametersItem] x-*:Any",
    "Operation": "tags:[string] summary description externalDocs:ExternalDocs operationId produces:[string] consumes:[string]"
    " parameters:[ParametersItem] responses:Responses schemes:[string] deprecated:bool security:[SecurityRequirement] x-*:Any",
    "ParameterDefinitions": "*:Parameter",
    "BodyParameter": "description name in required:bool schema:Schema x-*:Any",
    "QueryParameter": f"{_PARAMETER} allowEmptyValue:bool {_PRIMITIVE} x-*:Any",
    "FormDataParameter": f"{_PARAMETER} allowEmptyValue:bool {_PRIMITIVE} x-*:Any",
    "PathParameter": f"{_PARAMETER} {_PRIMITIVE} x-*:Any",
    "HeaderParameter": f"{_PARAMETER} {_PRIMITIVE} x-*:Any",
    "PrimitivesItems": f"{_PRIMITIVE} x-*:Any",
    "JsonReference": "$ref description",
    "ResponseDefinitions": "*:Response",
    "Responses": "*:ResponseValue x-*:Any",
    "Response": "description schema:SchemaItem headers:Headers examples:Examples x-*:Any",
    "Headers": "*:Header",
    "Header": f"{_PRIMITIVE} description x-*:Any",
    "Examples": "*:Any",
    "Definitions": "*:Schema",
    "Properties": "*:Schema",
    "Schema": f"$ref format title description default:Any multipleOf:double {_RANGE} {_SIZES} maxProperties:int64 minProperties:int64"
    " required:[string] enum:[Any] additionalProperties:AdditionalPropertiesItem type:TypeItem items:ItemsItem allOf:[Schema]"
    " properties:Properties discriminator readOnly:bool xml:Xml externalDocs:ExternalDocs example:Any x-*:Any",
    "FileSchema": "format title description default:Any required:[string] type readOnly:bool externalDocs:ExternalDocs example:Any x-*:Any",
    "Xml": "name namespace prefix attribute:bool wrapped:bool x-*:Any",
    "SecurityRequirement": "*:StringArray",
    "SecurityDefinitions": "*:SecurityDefinitionsItem",
    "BasicSecurity": "type description x-*:Any",
    "ApiKeySecurity": "type name in description x-*:Any",
    "OAuth2Implicit": "type flow scopes:Scopes authorizationUrl description x-*:Any",
    "OAuth2Password": "type flow scopes:Scopes tokenUrl description x-*:Any",
    "OAuth2Application": "type flow scopes:Scopes tokenUrl description x-*:Any",
    "OAuth2AccessCode": "type flow scopes:Scopes authorizationUrl tokenUrl description x-*:Any",
    "Scopes": "*:string",
}

_BY_PLACE = {"header": (1, "HeaderParameter"), "formData": (2, "FormDataParameter"), "path": (4, "PathParameter")}
_BY_FLOW = {"password": (4, "OAuth2Password"), "application": (5, "OAuth2Application"), "accessCode": (6, "OAuth2AccessCode")}


def _security(value: Json) -> tuple[int, str]:
    if value.get("type") == "oauth2":
        return _BY_FLOW.get(value.get("flow", ""), (3, "OAuth2Implicit"))
    return (2, "ApiKeySecurity") if value.get("type") == "apiKey" else (1, "BasicSecurity")


def _unless_reference(kind: str) -> Callable[[Json], tuple[int, str]]:
    return lambda value: (2, "JsonReference") if "$ref" in value else (1, kind)


# Union -> which of its forms a value is: the form's number and kind. The form is written even when it is empty.
_UNIONS: dict[str, Callable[[Any], tuple[int, str]]] = {
    "AdditionalPropertiesItem": lambda value: (2, "bool") if isinstance(value, bool) else (1, "Schema"),
    "ItemsItem": lambda value: (1, "[Schema]") if isinstance(value, list) else (1, "Schema"),
    "TypeItem": lambda value: (1, "[string]") if isinstance(value, list) else (1, _TEXT),
    "StringArray": lambda _value: (1, "[string]"),
    "SchemaItem": lambda value: (2, "FileSchema") if value.get("type") == "file" else (1, "Schema"),
    "ParametersItem": _unless_reference("Parameter"),
    "ResponseValue": _unless_reference("Response"),
    "Parameter": lambda value: (1, "BodyParameter") if value.get("in") == "body" else (2, "NonBodyParameter"),
    "NonBodyParameter": lambda value: _BY_PLACE.get(value.get("in", ""), (3, "QueryParameter")),
    "SecurityDefinitionsItem": _security,
}

# Characters that JSON lets stand in a string and that YAML forbids or takes for the end of a line.
_NOT_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


class Field(NamedTuple):
    """A field of a message: its number, and the kind of its value (of its items, when it is repeated)."""

    number: int
    kind: str
    is_repeated: bool = False


def _fields(layout: str) -> dict[str, Field]:
    found: dict[str, Field] = {}
    for number, text in enumerate(layout.split(), 1):
        key, _, kind = text.partition(":")
        found[key] = Field(number, kind.strip("[]") or _TEXT, kind.startswith("["))
    return found


MESSAGES: dict[str, dict[str, Field]] = {name: _fields(layout) for name, layout in _LAYOUT.items()}


def encode_document(document: Json) -> bytes:
    """Return an OpenAPI v2 document as gnostic's `openapi.v2.Document`. Takes some 50 ms of CPU for all built-in kinds; never awaits.

    Keys that OpenAPI v2 does not know are left out: the layout has no place for them.
    """
    return _message(MESSAGES["Document"], document)


def _message(fields: dict[str, Field], value: Json) -> bytes:
    written = bytearray()
    for key, child in value.items():
        field = None if key in (_ENTRIES, _EXTENSIONS) else fields.get(key)
        if field is not None:
            _write_field(written, field, child)
            continue
        field = (fields.get(_EXTENSIONS) if key.startswith("x-") else None) or fields.get(_ENTRIES)
        if field is not None:
            pair = bytearray()
            _write(pair, 1, _TEXT, key)
            _write(pair, 2, field.kind, child)
            _write_bytes(written, field.number, pair)
    return bytes(written)


def _write_field(written: bytearray, field: Field, value: Any) -> None:
    if field.is_repeated:
        for one in value or ():
            _write(written, field.number, field.kind, one)
    elif value or (field.kind not in _SCALARS and value is not None) or field.kind == "Any":
        _write(written, field.number, field.kind, value)


def _write(written: bytearray, number: int, kind: str, value: Any) -> None:
    """Append one field, whatever its value."""
    match kind:
        case "string":
            _write_bytes(written, number, value.encode())
        case "bool" | "int64":
            written += _varint(number << 3 | _VARINT) + _varint(int(value) & 0xFFFF_FFFF_FFFF_FFFF)
        case "double":
            written += _varint(number << 3 | _FIXED64) + struct.pack("<d", value)
        case "Any":
            text = bytearray()
            _write_bytes(text, 2, _yaml(value))
            _write_bytes(written, number, text)
        case _ if kind in _UNIONS:
            _write_bytes(written, number, _union(kind, value))
        case _:
            _write_bytes(written, number, _message(MESSAGES[kind], value))


def _union(kind: str, value: Any) -> bytes:
    number, form = _UNIONS[kind](value)
    written = bytearray()
    for one in value if form.startswith("[") else (value,):
        _write(written, number, form.strip("[]"), one)
    return bytes(written)


def _write_bytes(written: bytearray, number: int, body: bytes | bytearray) -> None:
    written += _varint(number << 3 | _LENGTH)
    written += _varint(len(body))
    written += body


def _varint(value: int) -> bytes:
    if value < 0x80:
        return _SHORT_VARINTS[value]
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _yaml(value: Any) -> bytes:
    """Return `value` as a line of YAML: its JSON, with what YAML reads otherwise escaped."""
    text = orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE).decode()
    return _NOT_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()
