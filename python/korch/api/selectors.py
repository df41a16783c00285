"""Label and field selectors: text or a LabelSelector becomes a tuple of requirements, and an object matches when all of them do.

A requirement is `(target, key, operator, values)`: target "label" or "field"; operator "=", "!=", "in", "notin", "exists",
"!exists", "gt" or "lt" (the last two for labels only). It is the form that the store's indexes and watches take, so that a
selector is parsed once and then travels as it is. Parsing is cached: the same few selectors come with every request.

Two rules surprise newcomers. A label that is missing satisfies `!=` and `notin`. A field that is missing reads as "".
Mirrors apimachinery's `labels` and `fields` packages, grammar and error messages included.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from korch.api import names
from korch.api.errors import quoted

Requirement = tuple[str, str, str, Sequence[str]]
Requirements = tuple[Requirement, ...]

EVERYTHING: Requirements = ()
# No value is in the empty set, so this matches no object: what a missing (null) LabelSelector means.
NOTHING: Requirements = (("label", "", "in", ()),)

_OPERATORS = ("in", "notin", "=", "==", "!=", "gt", "lt")
_SYMBOLS = ("!=", "==", "=", "!", "(", ")", ",", ">", "<")
_SPACE = " \t\r\n"
_OPERATOR_OF = {"=": "=", "==": "=", "!=": "!=", ">": "gt", "<": "lt", "in": "in", "notin": "notin"}
_SET_OPERATOR_OF = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!exists"}


class SelectorError(ValueError):
    """A selector that cannot be understood; the message is upstream's."""


@lru_cache(maxsize=4096)
def parse_labels(text: str) -> Requirements:
    """Return the requirements of a label selector such as `app=web,tier in (a,b),!legacy`, ordered by key. Raises SelectorError."""
    return _LabelParser(text).parse()


@lru_cache(maxsize=4096)
def parse_fields(text: str) -> Requirements:
    """Return the requirements of a field selector such as `spec.nodeName=n1,status.phase!=Failed`, ordered by key. Raises SelectorError."""
    found: list[Requirement] = []
    for term in _split_terms(text):
        if not term:
            continue
        for position in _operator_positions(term):
            operator = next((symbol for symbol in ("!=", "==", "=") if term.startswith(symbol, position)), "")
            if operator:
                value = _unescape(term[position + len(operator) :])
                found.append(("field", term[:position], _OPERATOR_OF[operator], (value,)))
                break
        else:
            raise SelectorError(f"invalid selector: '{text}'; can't understand '{term}'")
    return tuple(sorted(found, key=lambda requirement: requirement[1]))


def from_label_selector(selector: Mapping[str, Any] | None) -> Requirements:
    """Return the requirements of a LabelSelector object (matchLabels and matchExpressions), ordered by key.

    None selects nothing, an empty selector everything. Raises SelectorError.
    """
    if selector is None:
        return NOTHING
    found = [_requirement(key, "=", (value,)) for key, value in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or ():
        operator = _SET_OPERATOR_OF.get(expression.get("operator", ""))
        if operator is None:
            raise SelectorError(f'"{expression.get("operator", "")}" is not a valid label selector operator')
        found.append(_requirement(expression.get("key", ""), operator, tuple(expression.get("values") or ())))
    return tuple(sorted(found, key=lambda requirement: requirement[1]))


def matches(requirements: Sequence[Requirement], labels: Mapping[str, str] | None, fields: Mapping[str, str] | None = None) -> bool:
    """Return whether an object with these labels and fields satisfies every requirement."""
    for target, key, operator, values in requirements:
        have: str | None
        if target == "label":
            have = labels.get(key) if labels else None
        else:
            have = (fields.get(key) if fields else None) or ""
        if not _holds(have, operator, values):
            return False
    return True


def format(requirements: Sequence[Requirement]) -> str:
    """Return the text form; for labels `parse_labels(format(r)) == r`."""
    return ",".join(_format_one(requirement) for requirement in requirements)


def _holds(have: str | None, operator: str, values: Sequence[str]) -> bool:
    if operator in ("=", "in"):
        return have is not None and have in values
    if operator in ("!=", "notin"):
        return have is None or have not in values
    if operator == "exists":
        return have is not None
    if operator == "!exists":
        return have is None
    return _compares(have, operator, values)


def _compares(have: str | None, operator: str, values: Sequence[str]) -> bool:
    """`gt` and `lt` compare integers; anything that is none does not match."""
    try:
        left, right = int(have or ""), int(values[0])
    except ValueError:
        return False
    return left > right if operator == "gt" else left < right


def _format_one(requirement: Requirement) -> str:
    target, key, operator, values = requirement
    if operator == "exists":
        return key
    if operator == "!exists":
        return f"!{key}"
    if operator in ("in", "notin"):
        return f"{key} {operator} ({','.join(sorted(values))})"
    symbol = {"gt": ">", "lt": "<"}.get(operator, operator)
    return f"{key}{symbol}{_escape(values[0]) if target == 'field' else values[0]}"


class _LabelParser:
    """Recursive descent over tokens `(type, literal)`; type is "id", "end" or the symbol itself."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._position = 0

    def parse(self) -> Requirements:
        found: list[Requirement] = []
        while True:
            kind, literal = self._peek()
            if kind == "end":
                break
            if kind not in ("id", "!"):
                raise SelectorError(f"found '{literal}', expected: !, identifier, or 'end of string'")
            try:
                found.append(self._requirement())
            except SelectorError as error:
                raise SelectorError(f"unable to parse requirement: {error}") from None
            kind, literal = self._next()
            if kind == "end":
                break
            if kind != ",":
                raise SelectorError(f"found '{literal}', expected: ',' or 'end of string'")
            kind, literal = self._peek()
            if kind not in ("id", "!"):
                raise SelectorError(f"found '{literal}', expected: identifier after ','")
        return tuple(sorted(found, key=lambda requirement: requirement[1]))

    def _requirement(self) -> Requirement:
        kind, key = self._next()
        absent = kind == "!"
        if absent:
            kind, key = self._next()
        if kind != "id":
            raise SelectorError(f"found '{key}', expected: identifier")
        _check_key(key)
        if absent:
            return _requirement(key, "!exists", ())
        if self._peek()[0] in ("end", ","):
            return _requirement(key, "exists", ())
        _, literal = self._next()
        operator = _OPERATOR_OF.get(literal)
        if operator is None:
            raise SelectorError(f"found '{literal}', expected: {', '.join(_OPERATORS)}")
        values = self._set() if operator in ("in", "notin") else self._exact()
        return _requirement(key, operator, values)

    def _exact(self) -> tuple[str, ...]:
        if self._peek()[0] in ("end", ","):
            return ("",)
        kind, literal = self._next()
        if kind != "id":
            raise SelectorError(f"found '{literal}', expected: identifier")
        return (literal,)

    def _set(self) -> tuple[str, ...]:
        kind, literal = self._next()
        if kind != "(":
            raise SelectorError(f"found '{literal}' expected: '('")
        kind, literal = self._peek()
        if kind == ")":
            self._next()
            return ()
        if kind not in ("id", ","):
            raise SelectorError(f"found '{literal}', expected: ',', ')' or identifier")
        values = self._identifiers()
        kind, literal = self._next()
        if kind != ")":
            raise SelectorError(f"found '{literal}', expected: ')'")
        return tuple(sorted(values))

    def _identifiers(self) -> set[str]:
        """A comma with nothing beside it stands for the empty value: `(,a)`, `(a,)` and `(a,,b)` all contain it."""
        values: set[str] = set()
        while True:
            kind, literal = self._next()
            if kind == "id":
                values.add(literal)
                kind, literal = self._peek()
                if kind == ")":
                    return values
                if kind != ",":
                    raise SelectorError(f"found '{literal}', expected: ',' or ')'")
            elif kind == ",":
                if not values:
                    values.add("")
                kind, _ = self._peek()
                if kind == ")":
                    values.add("")
                    return values
                if kind == ",":
                    self._next()
                    values.add("")
            else:
                raise SelectorError(f"found '{literal}', expected: ',', or identifier")

    def _peek(self) -> tuple[str, str]:
        return self._tokens[min(self._position, len(self._tokens) - 1)]

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._position += 1
        return token


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(text):
        if text[position] in _SPACE:
            position += 1
            continue
        symbol = next((symbol for symbol in _SYMBOLS if text.startswith(symbol, position)), "")
        if symbol:
            yield symbol, symbol
            position += len(symbol)
            continue
        end = position
        while end < len(text) and text[end] not in _SPACE and text[end] not in "!=(),><":
            end += 1
        yield "id", text[position:end]
        position = end
    yield "end", ""


def _requirement(key: str, operator: str, values: tuple[str, ...]) -> Requirement:
    """Check and build one label requirement. Mirrors labels.NewRequirement."""
    _check_key(key)
    if operator in ("in", "notin") and not values:
        raise SelectorError("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty")
    if operator in ("exists", "!exists") and values:
        raise SelectorError(
            f"values: Invalid value: [{','.join(map(quoted, values))}]: values set must be empty for exists and does not exist"
        )
    for index, value in enumerate(values):
        if operator in ("gt", "lt") and not re.fullmatch(r"[+-]?[0-9]+", value):
            raise SelectorError(f"values[{index}]: Invalid value: {quoted(value)}: for 'Gt', 'Lt' operators, the value must be an integer")
        why = names.is_label_value(value)
        if why:
            raise SelectorError(f"values[{index}][{key}]: Invalid value: {quoted(value)}: {'; '.join(why)}")
    return ("label", key, operator, values)


def _check_key(key: str) -> None:
    """Raise SelectorError unless `key` may be a label's key."""
    why = names.is_qualified_name(key)
    if why:
        raise SelectorError(f"key: Invalid value: {quoted(key)}: {'; '.join(why)}")


def _split_terms(text: str) -> Iterator[str]:
    """Split at commas that no backslash escapes; the escapes stay."""
    start = position = 0
    while position < len(text):
        if text[position] == "\\":
            position += 2
            continue
        if text[position] == ",":
            yield text[start:position]
            start = position + 1
        position += 1
    yield text[start:]


def _operator_positions(term: str) -> Iterator[int]:
    """Yield the positions where an operator could stand: every place that no backslash escapes."""
    position = 0
    while position < len(term):
        if term[position] == "\\":
            position += 2
            continue
        yield position
        position += 1


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")


def _unescape(value: str) -> str:
    out: list[str] = []
    position = 0
    while position < len(value):
        char = value[position]
        if char == "\\":
            following = value[position + 1 : position + 2]
            if not following or following not in "\\,=":
                raise SelectorError(f"invalid field selector: invalid escape sequence: {value[position : position + 2]}")
            out.append(following)
            position += 2
            continue
        if char in ",=":
            raise SelectorError(f"invalid field selector: unescaped character in value: {char}")
        out.append(char)
        position += 1
    return "".join(out)
