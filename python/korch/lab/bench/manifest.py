"""Objects made from template files: each rendered for its index, read as YAML, and checked once before anything runs.

A file that never asks for `.Index` is rendered once and its objects copied. Field names that begin with a capital letter are Go's
spelling of ours and are read as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from korch.api import quantity
from korch.lab.bench.source import ConfigError, parse
from korch.lab.bench.template import Template, TemplateError, compile_template

Object = dict[str, Any]
# Below these stand names of users, not of fields.
_MAPS = frozenset(
    {
        "labels",
        "annotations",
        "matchLabels",
        "nodeSelector",
        "limits",
        "requests",
        "capacity",
        "allocatable",
        "data",
        "selector",
        "attributes",
    }
)


@dataclass(slots=True)
class Manifest:
    """A template file and the parameters that the operation gives it."""

    path: Path
    template: Template
    params: Mapping[str, Any]
    _fixed: bytes | None = field(default=None)

    def object(self, index: int = 0, count: int = 1) -> Object:
        """Return the object with this index, of so many; the caller may change it. Raises ConfigError."""
        if self._fixed is not None:
            return orjson.loads(self._fixed)
        try:
            text = self.template.render({**self.params, "Index": index, "Count": count})
        except TemplateError as error:
            raise ConfigError(self.path, error.line, error.reason) from error
        document = parse(text, self.path)
        if not isinstance(document.value, dict):
            raise ConfigError(self.path, 1, "an object is expected")
        made = _in_our_spelling(document.value)
        if "Index" not in self.template.fields:
            self._fixed = orjson.dumps(made)
        return made


def read_manifest(path: Path, params: Mapping[str, Any]) -> Manifest:
    """Read a template. Raises ConfigError. Blocks."""
    try:
        return Manifest(path, compile_template(path.read_text()), params)
    except OSError as error:
        raise ConfigError(path, 1, error.strerror or str(error)) from error
    except TemplateError as error:
        raise ConfigError(path, error.line, error.reason) from error


def check_object(manifest: Manifest, count: int, kind: str = "") -> Object:
    """Return the first of `count` objects. Raises ConfigError when it is none, or none of this kind."""
    found = manifest.object(0, count)
    given = found.get("kind", "")
    if not kind and (not given or not found.get("apiVersion")):
        raise ConfigError(manifest.path, 1, "apiVersion and kind must be set")
    if kind and given not in ("", kind):
        raise ConfigError(manifest.path, _line(manifest, "kind"), f"a {kind} is expected, not a {given}")
    if given == "Node" or kind == "Node":
        _check_node(manifest, found)
    return found


def _check_node(manifest: Manifest, node: Object) -> None:
    status = node.get("status") or {}
    for part in ("capacity", "allocatable"):
        for resource, amount in (status.get(part) or {}).items():
            try:
                is_possible = quantity.milli(amount) >= 0
            except ValueError as error:
                raise ConfigError(manifest.path, _line(manifest, resource), f"status.{part}[{resource}]: {error}") from error
            if not is_possible:
                reason = f"status.{part}[{resource}]: Invalid value: {str(amount)!r}: must be greater than or equal to 0"
                raise ConfigError(manifest.path, _line(manifest, resource), reason)
    for resource, amount in (status.get("allocatable") or {}).items():
        capacity = (status.get("capacity") or {}).get(resource)
        if capacity is not None and quantity.milli(amount) > quantity.milli(capacity):
            reason = (
                f"status.allocatable[{resource}]: Invalid value: {str(amount)!r}: must be less than or equal to the capacity {capacity}"
            )
            raise ConfigError(manifest.path, _line(manifest, resource), reason)


def _line(manifest: Manifest, name: str) -> int:
    lines = manifest.path.read_text().splitlines()
    return next((number for number, line in enumerate(lines, 1) if f"{name}:" in line), 1)


def _in_our_spelling(value: Any, *, is_map: bool = False) -> Any:
    if isinstance(value, list):
        return [_in_our_spelling(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        (key if is_map or not key[:1].isupper() else key[0].lower() + key[1:]): _in_our_spelling(inner, is_map=key in _MAPS)
        for key, inner in value.items()
    }
