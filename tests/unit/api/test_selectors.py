"""Selectors: upstream's grammar, messages and matching."""

import re

import pytest

from korch.api import selectors
from korch.api.selectors import SelectorError


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", ()),
        ("a", (("label", "a", "exists", ()),)),
        ("!a", (("label", "a", "!exists", ()),)),
        ("a=b", (("label", "a", "=", ("b",)),)),
        ("a==b", (("label", "a", "=", ("b",)),)),
        ("a!=b", (("label", "a", "!=", ("b",)),)),
        ("a=", (("label", "a", "=", ("",)),)),
        ("a in (y, x)", (("label", "a", "in", ("x", "y")),)),
        ("a notin (x)", (("label", "a", "notin", ("x",)),)),
        ("a in (,x)", (("label", "a", "in", ("", "x")),)),
        ("a in (x,)", (("label", "a", "in", ("", "x")),)),
        ("in in (in)", (("label", "in", "in", ("in",)),)),
        ("n>5", (("label", "n", "gt", ("5",)),)),
        (" z , a = b ", (("label", "a", "=", ("b",)), ("label", "z", "exists", ()))),
        ("app.kubernetes.io/name=web", (("label", "app.kubernetes.io/name", "=", ("web",)),)),
    ],
)
def test_label_selectors_parse(text, want):
    assert selectors.parse_labels(text) == want
    assert selectors.parse_labels(selectors.format(want)) == want


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,", "found '', expected: identifier after ','"),
        (",a", "found ',', expected: !, identifier, or 'end of string'"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a in x", "unable to parse requirement: found 'x' expected: '('"),
        ("a in (x", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a in ()", "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"),
        ("a=b=c", "found '=', expected: ',' or 'end of string'"),
        ("!a=b", "found '=', expected: ',' or 'end of string'"),
        ("a=-x", 'unable to parse requirement: values[0][a]: Invalid value: "-x": a valid label must be an empty string or consist of'),
        ("-a", 'unable to parse requirement: key: Invalid value: "-a": name part must consist of alphanumeric characters'),
        ("/a", 'unable to parse requirement: key: Invalid value: "/a": prefix part must be non-empty'),
        (f"a={'x' * 64}", f'unable to parse requirement: values[0][a]: Invalid value: "{"x" * 64}": must be no more than 63 bytes'),
    ],
)
def test_label_selectors_that_are_wrong_say_so_in_upstreams_words(text, message):
    with pytest.raises(SelectorError, match=r"^" + re.escape(message)):
        selectors.parse_labels(text)


@pytest.mark.parametrize(
    ("text", "labels", "does"),
    [
        ("a=b", {"a": "b"}, True),
        ("a=b", {}, False),
        ("a!=b", {}, True),
        ("a!=b", {"a": "b"}, False),
        ("a in (b,c)", {"a": "c"}, True),
        ("a notin (b,c)", {}, True),
        ("a notin (b,c)", {"a": "b"}, False),
        ("a", {"a": ""}, True),
        ("a", None, False),
        ("!a", {}, True),
        ("n>5,n<9", {"n": "7"}, True),
        ("n>5", {"n": "5"}, False),
        ("n>5", {"n": "many"}, False),
        ("a=b,c=d", {"a": "b"}, False),
    ],
)
def test_labels_match(text, labels, does):
    assert selectors.matches(selectors.parse_labels(text), labels) is does


def test_fields_match_and_a_missing_field_reads_as_empty():
    requirements = selectors.parse_fields("spec.nodeName=n1,status.phase!=Failed")
    assert requirements == (("field", "spec.nodeName", "=", ("n1",)), ("field", "status.phase", "!=", ("Failed",)))
    assert selectors.matches(requirements, {}, {"spec.nodeName": "n1", "status.phase": "Running"})
    assert not selectors.matches(requirements, {}, {"spec.nodeName": "n1", "status.phase": "Failed"})
    assert selectors.matches(selectors.parse_fields("spec.nodeName="), {}, {})


def test_field_values_are_escaped_with_backslashes():
    requirements = selectors.parse_fields(r"a=x\,y\=z\\")
    assert requirements == (("field", "a", "=", ("x,y=z\\",)),)
    assert selectors.format(requirements) == r"a=x\,y\=z\\"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "invalid selector: 'a'; can't understand 'a'"),
        ("a=b=c", "invalid field selector: unescaped character in value: ="),
        ("a=\\x", "invalid field selector: invalid escape sequence: \\x"),
    ],
)
def test_field_selectors_that_are_wrong_say_so(text, message):
    with pytest.raises(SelectorError, match=r"^" + re.escape(message) + "$"):
        selectors.parse_fields(text)


def test_label_selector_objects():
    requirements = selectors.from_label_selector(
        {
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["db"]}, {"key": "x", "operator": "Exists"}],
        }
    )
    assert selectors.format(requirements) == "app=web,tier notin (db),x"
    assert selectors.matches(selectors.from_label_selector({}), {"any": "thing"})
    assert not selectors.matches(selectors.from_label_selector(None), {"any": "thing"})
    with pytest.raises(SelectorError, match=r'^"Near" is not a valid label selector operator$'):
        selectors.from_label_selector({"matchExpressions": [{"key": "a", "operator": "Near"}]})
