"""Writes that look like one that was let in a moment ago: they are judged as the first was, until what it rested on changes."""

from __future__ import annotations

from typing import Any

from access import Access, with_access
from api_exchange import Answer, config_map

MAPS = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "patch", "update", "delete"]}
DENIED = 'configmaps is forbidden: User "ann" cannot create resource "configmaps" in API group "" in the namespace "d"'
RBAC = "/apis/rbac.authorization.k8s.io/v1"
Object = dict[str, Any]


@with_access
async def test_a_right_that_is_taken_away_is_gone_with_the_next_write(access: Access) -> None:
    path = await access.namespace()
    ann = access.user("ann")
    await access.admin.grant("ann", "writes", MAPS, namespace="d")
    for name in ("a", "b", "c"):
        assert (await ann.post(f"{path}/configmaps", config_map(name))).code == 201
    await access.admin.call("DELETE", f"{RBAC}/namespaces/d/rolebindings/writes-ann")
    assert (await ann.post(f"{path}/configmaps", config_map("d"))).says == (403, "Forbidden", DENIED)


@with_access
async def test_a_right_to_one_name_is_none_to_another(access: Access) -> None:
    path = await access.namespace()
    ann = access.user("ann")
    await access.admin.grant("ann", "writes-a", MAPS | {"resourceNames": ["a"]}, namespace="d")
    for name in ("a", "b"):
        await access.admin.made(f"{path}/configmaps", config_map(name))
    for _ in range(3):
        assert (await ann.call("DELETE", f"{path}/configmaps/a", dryRun="All")).code == 200
        assert (await ann.call("DELETE", f"{path}/configmaps/b", dryRun="All")).code == 403


@with_access
async def test_what_is_wrong_with_the_object_is_told_as_the_first_time(access: Access) -> None:
    path = await access.namespace()
    ann = access.user("ann")
    await access.admin.grant("ann", "writes", MAPS, namespace="d")
    first = await ann.post(f"{path}/configmaps", config_map("a"))
    second = await ann.post(f"{path}/configmaps", config_map("b"))
    assert [name for name, _ in first.headers] == [name for name, _ in second.headers]
    assert first.header("audit-id") != second.header("audit-id")
    again = await ann.post(f"{path}/configmaps", config_map("b"))
    assert again.says == (409, "AlreadyExists", 'configmaps "b" already exists')
    assert again.header("audit-id")
    wrong = await ann.post(f"{path}/configmaps", config_map("B"))
    assert wrong.code == 422
    unknown = await ann.post(f"{path}/configmaps", config_map("c") | {"colour": "red"})
    assert unknown.warnings == ['299 - "unknown field \\"colour\\""']
    missing = await ann.call("DELETE", f"{path}/configmaps/none")
    assert missing.says == (404, "NotFound", 'configmaps "none" not found')


@with_access
async def test_an_apply_that_creates_needs_the_right_to_create(access: Access) -> None:
    path = await access.namespace()
    ann = access.user("ann")
    await access.admin.grant("ann", "patches", MAPS | {"verbs": ["patch"]}, namespace="d")
    await access.admin.made(f"{path}/configmaps", config_map("a"))

    async def applied(name: str) -> Answer:
        options = {"content_type": "application/apply-patch+yaml", "fieldManager": "ann"}
        return await ann.call("PATCH", f"{path}/configmaps/{name}", config_map(name), **options)

    for _ in range(3):
        assert (await applied("a")).code == 200
    assert (await applied("b")).says == (403, "Forbidden", DENIED.replace("configmaps is", 'configmaps "b" is', 1))


@with_access
async def test_every_write_is_counted_wherever_it_goes(access: Access) -> None:
    path = await access.namespace()
    ann = access.user("ann")
    await access.admin.grant("ann", "writes", MAPS, namespace="d")
    for name in ("a", "b", "c", "a"):
        await ann.post(f"{path}/configmaps", config_map(name))
    text = (await access.admin.get("/metrics")).body.decode().splitlines()
    created = [one for one in text if one.startswith("apiserver_request_total") and 'resource="configmaps"' in one]
    assert sorted(one.rpartition(" ")[2] for one in created if 'verb="CREATE"' in one) == ["1.0", "3.0"]
    assert 'apiserver_current_inflight_requests{request_kind="mutating"} 0.0' in text
