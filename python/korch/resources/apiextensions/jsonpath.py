"""JSONPath as printer columns use it: `.a.b`, `['c']`, `[0]`, `[*]`, `[?(@.type=="Ready")]`, `..name`.

A parsed path finds a list of values. Mirrors client-go's util/jsonpath for what kubectl and columns need.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

Step = Callable[[Iterable[Any]], list[Any]]

_NAME = re.compile(r"[A-Za-z0-9_\-$]+|\*|\\\.")
_FILTER = re.compile(r"\?\(\s*@(?P<path>[^=!<>\s)]*)\s*(?:(?P<operator>==|!=|<=|>=|<|>)\s*(?P<value>.+?)\s*)?\)")


class JsonPathError(ValueError):
    """The text is no JSONPath."""


@lru_cache(maxsize=4096)
def parse(text: str) -> tuple[Step, ...]:
    """Return the steps of a path. Raises JsonPathError."""
    steps: list[Step] = []
    rest = text.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    while rest:
        if rest.startswith(".."):
            name, rest = _take_name(rest[2:])
            steps.append(_descend(name))
        elif rest.startswith(".["):
            rest = rest[1:]
        elif rest.startswith("."):
            if rest == ".":
                break
            name, rest = _take_name(rest[1:])
            steps.append(_field(name))
        elif rest.startswith("["):
            inner, rest = _take_bracket(rest)
            steps.append(_bracket(inner))
        else:
            raise JsonPathError(f"unrecognized character in action: U+{ord(rest[0]):04X} '{rest[0]}'")
    return tuple(steps)


def find(path: str, obj: Any) -> list[Any]:
    """Return what `path` finds in `obj`; nothing for what is missing. Raises JsonPathError."""
    values: list[Any] = [obj]
    for step in parse(path):
        values = step(values)
        if not values:
            break
    return values


def _take_name(text: str) -> tuple[str, str]:
    name, position = "", 0
    while found := _NAME.match(text, position):
        name += "." if found[0] == "\\." else found[0]
        position = found.end()
    if not position:
        raise JsonPathError("unexpected end of a field name" if not text else f"unrecognized character in action: '{text[0]}'")
    return name, text[position:]


def _take_bracket(text: str) -> tuple[str, str]:
    depth, quote = 0, ""
    for position, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "[":
            depth += 1
        elif letter == "]":
            depth -= 1
            if not depth:
                return text[1:position], text[position + 1 :]
    raise JsonPathError("unterminated array")


def _field(name: str) -> Step:
    if name == "*":
        return _all
    return lambda values: [one[name] for one in values if isinstance(one, dict) and name in one]


def _descend(name: str) -> Step:
    def walk(value: Any) -> Iterable[Any]:
        if isinstance(value, dict):
            if name in value:
                yield value[name]
            for child in value.values():
                yield from walk(child)
        elif isinstance(value, list):
            for child in value:
                yield from walk(child)

    return lambda values: [found for one in values for found in walk(one)]


def _bracket(inner: str) -> Step:
    inner = inner.strip()
    if inner == "*":
        return _all
    if len(inner) > 1 and inner[0] in "'\"" and inner[-1] == inner[0]:
        return _field(inner[1:-1])
    if inner.startswith("?"):
        return _filter(inner)
    if re.fullmatch(r"-?\d+", inner):
        return lambda values: [one[int(inner)] for one in values if isinstance(one, list) and -len(one) <= int(inner) < len(one)]
    if re.fullmatch(r"-?\d*:-?\d*(:-?\d*)?", inner):
        bounds = slice(*(int(part) if part else None for part in inner.split(":")))
        return lambda values: [found for one in values if isinstance(one, list) for found in one[bounds]]
    raise JsonPathError(f"invalid array index {inner}")


def _all(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for one in values:
        if isinstance(one, dict):
            found += one.values()
        elif isinstance(one, list):
            found += one
    return found


def _filter(inner: str) -> Step:
    match = _FILTER.fullmatch(inner)
    if match is None:
        raise JsonPathError(f"unrecognized filter {inner}")
    path, operator, wanted = match["path"], match["operator"], _literal(match["value"])
    parse(path)

    def holds(item: Any) -> bool:
        found = find(path, item)
        if operator is None:
            return bool(found)
        return any(_compares(one, operator, wanted) for one in found)

    return lambda values: [item for one in values if isinstance(one, list) for item in one if holds(item)]


def _literal(text: str | None) -> Any:
    if text is None:
        return None
    if text[:1] in "'\"" and text[-1:] == text[:1] and len(text) > 1:
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError as error:
        raise JsonPathError(f"unrecognized literal {text}") from error


def _compares(found: Any, operator: str, wanted: Any) -> bool:
    if operator == "==":
        return found == wanted
    if operator == "!=":
        return found != wanted
    if type(found) is not type(wanted) and not (isinstance(found, int | float) and isinstance(wanted, int | float)):
        return False
    return {"<": found < wanted, "<=": found <= wanted, ">": found > wanted, ">=": found >= wanted}[operator]
