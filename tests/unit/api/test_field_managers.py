"""Properties of field management that hold for every sequence of writes, on the real schema of a Deployment and without any schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from korch._core import native
from korch.resources.openapi import native_schema

Object = dict[str, Any]

MANAGERS = st.sampled_from(["one", "two", "three"])
TEXT = st.sampled_from(["a", "b"])
LABELS = st.dictionaries(st.sampled_from(["x", "y"]), TEXT, max_size=2)
PORTS = st.lists(
    st.fixed_dictionaries(
        {"containerPort": st.sampled_from([80, 443])}, optional={"protocol": st.sampled_from(["TCP", "UDP"]), "name": TEXT}
    ),
    max_size=3,
    unique_by=lambda port: (port["containerPort"], port.get("protocol", "TCP")),
)
CONTAINERS = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from(["c", "d", "e"])}, optional={"image": TEXT, "ports": PORTS, "args": st.lists(TEXT)}),
    max_size=3,
    unique_by=lambda container: container["name"],
)
SPEC = st.fixed_dictionaries(
    {},
    optional={
        "replicas": st.integers(0, 2),
        "paused": st.booleans(),
        "selector": st.fixed_dictionaries({"matchLabels": LABELS}),
        "template": st.fixed_dictionaries({}, optional={"spec": st.fixed_dictionaries({}, optional={"containers": CONTAINERS})}),
    },
)
METADATA = st.fixed_dictionaries(
    {"name": st.just("web")}, optional={"labels": LABELS, "finalizers": st.lists(TEXT, unique=True), "annotations": LABELS}
)


def filled(value: Any) -> Any:
    """Without empty containers: nobody owns an empty list that merges, which is upstream's gap as well."""
    if isinstance(value, dict):
        found = {key: filled(one) for key, one in value.items()}
        return {key: one for key, one in found.items() if one not in ({}, [])}
    return [filled(one) for one in value] if isinstance(value, list) else value


OBJECTS = st.fixed_dictionaries({"metadata": METADATA}, optional={"spec": SPEC}).map(filled)


class Kept:
    """An object and the endpoint that writes it. Time goes up by a second with every write."""

    def __init__(self, definition: str) -> None:
        self.endpoint = native.FieldManager(native_schema(), definition, api_version="apps/v1", reset=["status"])
        self.stored: bytes | None = None
        self._second = 0

    def now(self) -> str:
        self._second += 1
        return f"2026-01-01T00:00:{self._second:02}Z"

    def update(self, manager: str, new: Object) -> None:
        body = orjson.dumps(new)
        self._store(body, self.endpoint.track(self.stored, body, manager, self.now()))

    def apply(self, manager: str, config: Object, *, force: bool = False) -> None:
        self._store(*self.endpoint.apply(self.stored, orjson.dumps(config), manager, self.now(), force))

    def _store(self, body: bytes, managed: bytes) -> None:
        obj = without_nulls(orjson.loads(body))
        obj.setdefault("metadata", {}).pop("managedFields", None)
        if managed:
            obj["metadata"]["managedFields"] = orjson.loads(managed)
        # An empty object cannot be told from none; a stored one has at least a uid.
        obj["metadata"]["uid"] = "u"
        self.stored = orjson.dumps(obj)

    @property
    def object(self) -> Object:
        return orjson.loads(self.stored or b"{}")

    def applied_by(self, manager: str) -> Object | None:
        entries = self.object.get("metadata", {}).get("managedFields", [])
        return next((one["fieldsV1"] for one in entries if (one["manager"], one["operation"]) == (manager, "Apply")), None)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


def leaves(fields: Object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of a FieldsV1 below which nothing is. A container's resources are owned even where nothing is written of them."""
    for key, below in fields.items():
        if key not in (".", "f:resources"):
            yield from leaves(below, (*path, key)) if set(below) - {"."} else [(*path, key)]


def value_at(obj: Any, path: tuple[str, ...]) -> Any:
    """The value at a FieldsV1 path; raises LookupError when there is none."""
    for step in path:
        kind, _, rest = step.partition(":")
        if kind == "f":
            obj = obj[rest]
        elif kind == "v":
            obj = obj[obj.index(orjson.loads(rest))]
        else:
            wanted = orjson.loads(rest)
            obj = next(
                (one for one in obj if all(one.get(key, "TCP" if key == "protocol" else None) == value for key, value in wanted.items())),
                None,
            )
            if obj is None:
                raise LookupError(step)
    return obj


CONTAINER_FIELDS = {"f:labels", "f:matchLabels", "f:annotations", "f:finalizers", "f:containers", "f:ports"}


def is_container(path: tuple[str, ...]) -> bool:
    """Whether a path names a map or a merging list. One that an apply empties is gone, yet stays with who made it, as upstream."""
    return path[-1] in CONTAINER_FIELDS


DEPLOYMENT = "io.k8s.api.apps.v1.Deployment"
DEFINITIONS = pytest.mark.parametrize("definition", [DEPLOYMENT, ""])
STEPS = st.lists(st.tuples(st.sampled_from(["update", "apply"]), MANAGERS, OBJECTS), max_size=5)


def played(definition: str, steps: list[tuple[str, str, Object]]) -> Kept:
    kept = Kept(definition)
    for verb, manager, obj in steps:
        if verb == "update":
            kept.update(manager, obj)
        else:
            kept.apply(manager, obj, force=True)
    return kept


@DEFINITIONS
@given(STEPS, MANAGERS, OBJECTS)
def test_applying_twice_is_applying_once(definition: str, steps: list[tuple[str, str, Object]], manager: str, config: Object) -> None:
    kept = played(definition, steps)
    kept.apply(manager, config, force=True)
    once = kept.object
    kept.apply(manager, config)
    assert kept.object == once


@DEFINITIONS
@given(STEPS, MANAGERS)
def test_who_applies_nothing_owns_nothing(definition: str, steps: list[tuple[str, str, Object]], manager: str) -> None:
    kept = played(definition, steps)
    kept.apply(manager, {"metadata": {"name": "web"}})
    assert kept.applied_by(manager) is None


@given(STEPS, MANAGERS, OBJECTS)
def test_an_unforced_apply_leaves_what_others_own_as_it_is(steps: list[tuple[str, str, Object]], manager: str, config: Object) -> None:
    """Without a schema this does not hold, upstream neither: a map that its owner gives up goes with all that is in it."""
    kept = played(DEPLOYMENT, steps)
    before = kept.object
    try:
        kept.apply(manager, config)
    except native.ApplyConflict as error:
        assert error.args[0]
        assert kept.object == before
        return
    entries = before.get("metadata", {}).get("managedFields", [])
    for entry in entries:
        if (entry["manager"], entry["operation"]) == (manager, "Apply"):
            continue
        for path in leaves(entry["fieldsV1"]):
            if is_container(path):
                continue
            after, was = value_at(kept.object, path), value_at(before, path)
            # What is in a map beside what is owned there may come and go.
            assert isinstance(after, dict) == isinstance(was, dict) and (isinstance(was, dict) or after == was), (entry["manager"], path)


@DEFINITIONS
@given(STEPS, MANAGERS, OBJECTS)
def test_all_that_is_applied_is_there_and_owned(
    definition: str, steps: list[tuple[str, str, Object]], manager: str, config: Object
) -> None:
    kept = played(definition, steps)
    kept.apply(manager, config, force=True)
    for path in leaves(kept.applied_by(manager) or {}):
        assert value_at(kept.object, path) == value_at(without_nulls(config), path)


@given(STEPS)
def test_every_owned_field_exists(steps: list[tuple[str, str, Object]]) -> None:
    kept = played(DEPLOYMENT, steps)
    for entry in kept.object.get("metadata", {}).get("managedFields", []):
        for path in leaves(entry["fieldsV1"]):
            if not is_container(path):
                value_at(kept.object, path)
