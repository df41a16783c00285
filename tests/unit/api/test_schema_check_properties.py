"""Whatever bytes arrive: the scanner agrees with a JSON parser, and checking twice changes nothing more."""

import json

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from korch._core import native

ANYTHING = native.Schema(b'{"any": {"description": "any JSON"}}')
POD = "io.k8s.api.core.v1.Pod"

scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
documents = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30)
NAMES = """apiVersion kind metadata spec name labels containers image env value ports containerPort resources limits cpu replicas
creationTimestamp finalizers nope tolerations volumes emptyDir sizeLimit"""
names = st.sampled_from(NAMES.split())
values = st.none() | st.booleans() | st.integers(-5, 2**40) | st.sampled_from(["", "x", "1", "250m", "1.5Gi", "2024-01-01T00:00:00Z"])
pod_like = st.recursive(values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5), max_leaves=25)


@given(documents, st.sampled_from([None, 2]), st.booleans())
def test_any_json_survives_with_its_white_space_gone(document, indent, escaped):
    text = json.dumps(document, indent=indent, ensure_ascii=escaped)
    body, unknown, duplicate, errors = ANYTHING.check("any", text.encode())
    if document is None:
        document = {}
    assert json.loads(body) == document
    assert (unknown, duplicate, errors) == ([], [], [])


@given(documents, st.data())
def test_damaged_json_is_accepted_exactly_when_a_parser_accepts_it(document, data):
    text = bytearray(json.dumps(document).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(text) - 1))
        text[position] = data.draw(st.sampled_from(b'{}[]",:0 1-.eE\\tfnu\x00a'))
    try:
        wanted = json.loads(text.decode())
        is_json = b"NaN" not in text and b"Infinity" not in text
    except ValueError:
        is_json, wanted = False, None
    try:
        body = ANYTHING.check("any", bytes(text))[0]
        accepted = True
    except ValueError:
        accepted, body = False, b""
    assert accepted == is_json
    # A lone surrogate becomes U+FFFD here, as in Go.
    if accepted and wanted is not None and b"\\u" not in text:
        assert json.loads(body) == wanted


@settings(max_examples=300)
@given(st.dictionaries(names, pod_like, max_size=5))
def test_a_checked_body_is_clean(schema, document):
    body, *_ = schema.check(POD, orjson.dumps(document))
    again, unknown, duplicate, errors = schema.check(POD, body)
    assert again == body
    assert (unknown, duplicate, errors) == ([], [], [])
