"""OpenAPI v2 as protobuf: every value of the JSON document is found again under the field number where clients look for it."""

from __future__ import annotations

import struct
from typing import Any

import orjson
import pytest
import yaml

from korch.apiserver.document import Answer
from korch.apiserver.openapi import OpenAPI
from korch.apiserver.openapi_v2_protobuf import MESSAGES, Field, encode_document
from korch.resources import catalogue, openapi
from korch.resources.resource import Catalogue, Resource

Json = dict[str, Any]
RELEASED = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
PRESENT = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
REFERENCE, BODY_FORM, OTHER_FORM = 2, 1, 2

# Field numbers of gnostic's openapi.v2 messages, by the key in the JSON.
NUMBERS = {
    "Document": {"swagger": 1, "info": 2, "paths": 8, "definitions": 9, "parameters": 10, "securityDefinitions": 13, "x-*": 16},
    "Info": {"title": 1, "version": 2, "description": 3, "contact": 5, "license": 6, "x-*": 7},
    "Paths": {"x-*": 1, "*": 2},
    "PathItem": {"$ref": 1, "get": 2, "put": 3, "post": 4, "delete": 5, "options": 6, "head": 7, "patch": 8, "parameters": 9, "x-*": 10},
    "Operation": {"tags": 1, "description": 3, "operationId": 5, "produces": 6, "consumes": 7, "parameters": 8, "responses": 9}
    | {"schemes": 10, "deprecated": 11, "security": 12, "x-*": 13},
    "BodyParameter": {"description": 1, "name": 2, "in": 3, "required": 4, "schema": 5, "x-*": 6},
    "QueryParameter": {"required": 1, "in": 2, "description": 3, "name": 4, "allowEmptyValue": 5, "type": 6, "uniqueItems": 20}
    | {"enum": 21, "multipleOf": 22, "x-*": 23},
    "PathParameter": {"required": 1, "in": 2, "description": 3, "name": 4, "type": 5, "format": 6, "uniqueItems": 19, "x-*": 22},
    "Header": {"type": 1, "items": 3, "default": 5, "multipleOf": 17, "description": 18, "x-*": 19},
    "Responses": {"*": 1, "x-*": 2},
    "Response": {"description": 1, "schema": 2, "headers": 3, "examples": 4, "x-*": 5},
    "Definitions": {"*": 1},
    "Properties": {"*": 1},
    "Schema": {"$ref": 1, "format": 2, "title": 3, "description": 4, "default": 5, "multipleOf": 6, "maximum": 7, "exclusiveMaximum": 8}
    | {"minimum": 9, "exclusiveMinimum": 10, "maxLength": 11, "minLength": 12, "pattern": 13, "maxItems": 14, "minItems": 15}
    | {"uniqueItems": 16, "maxProperties": 17, "minProperties": 18, "required": 19, "enum": 20, "additionalProperties": 21}
    | {"type": 22, "items": 23, "allOf": 24, "properties": 25, "discriminator": 26, "readOnly": 27, "xml": 28, "externalDocs": 29}
    | {"example": 30, "x-*": 31},
    "FileSchema": {"format": 1, "default": 4, "required": 5, "type": 6, "example": 9, "x-*": 10},
    "ApiKeySecurity": {"type": 1, "name": 2, "in": 3, "description": 4, "x-*": 5},
}


@pytest.fixture(scope="module")
def served() -> OpenAPI:
    if not openapi.SCHEMA_PATH.exists():
        from korch.resources import build_schema

        build_schema.build()
    return OpenAPI(catalogue())


def get(served: OpenAPI, **request: str) -> Answer:
    answer = served.answer("/openapi/v2", **request)
    assert answer is not None
    return answer


def wire(body: bytes) -> list[tuple[int, Any]]:
    """Return the (number, value) pairs of a message as they stand: integers, doubles, or bytes."""
    found: list[tuple[int, Any]] = []
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte, at = body[at], at + 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(body):
        tag = varint()
        if tag & 7 == 0:
            found.append((tag >> 3, varint()))
            continue
        assert tag & 7 in (1, 2), f"wire type {tag & 7} at {at}"
        size = 8 if tag & 7 == 1 else varint()
        assert at + size <= len(body)
        piece, at = body[at : at + size], at + size
        found.append((tag >> 3, struct.unpack("<d", piece)[0] if tag & 7 == 1 else piece))
    return found


def the(body: bytes, *numbers: int) -> Any:
    """Return the one value that is found by following field numbers into nested messages."""
    for number in numbers:
        (body,) = [value for key, value in wire(body) if key == number]
    return body


def pair(body: bytes) -> tuple[str, bytes]:
    return the(body, 1).decode(), the(body, 2)


def schema(value: Json) -> bytes:
    """Return the bytes of one definition."""
    name, body = pair(the(encode_document({"definitions": {"it": value}}), 9, 1))
    assert name == "it"
    return body


def read(kind: str, body: bytes) -> Json:
    """Return the JSON that a message of the tables was made from."""
    found: Json = {}
    by_number = {field.number: (key, field) for key, field in MESSAGES[kind].items()}
    for number, value in wire(body):
        key, field = by_number[number]
        if key in ("*", "x-*"):
            name, inner = pair(value)
            found[name] = read_value(field, inner)
        elif field.is_repeated:
            found.setdefault(key, []).append(read_value(field, value))
        else:
            found[key] = read_value(field, value)
    return found


def read_value(field: Field, value: Any) -> Any:
    match field.kind:
        case "string":
            return value.decode()
        case "bool":
            return bool(value)
        case "int64" | "double":
            return value
        case "Any":
            return yaml.safe_load(the(value, 2).decode())
        case "TypeItem":
            return the(value, 1).decode()
        case "ItemsItem":
            return read("Schema", the(value, 1))
    forms = {
        "AdditionalPropertiesItem": {1: "Schema"},
        "SchemaItem": {1: "Schema", 2: "FileSchema"},
        "ParametersItem": {1: "Parameter", REFERENCE: "JsonReference"},
        "ResponseValue": {1: "Response", REFERENCE: "JsonReference"},
        "Parameter": {BODY_FORM: "BodyParameter", OTHER_FORM: "NonBodyParameter"},
        "NonBodyParameter": {1: "HeaderParameter", 2: "FormDataParameter", 3: "QueryParameter", 4: "PathParameter"},
    }
    if field.kind in forms:
        ((number, inner),) = wire(value)
        return read_value(Field(number, forms[field.kind][number]), inner)
    return read(field.kind, value)


@pytest.mark.parametrize("message", NUMBERS)
def test_a_key_has_the_number_that_clients_know(message: str) -> None:
    fields = MESSAGES[message]
    assert {key: fields[key].number for key in NUMBERS[message]} == NUMBERS[message]
    assert sorted(field.number for field in fields.values()) == list(range(1, len(fields) + 1))


def test_nothing_of_the_document_is_lost(served: OpenAPI) -> None:
    document = orjson.loads(get(served).body)
    for item in document["paths"].values():
        for verb, operation in item.items():
            if verb != "parameters" and not operation["parameters"]:
                del operation["parameters"]  # An empty list and none at all are the same in protobuf.
    assert len(document["paths"]) > 50
    assert len(document["definitions"]) > 200
    assert read("Document", get(served, accept=RELEASED).body) == document


def test_patch_says_what_kubectl_looks_for(served: OpenAPI) -> None:
    paths = dict(pair(body) for number, body in wire(the(get(served, accept=RELEASED).body, 8)) if number == 2)
    patch = the(paths["/api/v1/namespaces/{name}"], 8)
    extensions = dict(pair(body) for number, body in wire(patch) if number == 13)
    named = yaml.safe_load(the(extensions["x-kubernetes-group-version-kind"], 2))
    assert named == {"group": "", "kind": "Namespace", "version": "v1"}
    others = [inner for number, body in wire(patch) if number == 8 for form, inner in wire(the(body, 1)) if form == OTHER_FORM]
    assert "fieldValidation" in {the(one, 3, 4).decode() for one in others}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param({"type": "object"}, [(22, b"\x0a\x06object")], id="one type is a list of one"),
        pytest.param({"type": ["string", "null"]}, [(22, b"\x0a\x06string\x0a\x04null")], id="many types"),
        pytest.param({"items": {"format": "x"}}, [(23, b"\x0a\x03\x12\x01x")], id="items of one schema"),
        pytest.param({"items": [{}, {}]}, [(23, b"\x0a\x00\x0a\x00")], id="items by place"),
        pytest.param({"additionalProperties": {}}, [(21, b"\x0a\x00")], id="any additional property"),
        pytest.param({"additionalProperties": True}, [(21, b"\x10\x01")], id="additional properties allowed"),
        pytest.param({"additionalProperties": False}, [(21, b"\x10\x00")], id="no additional properties, said aloud"),
        pytest.param({"properties": {"x-a": {}, "*": {}}}, [(25, b"\x0a\x07\x0a\x03x-a\x12\x00\x0a\x05\x0a\x01*\x12\x00")], id="odd names"),
        pytest.param({"maximum": 1.5, "minimum": -2, "maxLength": 300}, [(7, 1.5), (9, -2.0), (11, 300)], id="numbers"),
        pytest.param({"minLength": -1}, [(12, 2**64 - 1)], id="a negative integer takes all 64 bits"),
        pytest.param({"minimum": 0, "uniqueItems": False, "title": ""}, [], id="zero values are what an absent field reads as"),
        pytest.param({"default": False}, [(5, b"\x12\x06false\n")], id="a default that is false"),
        pytest.param({"default": None}, [(5, b"\x12\x05null\n")], id="a default that is null"),
        pytest.param({"enum": ["a", 1]}, [(20, b'\x12\x04"a"\n'), (20, b"\x12\x021\n")], id="free values"),
        pytest.param({"required": ["a", "b"]}, [(19, b"a"), (19, b"b")], id="repeated text"),
        pytest.param({"description": None, "oneOf": [{}]}, [], id="what v2 does not know is left out"),
    ],
)
def test_a_schema_is_written_as(value: Json, expected: list[tuple[int, Any]]) -> None:
    assert wire(schema(value)) == expected


@pytest.mark.parametrize(
    ("parameter", "forms", "name"),
    [
        ({"in": "body", "name": "it", "schema": {}}, (1, BODY_FORM), 2),
        ({"in": "header", "name": "it"}, (1, OTHER_FORM, 1), 4),
        ({"in": "formData", "name": "it"}, (1, OTHER_FORM, 2), 4),
        ({"in": "query", "name": "it"}, (1, OTHER_FORM, 3), 4),
        ({"in": "path", "name": "it"}, (1, OTHER_FORM, 4), 4),
        ({"$ref": "it"}, (REFERENCE,), 1),
    ],
    ids=lambda value: value.get("in", "reference") if isinstance(value, dict) else "",
)
def test_a_parameter_has_a_form_by_its_place(parameter: Json, forms: tuple[int, ...], name: int) -> None:
    body = encode_document({"paths": {"/a": {"parameters": [parameter]}}})
    assert the(body, 8, 2, 2, 9, *forms, name) == b"it"


@pytest.mark.parametrize(
    ("response", "numbers", "expected"),
    [
        ({"description": "OK"}, (1, 1), b"OK"),
        ({"description": "OK", "schema": {"$ref": "it"}}, (1, 2, 1, 1), b"it"),
        ({"description": "OK", "schema": {"type": "file"}}, (1, 2, 2, 6), b"file"),
        ({"$ref": "it"}, (REFERENCE, 1), b"it"),
    ],
)
def test_a_response_is_found_by_its_code(response: Json, numbers: tuple[int, ...], expected: bytes) -> None:
    body = encode_document({"paths": {"/a": {"get": {"responses": {"200": response}}}}})
    code, value = pair(the(body, 8, 2, 2, 2, 9, 1))
    assert code == "200"
    assert the(value, *numbers) == expected


@pytest.mark.parametrize(
    ("declared", "form"),
    [
        ({"type": "basic"}, 1),
        ({"type": "apiKey"}, 2),
        ({"type": "oauth2", "flow": "implicit"}, 3),
        ({"type": "oauth2", "flow": "password"}, 4),
        ({"type": "oauth2", "flow": "application"}, 5),
        ({"type": "oauth2", "flow": "accessCode"}, 6),
    ],
)
def test_a_way_to_log_in_has_a_form_by_its_type_and_flow(declared: Json, form: int) -> None:
    body = encode_document({"securityDefinitions": {"it": declared}, "security": [{"it": ["a"]}]})
    assert the(body, 13, 1, 2, form, 1).decode() == declared["type"]
    assert the(body, 12, 1, 2, 1) == b"a"


@pytest.mark.parametrize("text", ["plain", 'a: "b" # c', "\t\n\x00", "\x7f\x85\x9f", "\u2028\u2029\ufeff\ufffe\uffff", "ünï 😀", "- no"])
def test_a_vendor_extension_reads_as_yaml(text: str) -> None:
    value = {text: [text, 1, 1.5, None, True]}
    name, inner = pair(the(schema({"x-odd": value}), 31))
    assert name == "x-odd"
    assert yaml.safe_load(the(inner, 2).decode()) == value


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (RELEASED, PRESENT),
        (PRESENT, PRESENT),
        (f"{PRESENT};q=0.8, application/json;q=0.9", "application/json"),
        (f"application/json;q=0.5,{RELEASED}", PRESENT),
        (f"text/html, {PRESENT};q=0, */*;q=0.1", "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
    ],
)
def test_the_client_gets_the_form_that_it_prefers(served: OpenAPI, accept: str, content_type: str) -> None:
    answer = get(served, accept=accept)
    assert (answer.status, answer.headers["Content-Type"], answer.headers["Vary"]) == (200, content_type, "Accept")


def test_a_client_that_has_the_document_gets_no_body(served: OpenAPI) -> None:
    etag = get(served, accept=RELEASED).headers["ETag"]
    assert etag != get(served).headers["ETag"]
    known = get(served, accept=PRESENT, if_none_match=etag)
    assert (known.status, known.headers["ETag"], known.body) == (304, etag, b"")


def test_it_is_made_once_and_again_when_a_kind_is_added() -> None:
    name = "com.example.v1.Thing"
    kinds = Catalogue([])
    served = OpenAPI(kinds, lambda: openapi.definitions() | {name: {"type": "object"}})
    before = get(served, accept=RELEASED)
    assert get(served, accept=RELEASED).body is before.body
    kinds.add(Resource(group="example.com", version="v1", kind="Thing", plural="things", schema=name))
    after = get(served, accept=RELEASED)
    assert after.headers["ETag"] != before.headers["ETag"]
    assert read("Document", after.body)["definitions"][name] == {"type": "object"}
