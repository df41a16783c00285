"""The part of Go's text/template that manifests of benchmarks use: fields, variables, pipelines, if, range, with, and functions.

`{{.Index}}` and other fields are read from the values given to `render`; `$name := ...` declares a variable; `{{-` and `-}}` take the
white space beside them. Functions are Go's comparisons and logic, and those of scheduler_perf (AddInt, DivideInt, Mod, JSON and so
on). Unlike Go, printing a field that has no value is an error and not the text "<no value>". Mirrors text/template's parser.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from korch.lab.bench.functions import FUNCTIONS, shown

_ACTION = re.compile(r"\{\{(-\s)?(.*?)(\s-)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:\\.|[^"\\])*"|`[^`]*`)|(?P<number>[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)|(?P<field>(?:\.[A-Za-z_]\w*)+)|(?P<dot>\.)"""
    r"""|(?P<variable>\$\w*(?:\.[A-Za-z_]\w*)*)|(?P<declare>:=)|(?P<sign>[=|(),])|(?P<word>[A-Za-z_]\w*))"""
)
_CONSTANTS = {"true": True, "false": False, "nil": None}


class TemplateError(ValueError):
    """A template cannot be read or rendered. `line` counts from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


@dataclass(slots=True)
class _Scope:
    dot: Any
    variables: dict[str, Any]

    def inner(self, dot: Any) -> _Scope:
        return _Scope(dot, dict(self.variables))


_Eval = Callable[[_Scope], Any]
_Node = Callable[[_Scope, list[str]], None]


@dataclass(frozen=True, slots=True)
class Template:
    """A template that was read. `fields` are the names of all fields that it reads anywhere."""

    nodes: tuple[_Node, ...]
    fields: frozenset[str]

    def render(self, values: Mapping[str, Any]) -> str:
        """Return the text for these values. Raises TemplateError."""
        parts: list[str] = []
        _run(self.nodes, _Scope(values, {"$": values}), parts)
        return "".join(parts)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A text, or an action when `is_action`."""

    text: str
    line: int
    is_action: bool


def compile_template(text: str) -> Template:
    """Read a template. Raises TemplateError with the line of the action that is wrong."""
    reader = _Reader(list(_pieces(text)))
    nodes, end = reader.block(())
    assert not end, "without enders a block ends at the end of the text"
    return Template(tuple(nodes), frozenset(reader.fields))


def _pieces(text: str) -> Iterator[_Piece]:
    at, trims = 0, False
    for found in _ACTION.finditer(text):
        before = text[at : found.start()]
        before = before.lstrip() if trims else before
        yield _Piece(before.rstrip() if found[1] else before, text.count("\n", 0, at) + 1, False)
        yield _Piece(found[2].strip(), text.count("\n", 0, found.start()) + 1, True)
        at, trims = found.end(), bool(found[3])
    rest = text[at:]
    if "{{" in rest:
        raise TemplateError(text.count("\n", 0, at + rest.index("{{")) + 1, "unclosed action")
    yield _Piece(rest.lstrip() if trims else rest, text.count("\n", 0, at) + 1, False)


@dataclass(slots=True)
class _Reader:
    pieces: list[_Piece]
    at: int = 0
    fields: set[str] = field(default_factory=set)

    def block(self, enders: tuple[str, ...], opened: int = 0) -> tuple[list[_Node], str]:
        """Read nodes until an action that begins with one of `enders`; return them and that action. `opened` is the block's line."""
        nodes: list[_Node] = []
        while self.at < len(self.pieces):
            piece = self.pieces[self.at]
            self.at += 1
            if not piece.is_action:
                if piece.text:
                    nodes.append(_text(piece.text))
                continue
            word = piece.text.split(maxsplit=1)[0] if piece.text else ""
            if word in ("end", "else"):
                if word not in enders:
                    raise TemplateError(piece.line, f"unexpected {{{{{word}}}}}")
                return nodes, piece.text
            if not piece.text.startswith("/*"):
                nodes.append(self._action(piece, word))
        if enders:
            raise TemplateError(opened, "unexpected end of the template: {{end}} is missing")
        return nodes, ""

    def _action(self, piece: _Piece, word: str) -> _Node:
        rest = piece.text[len(word) :].strip()
        if word == "if":
            return self._if(rest, piece.line)
        if word in ("range", "with"):
            expression = _Expression(rest, piece.line, self.fields)
            names, value = expression.declared()
            body, end = self.block(("end", "else"), piece.line)
            otherwise = self.block(("end",), piece.line)[0] if end == "else" else []
            return _range(names, value, body, otherwise) if word == "range" else _with(names, value, body, otherwise)
        if word in ("define", "template", "block", "break", "continue"):
            raise TemplateError(piece.line, f"{{{{{word}}}}} is not supported")
        expression = _Expression(piece.text, piece.line, self.fields)
        names, value = expression.declared()
        return _assign(names, value) if names else _print(value, piece)

    def _if(self, condition: str, line: int) -> _Node:
        _, value = _Expression(condition, line, self.fields).declared()
        body, end = self.block(("end", "else"), line)
        otherwise: list[_Node] = []
        if end != "end":
            more = end.removeprefix("else").strip()
            if more.startswith("if"):
                otherwise = [self._if(more.removeprefix("if").strip(), line)]
            else:
                otherwise = self.block(("end",), line)[0]
        return _choose(value, body, otherwise)


class _Expression:
    """A pipeline, perhaps with a declaration in front of it."""

    def __init__(self, text: str, line: int, fields: set[str]) -> None:
        self._line = line
        self._fields = fields
        self._tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                raise TemplateError(line, f"unexpected {text[at:].strip()!r} in {{{{{text}}}}}")
            self._tokens.append((found.lastgroup, found[found.lastgroup]))
            at = found.end() + (len(text) - found.end() if not text[found.end() :].strip() else 0)
        self._at = 0

    def declared(self) -> tuple[list[str], _Eval]:
        """Return the names of the variables that get the value, and the value."""
        names: list[str] = []
        end = next((at for at, (kind, text) in enumerate(self._tokens) if kind == "declare" or (kind, text) == ("sign", "=")), None)
        if end is not None:
            for kind, text in self._tokens[:end]:
                if kind == "variable" and "." not in text:
                    names.append(text)
                elif (kind, text) != ("sign", ","):
                    raise TemplateError(self._line, f"{text!r} cannot be assigned to")
            self._at = end + 1
        value = self._pipeline()
        if self._at < len(self._tokens):
            raise TemplateError(self._line, f"unexpected {self._tokens[self._at][1]!r}")
        return names, value

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _pipeline(self) -> _Eval:
        value = self._command(None)
        while self._peek() == ("sign", "|"):
            self._at += 1
            value = self._command(value)
        return value

    def _command(self, piped: _Eval | None) -> _Eval:
        kind, text = self._peek()
        if kind == "word" and text not in _CONSTANTS:
            self._at += 1
            function = FUNCTIONS.get(text)
            if function is None:
                raise TemplateError(self._line, f"function {text!r} not defined")
            arguments = list(self._operands())
            return self._call(text, function, arguments if piped is None else [*arguments, piped])
        operands = list(self._operands())
        if len(operands) != 1 or piped is not None:
            raise TemplateError(self._line, "a value takes no arguments" if operands else "missing value")
        return operands[0]

    def _call(self, name: str, function: Callable[..., Any], arguments: list[_Eval]) -> _Eval:
        line = self._line

        def call(scope: _Scope) -> Any:
            values = [one(scope) for one in arguments]
            try:
                return function(*values)
            except (ValueError, TypeError, ZeroDivisionError, LookupError) as error:
                raise TemplateError(line, f"{name}: {error}") from error

        return call

    def _operands(self) -> Iterator[_Eval]:
        while True:
            kind, text = self._peek()
            if kind in ("end", "declare") or (kind == "sign" and text != "("):
                return
            self._at += 1
            yield self._operand(kind, text)

    def _operand(self, kind: str, text: str) -> _Eval:
        if kind == "sign":
            inner = self._pipeline()
            if self._peek() != ("sign", ")"):
                raise TemplateError(self._line, "unclosed left paren")
            self._at += 1
            return inner
        if kind == "string":
            value: Any = text[1:-1] if text[0] == "`" else text[1:-1].encode().decode("unicode_escape")
        elif kind == "number":
            value = float(text) if set(text) & set(".eE") else int(text)
        elif kind == "word":
            if text not in _CONSTANTS:
                return self._call(text, FUNCTIONS[text], []) if text in FUNCTIONS else self._unknown(text)
            value = _CONSTANTS[text]
        elif kind == "variable":
            name, *path = text.split(".")
            return lambda scope: _at(scope.variables.get(name), path)
        else:
            path = [one for one in text.split(".") if one]
            self._fields.update(path)
            return lambda scope: _at(scope.dot, path)
        return lambda _: value

    def _unknown(self, name: str) -> _Eval:
        raise TemplateError(self._line, f"function {name!r} not defined")


def _at(value: Any, path: Iterable[str]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _run(nodes: Iterable[_Node], scope: _Scope, parts: list[str]) -> None:
    for node in nodes:
        node(scope, parts)


def _text(text: str) -> _Node:
    return lambda _, parts: parts.append(text)


def _print(value: _Eval, piece: _Piece) -> _Node:
    def node(scope: _Scope, parts: list[str]) -> None:
        found = value(scope)
        if found is None:
            raise TemplateError(piece.line, f"{{{{{piece.text}}}}} has no value")
        parts.append(shown(found))

    return node


def _assign(names: list[str], value: _Eval) -> _Node:
    def node(scope: _Scope, _: list[str]) -> None:
        scope.variables[names[0]] = value(scope)

    return node


def _choose(value: _Eval, body: list[_Node], otherwise: list[_Node]) -> _Node:
    return lambda scope, parts: _run(body if value(scope) else otherwise, scope.inner(scope.dot), parts)


def _with(names: list[str], value: _Eval, body: list[_Node], otherwise: list[_Node]) -> _Node:
    def node(scope: _Scope, parts: list[str]) -> None:
        found = value(scope)
        inner = scope.inner(found if found else scope.dot)
        if names:
            inner.variables[names[0]] = found
        _run(body if found else otherwise, inner, parts)

    return node


def _range(names: list[str], value: _Eval, body: list[_Node], otherwise: list[_Node]) -> _Node:
    def node(scope: _Scope, parts: list[str]) -> None:
        found = value(scope)
        if isinstance(found, Mapping):
            pairs = sorted(found.items())
        else:
            pairs = list(enumerate(range(found) if isinstance(found, int) else found or ()))
        if not pairs:
            _run(otherwise, scope.inner(scope.dot), parts)
        for key, one in pairs:
            inner = scope.inner(one)
            if len(names) == 1:
                inner.variables[names[0]] = one
            elif names:
                inner.variables |= {names[0]: key, names[1]: one}
            _run(body, inner, parts)

    return node
