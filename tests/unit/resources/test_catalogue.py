"""The list of kinds is complete, and what it declares hangs together."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import korch.resources
from korch.api.features import read_features
from korch.resources import catalogue, openapi
from korch.resources.resource import Resource

KINDS = catalogue().all()
# The published list leaves out what is a connection and not an object.
STREAMS = {"attach", "exec", "portforward", "proxy"}


def ids(resource: Resource) -> str:
    return f"{resource.plural}.{resource.group or 'core'}"


def test_every_file_that_declares_a_kind_is_in_the_list() -> None:
    declared: list[Resource] = []
    for module in pkgutil.walk_packages(korch.resources.__path__, "korch.resources."):
        if module.name != "korch.resources.build_schema":
            found = getattr(importlib.import_module(module.name), "RESOURCE", None)
            declared += [found] if found is not None else []
    everything = catalogue(read_features(["AllBeta=true"], ["api/all=true"])).all()
    assert {ids(one) for one in declared} == {ids(one) for one in everything}
    assert len(declared) == len(everything)


@pytest.mark.parametrize("resource", KINDS, ids=ids)
@pytest.mark.usefixtures("published")
def test_a_kind_agrees_with_the_published_api(resource: Resource) -> None:
    assert resource.schema in openapi.definitions()
    published = next(
        one
        for one in openapi.resources()
        if (one["group"], one["version"], one["plural"]) == (resource.group, resource.version, resource.plural)
    )
    assert (resource.kind, resource.namespaced) == (published["kind"], published["namespaced"])
    assert set(resource.verbs) == set(published["verbs"]) & set(resource.verbs)
    known = {one["name"] for one in published["subresources"]}
    assert {one.name for one in resource.subresources} - STREAMS <= known


@pytest.mark.parametrize("resource", [one for one in KINDS if not one.is_virtual], ids=ids)
def test_a_stored_kind_has_columns_that_end_or_start_with_its_name(resource: Resource) -> None:
    assert "Name" in [column.name for column in resource.columns]
    assert all(column.description for column in resource.columns)


def test_names_and_short_names_are_taken_once_in_a_group() -> None:
    for version in {one.api_version for one in KINDS}:
        taken = [name for one in KINDS if one.api_version == version for name in (one.plural, *one.short_names)]
        assert len(taken) == len(set(taken)), version


def test_every_stable_kind_and_subresource_of_upstream_is_served() -> None:
    served = {(one.group, one.version, one.plural): {part.name for part in one.subresources} for one in KINDS}
    # Custom resource definitions bring a room of their own.
    wanted = {
        (one["group"], one["version"], one["plural"]): {part["name"] for part in one["subresources"]}
        for one in openapi.resources()
        if "alpha" not in one["version"] and "beta" not in one["version"] and one["group"] != "apiextensions.k8s.io"
    }
    missing = {key: parts - served.get(key, {"(kind)"}) for key, parts in wanted.items()}
    assert {key: parts for key, parts in missing.items() if parts or key not in served} == {}


def test_two_kinds_share_a_storage_only_for_events_and_autoscalers() -> None:
    prefixes: dict[bytes, list[str]] = {}
    for one in KINDS:
        if not one.is_virtual:
            prefixes.setdefault(one.key_prefix(), []).append(ids(one))
    assert [names for names in prefixes.values() if len(names) > 1] == [
        ["events.core", "events.events.k8s.io"],
        ["horizontalpodautoscalers.autoscaling"] * 2,
    ]


@pytest.mark.parametrize("resource", [one for one in KINDS if one.selectable_fields], ids=ids)
def test_selectable_fields_of_an_empty_object_are_text(resource: Resource) -> None:
    assert all(isinstance(read({}), str) for read in resource.selectable_fields.values())
