"""The published schema of every built-in kind, read once from `schema.json.gz` beside this file.

The file is written by `python -m korch.resources.build_schema` and shipped in the wheel. Reading takes some 20 ms, compiling
the native table some 20 ms more, so both happen on first use and never again.
"""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from korch._core import native

SCHEMA_PATH = Path(__file__).with_name("schema.json.gz")


class SchemaMissing(RuntimeError):
    """The schema file has not been built."""


def definitions() -> dict[str, Any]:
    """Return the OpenAPI v2 definitions by name, such as `io.k8s.api.core.v1.Pod`. Shared: do not change them."""
    return _document()["definitions"]


def resources() -> list[dict[str, Any]]:
    """Return every resource upstream serves: group, version, kind, plural, namespaced, verbs, subresources. Shared: do not change."""
    return _document()["resources"]


@cache
def native_schema() -> native.Schema:
    """Return the compiled table of all definitions, for `check` and strategic merge patches."""
    return native.Schema(_raw())


@cache
def _document() -> dict[str, Any]:
    return orjson.loads(_raw())


def _raw() -> bytes:
    try:
        return gzip.decompress(SCHEMA_PATH.read_bytes())
    except FileNotFoundError as error:
        raise SchemaMissing(
            f"{SCHEMA_PATH.name} is missing: run `python -m korch.resources.build_schema` (dependency group `schema`)"
        ) from error
