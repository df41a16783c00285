"""What discovery says, in both forms, as files."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from korch.apiserver.discovery import AGGREGATED, Discovery, version_priority, wants_aggregated
from korch.resources import catalogue
from korch.resources.resource import Resource
from tests.golden import check

PATHS = {
    "api": "/api",
    "apis": "/apis",
    "group": "/apis/apps",
    "core": "/api/v1",
    **{
        one.group if one.version == "v1" else f"{one.group}-{one.version}": f"/apis/{one.group}/{one.version}"
        for one in catalogue().all()
        if one.group
    },
}


def body(path: str, accept: str = "") -> Any:
    answer = Discovery(catalogue()).answer(path, accept=accept, server_address="127.0.0.1:6443")
    assert answer is not None
    assert answer.status == 200
    return orjson.loads(answer.body)


def pretty(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n"


@pytest.mark.parametrize("name", PATHS)
def test_legacy_documents(name: str) -> None:
    check(f"discovery/{name}.json", pretty(body(PATHS[name])))


@pytest.mark.parametrize("path", ["/api", "/apis"])
def test_aggregated_documents(path: str) -> None:
    check(f"discovery/aggregated{path.replace('/', '-')}.json", pretty(body(path, AGGREGATED)))


def test_every_kind_is_in_both_forms() -> None:
    legacy = {
        (path.removeprefix("/apis/") if path != "/api/v1" else "v1", row["name"])
        for group, path in PATHS.items()
        if group not in ("api", "apis", "group")
        for row in body(path)["resources"]
        if "/" not in row["name"]
    }
    aggregated = {
        ("/".join([*item["metadata"].values(), version["version"]]), row["resource"])
        for path in ("/api", "/apis")
        for item in body(path, AGGREGATED)["items"]
        for version in item["versions"]
        for row in version["resources"]
    }
    declared = {(one.api_version, one.plural) for one in catalogue().all()}
    assert legacy == aggregated == declared


def test_storage_hashes_are_upstreams() -> None:
    hashes = {row["name"]: row.get("storageVersionHash") for row in body("/api/v1")["resources"]}
    assert hashes["pods"] == "xPOwRZ+Yhw8="
    assert hashes["services"] == "0/CO1lhkEBI="
    assert hashes["bindings"] is None
    assert body("/apis/events.k8s.io/v1")["resources"][0]["storageVersionHash"] == hashes["events"] == "r2yiGXH7wu8="


@pytest.mark.parametrize(
    ("accept", "is_aggregated"),
    [
        ("", False),
        ("application/json", False),
        ("*/*", False),
        (AGGREGATED, True),
        (AGGREGATED + ",application/json", True),
        ("application/json," + AGGREGATED, False),
        (AGGREGATED.replace("v=v2", "v=v2beta1") + "," + AGGREGATED, True),
        (AGGREGATED.replace("v=v2", "v=v2beta1") + ",application/json", False),
        (AGGREGATED + ";profile=nopeer", True),
    ],
)
def test_accept_chooses_the_form(accept: str, is_aggregated: bool) -> None:
    assert wants_aggregated(accept) is is_aggregated


def test_a_client_that_has_the_document_gets_304_until_the_catalogue_changes() -> None:
    kinds = catalogue()
    discovery = Discovery(kinds)
    first = discovery.answer("/apis", accept=AGGREGATED)
    assert first is not None
    assert first.headers["Content-Type"] == AGGREGATED
    assert first.headers["Vary"] == "Accept"
    again = discovery.answer("/apis", accept=AGGREGATED, if_none_match=first.headers["ETag"])
    assert again is not None
    assert (again.status, again.body) == (304, b"")
    kinds.add(Resource(group="example.com", version="v1", kind="Thing", plural="things", schema="com.example.v1.Thing"))
    changed = discovery.answer("/apis", accept=AGGREGATED, if_none_match=first.headers["ETag"])
    assert changed is not None
    assert changed.status == 200
    assert b"example.com" in changed.body


def test_a_group_prefers_its_most_stable_newest_version() -> None:
    kinds = catalogue()
    for version in ("v1alpha1", "v2beta1", "v1", "v2", "v10", "old"):
        kinds.add(Resource(group="example.com", version=version, kind="Thing", plural="things", schema="com.example.Thing"))
    answer = Discovery(kinds).answer("/apis/example.com")
    assert answer is not None
    group = orjson.loads(answer.body)
    assert [one["version"] for one in group["versions"]] == ["v10", "v2", "v1", "v2beta1", "v1alpha1", "old"]
    assert group["preferredVersion"]["groupVersion"] == "example.com/v10"
    assert version_priority("v1") > version_priority("v1beta2") > version_priority("v1beta1") > version_priority("v3alpha1")


@pytest.mark.parametrize("path", ["/apis/nowhere.io", "/apis/apps/v2", "/api/v2", "/version", "/apis/apps/v1/deployments"])
def test_what_is_not_served_has_no_document(path: str) -> None:
    assert Discovery(catalogue()).answer(path) is None
