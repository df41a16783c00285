"""A kind's strategy, spoken to as the API server does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from korch.resources import catalogue, openapi
from korch.resources.resource import Context, Resource

Object = dict[str, Any]
NOW = 1_800_000_000.0


class Kind:
    """One kind: `create` and `update` do what a write does between decoding and storing."""

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.strategy = resource.strategy

    def defaulted(self, obj: Object) -> Object:
        copy = orjson.loads(orjson.dumps(obj))
        self.strategy.default(copy)
        return copy

    def create(self, obj: Object) -> tuple[Object, list[str]]:
        """Return the object as it would be stored, and what is wrong with it."""
        stored = self.defaulted(obj)
        stored.setdefault("metadata", {}).setdefault("uid", "uid-1")
        self.strategy.prepare_create(stored, Context(now=NOW))
        return stored, [cause.line() for cause in self.strategy.validate(stored)]

    def problems(self, obj: Object) -> list[str]:
        return self.create(obj)[1]

    def update(self, new: Object, old: Object) -> tuple[Object, list[str]]:
        """Return `new` as it would be stored over `old` (which is stored already), and what is wrong with the change."""
        changed = self.defaulted(new)
        self.strategy.prepare_update(changed, old, Context(now=NOW))
        return changed, [cause.line() for cause in self.strategy.validate_update(changed, old)]


@pytest.fixture
def kind() -> Callable[..., Kind]:
    kinds = catalogue()

    def find(name: str, group: str = "", version: str = "v1") -> Kind:
        found = kinds.by_kind(group, version, name)
        assert found is not None, name
        return Kind(found)

    return find


@pytest.fixture(scope="session")
def published() -> None:
    """The published schema is a build product: it is built here when the tree has none."""
    if not openapi.SCHEMA_PATH.exists():
        from korch.resources import build_schema

        build_schema.build()
