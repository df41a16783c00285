"""The variable `authorizer` of CEL expressions: questions to the server's authorizer inside a policy or a match condition.

    authorizer.group('apps').resource('deployments').namespace(object.metadata.namespace).check('create').allowed()

An expression is taken apart before it is compiled: each such chain becomes a field of a map, `authorizer.c0.allowed`, and what stands in
its parentheses an expression of its own. To evaluate it, those are evaluated first, the authorizer is asked, and the map is given with
the answers. So a question may depend on everything but the variable of a comprehension around it. Mirrors the names of
apiserver's pkg/cel/library/authz.go.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from korch._core import native

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STEPS = {
    "path": 1, "group": 1, "serviceAccount": 2, "resource": 1, "subresource": 1, "namespace": 1, "name": 1, "fieldSelector": 1,
    "labelSelector": 1, "check": 1,
}  # fmt: skip
_ANSWERS = ("allowed", "reason", "errored", "error")


@dataclass(frozen=True, slots=True)
class Question:
    """One chain: its steps before `check`, with the expressions of their arguments, and the verb's. `is_own`: about the request itself."""

    steps: tuple[tuple[str, tuple[native.CelExpression, ...]], ...]
    verb: native.CelExpression
    is_own: bool


class AskingExpression:
    """An expression with questions. It speaks like native.CelExpression, but who evaluates it must answer the questions first."""

    def __init__(self, rest: native.CelExpression, questions: Sequence[Question]) -> None:
        self.rest = rest
        self.questions = tuple(questions)

    def mentions(self, name: str) -> bool:
        """Return whether the variable `name` occurs."""
        return any(one.mentions(name) for one in self._parts())

    def fields_of(self, owner: str) -> list[str]:
        """Return the fields that are read directly off the variable `owner`."""
        return sorted({field for one in self._parts() for field in one.fields_of(owner)})

    def _parts(self) -> list[native.CelExpression]:
        arguments = [one for question in self.questions for _, given in question.steps for one in given]
        return [self.rest, *arguments, *(question.verb for question in self.questions)]


def asking(source: str, variables: tuple[str, ...], result: str) -> AskingExpression | None:
    """Return an expression that asks the authorizer, None when `source` does not. Raises ValueError for what is no question."""
    pieces: list[str] = []
    questions: list[Question] = []
    position = 0
    for start in _mentions(source):
        if start < position:
            continue
        question, answer, end = _question(source, start + len("authorizer"), variables)
        pieces += [source[position:start], f"authorizer.c{len(questions)}.{answer}"]
        questions.append(question)
        position = end
    if not questions:
        return None
    return AskingExpression(native.CelExpression("".join(pieces) + source[position:], variables, result), questions)


def _mentions(source: str) -> list[int]:
    """Return where the variable `authorizer` is named, outside of strings."""
    found: list[int] = []
    position = 0
    while position < len(source):
        if source[position] in "'\"":
            position = _string_end(source, position)
            continue
        word = _WORD.match(source, position)
        if word is None:
            position += 1
            continue
        before = source[:position].rstrip()
        if word[0] == "authorizer" and not before.endswith("."):
            found.append(position)
        position = word.end()
    return found


def _question(source: str, position: int, variables: tuple[str, ...]) -> tuple[Question, str, int]:
    """Return the chain after `authorizer`, which answer it wants, and where it ends."""
    steps: list[tuple[str, tuple[native.CelExpression, ...]]] = []
    is_own = False
    while True:
        name, position = _member(source, position)
        if name == "requestResource":
            is_own = True
            continue
        if name not in _STEPS:
            raise ValueError(f"undeclared reference to '{name}' of authorizer")
        arguments, position = _arguments(source, position, name)
        compiled = tuple(native.CelExpression(one, variables, "string") for one in arguments)
        if name == "check":
            break
        steps.append((name, compiled))
    answer, position = _member(source, position)
    if answer not in _ANSWERS:
        raise ValueError(f"undeclared reference to '{answer}' of a decision: one of {', '.join(_ANSWERS)} is expected")
    _, position = _arguments(source, position, answer)
    return Question(tuple(steps), compiled[0], is_own), answer, position


def _member(source: str, position: int) -> tuple[str, int]:
    rest = source[position:]
    stripped = rest.lstrip()
    word = _WORD.match(stripped[1:].lstrip()) if stripped.startswith(".") else None
    if word is None:
        raise ValueError("authorizer is for questions that end in check(...).allowed(), reason(), errored() or error()")
    return word[0], position + rest.index(word[0]) + len(word[0])


def _arguments(source: str, position: int, name: str) -> tuple[list[str], int]:
    """Return the texts between the parentheses that begin here, and what comes after them."""
    while position < len(source) and source[position].isspace():
        position += 1
    if position >= len(source) or source[position] != "(":
        raise ValueError(f"authorizer: {name} is a function")
    start = position = position + 1
    depth = 1
    found: list[str] = []
    while position < len(source):
        char = source[position]
        if char in "'\"":
            position = _string_end(source, position)
            continue
        depth += (char in "([{") - (char in ")]}")
        if (char == "," and depth == 1) or depth == 0:
            found.append(source[start:position].strip())
            start = position + 1
        position += 1
        if depth == 0:
            break
    else:
        raise ValueError(f"authorizer: the parentheses of {name} do not end")
    found = [one for one in found if one]
    if len(found) != _STEPS.get(name, 0):
        raise ValueError(f"found no matching overload for '{name}' of authorizer with {len(found)} arguments")
    return found, position


def _string_end(source: str, position: int) -> int:
    """Return what comes after the string that begins here, which may be triply quoted."""
    mark = source[position]
    if source.startswith(mark * 3, position):
        end = source.find(mark * 3, position + 3)
        return len(source) if end < 0 else end + 3
    position += 1
    while position < len(source) and source[position] != mark:
        position += 2 if source[position] == "\\" else 1
    return position + 1
