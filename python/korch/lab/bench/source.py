"""YAML that remembers where each value stood, so that whoever finds it wrong can name the line.

Values come out as JSON would have them: dicts with string keys, lists, strings, numbers, booleans, None.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

# Steps from the root of a document to a value: names of fields and positions in lists.
Address = tuple[str | int, ...]

# Floats that YAML 1.1 takes for text, and Go for numbers: an exponent without a dot or a sign.
_FLOAT = re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+")


class ConfigError(ValueError):
    """A file says something that cannot be run. Shown as `file:line: reason`."""

    def __init__(self, path: Path, line: int, reason: str) -> None:
        super().__init__(f"{path}:{line}: {reason}")
        self.path = path
        self.line = line
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Document:
    """The value of one YAML document and the lines (from 1) at which its parts begin."""

    path: Path
    value: Any
    lines: dict[Address, int] = field(default_factory=dict)

    def line(self, address: Address) -> int:
        """Return the line of the value at `address`, or of the nearest thing around it."""
        while address not in self.lines and address:
            address = address[:-1]
        return self.lines.get(address, 1)

    def error(self, address: Address, reason: str) -> ConfigError:
        """Return the error that says what is wrong at `address`."""
        return ConfigError(self.path, self.line(address), reason)


def load(path: Path) -> Document:
    """Read a file with one YAML document. Raises ConfigError, also when the file is missing or a field is given twice. Blocks."""
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(path, 1, error.strerror or str(error)) from error
    return parse(text, path)


def parse(text: str, path: Path) -> Document:
    """Read YAML text; `path` is what errors name. Raises ConfigError."""
    try:
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
        document = Document(path, None)
        value = _value(root, (), document) if root is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(path, mark.line + 1 if mark else 1, error.problem or str(error)) from error
    except yaml.YAMLError as error:
        raise ConfigError(path, 1, str(error)) from error
    return Document(path, value, document.lines)


_constructor = yaml.constructor.SafeConstructor()


def _value(node: yaml.Node, address: Address, document: Document) -> Any:
    document.lines[address] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(_constructor.construct_object(key_node, deep=True))
            document.lines[(*address, key)] = key_node.start_mark.line + 1
            if key in found:
                raise document.error((*address, key), f"key {key!r} already set in map")
            found[key] = _value(value_node, (*address, key), document)
            # A field is where its name stands, although its value may begin a line below.
            document.lines[(*address, key)] = key_node.start_mark.line + 1
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_value(one, (*address, index), document) for index, one in enumerate(node.value)]
    value = _constructor.construct_object(node, deep=True)
    if isinstance(node, yaml.ScalarNode) and isinstance(value, str) and not node.style and _FLOAT.fullmatch(value):
        return float(value)
    return value if value is None or isinstance(value, str | int | float | bool) else node.value
