"""Every object is stored anew when a migration asks for it, one migration of a kind at a time, and the definition says so."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from tests.unit.controllers.cluster import Cluster, cluster_story

from korch.api.conditions import condition_status, get_condition
from korch.api.gvk import CONFIG_MAPS, ResourceRef
from korch.controllers.storage_version_migrator import DEFINITIONS, MIGRATIONS

Object = dict[str, Any]

WIDGETS = ResourceRef("example.com", "v1", "widgets", "Widget")
ADMISSION = "admissionregistration.k8s.io"
POLICIES = ResourceRef(ADMISSION, "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False)
POLICY_BINDINGS = ResourceRef(ADMISSION, "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", namespaced=False)


def versions(stored: str) -> list[Object]:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return [{"name": name, "served": True, "storage": name == stored, "schema": schema} for name in ("v1", "v2")]


async def declare(cluster: Cluster) -> None:
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget"}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": versions("v1")}
    await cluster.make(DEFINITIONS, {"metadata": {"name": "widgets.example.com"}, "spec": spec})
    await cluster.until(lambda: is_established(cluster))


async def is_established(cluster: Cluster) -> bool:
    return condition_status(await cluster.get(DEFINITIONS, "widgets.example.com"), "Established") == "True"


def migration(name: str, group: str, plural: str) -> Object:
    return {"metadata": {"name": name}, "spec": {"resource": {"group": group, "resource": plural}}}


async def ended(cluster: Cluster, name: str = "m") -> Object:
    """Await the moment when a migration no longer runs; return it."""

    async def is_over() -> Object | None:
        found = await cluster.get(MIGRATIONS, name)
        return found if condition_status(found, "Running") == "False" else None

    return await cluster.until(is_over)


def stored_version(cluster: Cluster, name: str) -> str:
    record = cluster.storage.get(f"/registry/example.com/widgets/default/{name}".encode())
    assert record is not None
    return orjson.loads(record.value)["apiVersion"]


def test_custom_objects_are_stored_in_the_new_version_and_the_old_one_is_forgotten() -> None:
    async def story(cluster: Cluster) -> None:
        await declare(cluster)
        for name in ("a", "b"):
            await cluster.make(WIDGETS, {"metadata": {"name": name}, "spec": {"size": 1}})
        await cluster.change(DEFINITIONS, "widgets.example.com", {"spec": {"versions": versions("v2")}})
        assert (await cluster.get(DEFINITIONS, "widgets.example.com"))["status"]["storedVersions"] == ["v1", "v2"]
        await asyncio.sleep(1)
        new = await cluster.make(WIDGETS, {"metadata": {"name": "c"}, "spec": {"size": 1}})
        assert [stored_version(cluster, name) for name in "abc"] == ["example.com/v1", "example.com/v1", "example.com/v2"]
        await cluster.make(MIGRATIONS, migration("m", "example.com", "widgets"))
        found = await ended(cluster)
        assert condition_status(found, "Succeeded") == "True"
        assert [stored_version(cluster, name) for name in "abc"] == ["example.com/v2"] * 3
        assert (await cluster.get(WIDGETS, "c"))["metadata"]["resourceVersion"] == new["metadata"]["resourceVersion"]
        assert (await cluster.get(WIDGETS, "a"))["metadata"]["generation"] == 1
        definition = await cluster.get(DEFINITIONS, "widgets.example.com")
        assert definition["status"]["storedVersions"] == ["v2"]
        told = get_condition(definition, "StorageMigrating") or {}
        assert (told["status"], told["reason"]) == ("False", "MigrationSucceeded")
        assert told["message"] == "The migration has succeeded and the stored versions have been updated"
        assert condition_status(definition, "Established") == "True"

    cluster_story(story, nodes=1)


def test_an_object_that_is_refused_fails_the_migration_and_the_definition_keeps_its_stored_versions() -> None:
    async def story(cluster: Cluster) -> None:
        await declare(cluster)
        await refuse_updates(cluster)
        await cluster.make(WIDGETS, {"metadata": {"name": "a"}})
        await cluster.make(MIGRATIONS, migration("m", "example.com", "widgets"))
        found = await ended(cluster)
        failed = get_condition(found, "Failed") or {}
        assert failed["reason"] == "StorageVersionMigrationFailed"
        assert failed["message"].startswith("1/1 not yet migrated. migration encountered unhandled error: ")
        assert "ValidatingAdmissionPolicy 'frozen'" in failed["message"]
        definition = await cluster.get(DEFINITIONS, "widgets.example.com")
        told = get_condition(definition, "StorageMigrating") or {}
        assert (told["status"], told["reason"], told["message"]) == ("False", "MigrationFailed", "The migration has failed")
        assert definition["status"]["storedVersions"] == ["v1"]

    cluster_story(story, nodes=1)


async def refuse_updates(cluster: Cluster) -> None:
    rule = {"apiGroups": ["example.com"], "apiVersions": ["*"], "resources": ["widgets"], "operations": ["UPDATE"]}
    spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "false"}]}
    await cluster.make(POLICIES, {"metadata": {"name": "frozen"}, "spec": spec})
    binding = {"policyName": "frozen", "validationActions": ["Deny"]}
    await cluster.make(POLICY_BINDINGS, {"metadata": {"name": "frozen"}, "spec": binding})


def test_migrations_of_a_kind_take_turns_and_one_of_nothing_fails_after_a_minute() -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.make(MIGRATIONS, migration("a", "example.com", "gadgets"))
        await cluster.make(MIGRATIONS, migration("b", "example.com", "gadgets"))
        await cluster.make(MIGRATIONS, migration("maps", "", "configmaps"))
        assert condition_status(await ended(cluster, "maps"), "Succeeded") == "True"
        running = get_condition(await cluster.get(MIGRATIONS, "a"), "Running") or {}
        assert (running["status"], running["message"]) == ("True", "The migration is running")
        assert "conditions" not in (await cluster.get(MIGRATIONS, "b")).get("status", {})
        first = await ended(cluster, "a")
        assert (get_condition(first, "Failed") or {})["message"] == "resource does not exist in discovery"
        second = await ended(cluster, "b")
        began = (get_condition(second, "Failed") or {})["lastTransitionTime"]
        assert began >= (get_condition(first, "Running") or {})["lastTransitionTime"]
        count = len(await cluster.all(CONFIG_MAPS))
        done = await cluster.get(MIGRATIONS, "maps")
        assert count > 0 and done["status"]["resourceVersion"].isdigit()

    cluster_story(story, nodes=1)


def test_what_cannot_be_written_cannot_be_migrated() -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.make(MIGRATIONS, migration("m", "", "componentstatuses"))
        found = await ended(cluster)
        message = 'resource "/v1, Resource=componentstatuses" does not support discovery operations: [update patch list]'
        assert (get_condition(found, "Failed") or {})["message"] == message

    cluster_story(story, nodes=1)
