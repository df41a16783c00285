"""Has every object of a kind stored anew, in the version that is stored now, when a StorageVersionMigration asks for it.

Watches migrations; writes their status, an empty patch of every object that is older than the migration, and the status of the
definition of a custom kind. Invariants: one migration of a kind runs at a time, the oldest first; `Succeeded` means that every object was
written after the migration began; `status.storedVersions` of a definition loses a version only when the definition is as it was when the
migration began. Mirrors upstream pkg/controller/storageversionmigrator, whose three controllers are steps of one here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

from korch.api.conditions import get_condition, is_condition_true, set_condition
from korch.api.errors import ApiError, Conflict, InternalError, NotFound, ServiceUnavailable, Timeout, TooManyRequests
from korch.api.gvk import ResourceRef
from korch.api.meta import at, name_of
from korch.client.controller import Controller, Requeue, Watch
from korch.client.projections import Meta, decode_meta
from korch.client.protocol import ListOptions
from korch.controllers.collecting.kinds import ServedKind, discover
from korch.controllers.workload.controller import decode_object
from korch.runtime.clock import parse_rfc3339

Object = dict[str, Any]

MIGRATIONS = ResourceRef("storagemigration.k8s.io", "v1", "storageversionmigrations", "StorageVersionMigration", namespaced=False)
DEFINITIONS = ResourceRef("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)

RUNNING, SUCCEEDED, FAILED = "Running", "Succeeded", "Failed"
# Of the definition of a custom kind.
MIGRATING = "StorageMigrating"
NEEDED_VERBS = ("update", "patch", "list")
# A kind that was declared a moment ago may not be served yet.
PATIENCE_S = 60.0
_PAGE = 500
_AGAIN = (Timeout, TooManyRequests, ServiceUnavailable, InternalError, ConnectionError)


class _Refused(Exception):
    """The server refused to store an object anew, and would again; says how many were left, of how many."""

    def __init__(self, error: ApiError, left: int, total: int) -> None:
        super().__init__(error.message)
        self.error, self.left, self.total = error, left, total


class StorageVersionMigratorController(Controller):
    """Reconciles one migration a key."""

    name = "storage-version-migrator-controller"
    watches = (Watch(MIGRATIONS, keys="keys_of", decode=decode_object),)

    def keys_of(self, migration: Object) -> Iterable[str]:
        """Map a migration to itself and to those that wait for it."""
        yield name_of(migration)
        yield from (name_of(one) for one in self._others(migration))

    async def reconcile(self, key: str) -> Requeue | None:
        migration = self.informer(MIGRATIONS).get_by_key(key)
        if migration is None:
            return None
        if _has_ended(migration):
            if is_condition_true(migration, RUNNING):
                await self._end(key, migration)
        elif not is_condition_true(migration, RUNNING):
            if not any(_goes_before(one, migration) for one in self._others(migration)):
                await self._begin(key, migration)
        elif not at(migration, "status", "resourceVersion"):
            return await self._note_version(key, migration)
        else:
            return await self._migrate(key, migration)
        return None

    def _others(self, migration: Object) -> list[Object]:
        """Return the other migrations of the same kind."""
        kind = _kind(migration)
        return [one for one in self.informer(MIGRATIONS).list() if _kind(one) == kind and name_of(one) != name_of(migration)]

    async def _begin(self, key: str, migration: Object) -> None:
        definition = await self._definition(migration)
        if definition is not None:
            message = f"Migration {key} is running"
            await self._tell_definition(definition, "True", "MigrationRunning", message)
        await self._say(key, migration, RUNNING, reason="MigrationRunning", message=_running_message())

    async def _end(self, key: str, migration: Object) -> None:
        """Let the next migration of the kind go on."""
        definition = await self._definition(migration)
        if definition is not None:
            await self._finish_definition(definition, is_condition_true(migration, SUCCEEDED))
        status = {**(migration.get("status") or {})}
        more = {"observedGeneration": at(migration, "metadata", "generation")}
        message = "Migration completed"
        set_condition(status, RUNNING, "False", now=self.runtime.clock.now(), reason="MigrationCompleted", message=message, **more)
        await self._put_status(key, migration, status)

    async def _note_version(self, key: str, migration: Object) -> Requeue | None:
        """Remember how new objects are now: what is written later is stored in the current version anyway."""
        kind = await self._served(migration)
        if kind is None:
            return await self._wait_or_fail(key, migration, "resource does not exist in discovery")
        if not kind.verbs.issuperset(NEEDED_VERBS):
            text = f"{kind.ref.group}/{kind.ref.version}, Resource={kind.ref.plural}"
            message = f'resource "{text}" does not support discovery operations: [{" ".join(NEEDED_VERBS)}]'
            await self._say(key, migration, FAILED, reason="StorageVersionMigrationFailed", message=message)
            return None
        listed = await self.client.list(kind.ref, ListOptions(limit=1))
        await self._put_status(key, migration, {**(migration.get("status") or {}), "resourceVersion": listed.resource_version})
        return None

    async def _migrate(self, key: str, migration: Object) -> Requeue | None:
        kind = await self._served(migration)
        if kind is None:
            message = "migration encountered unhandled error: unable to obtain GVR from discovery"
            return await self._wait_or_fail(key, migration, message)
        try:
            total = await self._store_anew(key, migration, kind.ref)
        except _Refused as refused:
            message = f"{refused.left}/{refused.total} not yet migrated. migration encountered unhandled error: {refused}"
            running = _running_message(refused.left, refused.total)
            await self._say(key, migration, FAILED, reason="StorageVersionMigrationFailed", message=message, running=running)
            return None
        running = _running_message(0, total)
        await self._say(
            key, migration, SUCCEEDED, reason="StorageVersionMigrationSucceeded", message="Migration completed", running=running
        )
        return None

    async def _store_anew(self, key: str, migration: Object, kind: ResourceRef) -> int:
        """Write every object that is as old as the migration; return how many objects there are. Raises _Refused."""
        newest = int(migration["status"]["resourceVersion"])
        found = [one async for one in self._all(kind)]
        old = [one for one in found if int(one.metadata.resourceVersion) <= newest]
        for done, one in enumerate(old):
            patch = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"resourceVersion": one.metadata.resourceVersion}}
            try:
                await self.client.patch(kind, one.name, patch, namespace=one.namespace, field_manager=self.name)
            except (Conflict, NotFound):
                # Somebody wrote it since, or deleted it.
                continue
            except _AGAIN as error:
                message = _running_message(len(old) - done, len(found), str(error))
                await self._say(key, migration, RUNNING, reason="MigrationRunning", message=message)
                raise
            except ApiError as error:
                raise _Refused(error, len(old) - done, len(found)) from error
        return len(found)

    async def _all(self, kind: ResourceRef) -> AsyncIterator[Meta]:
        token = ""
        while True:
            page = await self.client.list(kind, ListOptions(limit=_PAGE, continue_token=token))
            for raw in page.items:
                yield decode_meta(raw)
            token = page.continue_token
            if not token:
                return

    async def _served(self, migration: Object) -> ServedKind | None:
        group, plural = _kind(migration)
        served = await discover(self.client)
        return next((one for one in served.kinds if (one.ref.group, one.ref.plural) == (group, plural)), None)

    async def _wait_or_fail(self, key: str, migration: Object, message: str) -> Requeue | None:
        created = parse_rfc3339(at(migration, "metadata", "creationTimestamp") or "")
        if self.runtime.clock.now() < created + PATIENCE_S:
            return Requeue()
        await self._say(key, migration, FAILED, reason="StorageVersionMigrationFailed", message=message)
        return None

    async def _definition(self, migration: Object) -> Object | None:
        """Return the definition of the kind, None when it is built in."""
        group, plural = _kind(migration)
        try:
            return decode_object(await self.client.get(DEFINITIONS, f"{plural}.{group}"))
        except NotFound:
            return None

    async def _finish_definition(self, definition: Object, has_succeeded: bool) -> None:
        condition = get_condition(definition, MIGRATING) or {}
        if not has_succeeded:
            await self._tell_definition(definition, "False", "MigrationFailed", "The migration has failed")
        elif condition.get("observedGeneration") != at(definition, "metadata", "generation"):
            message = "The migration has succeeded but the stored versions have not been updated due to a generation mismatch"
            await self._tell_definition(definition, "False", "MigrationSucceeded", message)
        else:
            stored = [one["name"] for one in at(definition, "spec", "versions") or () if one.get("storage")]
            definition = {**definition, "status": {**definition["status"], "storedVersions": stored}}
            message = "The migration has succeeded and the stored versions have been updated"
            await self._tell_definition(definition, "False", "MigrationSucceeded", message)

    async def _tell_definition(self, definition: Object, value: str, reason: str, message: str) -> None:
        status = {**(definition.get("status") or {})}
        status["conditions"] = list(status.get("conditions") or ())
        more = {"observedGeneration": at(definition, "metadata", "generation")}
        set_condition(status, MIGRATING, value, now=self.runtime.clock.now(), reason=reason, message=message, **more)
        # Of the version that was read, so that nobody has changed what this is about.
        await self.client.update(DEFINITIONS, {**definition, "status": status}, name=name_of(definition), subresource="status")

    async def _say(self, key: str, migration: Object, condition: str, *, reason: str, message: str, running: str = "") -> None:
        """Set a condition to true, and the message of `Running` when there is one."""
        status = {**(migration.get("status") or {})}
        status["conditions"] = list(status.get("conditions") or ())
        now = self.runtime.clock.now()
        if running:
            set_condition(status, RUNNING, "True", now=now, reason="MigrationRunning", message=running)
        set_condition(status, condition, "True", now=now, reason=reason, message=message)
        await self._put_status(key, migration, status)

    async def _put_status(self, key: str, migration: Object, status: Object) -> None:
        written = await self.client.update(MIGRATIONS, {**migration, "status": status}, name=name_of(migration), subresource="status")
        self.wrote(key, MIGRATIONS, written)


def _kind(migration: Object) -> tuple[str, str]:
    resource = at(migration, "spec", "resource") or {}
    return resource.get("group") or "", resource.get("resource") or ""


def _has_ended(migration: Object) -> bool:
    return is_condition_true(migration, SUCCEEDED) or is_condition_true(migration, FAILED)


def _goes_before(other: Object, migration: Object) -> bool:
    """Return whether `other` runs, or is older and waits as well."""
    if is_condition_true(other, RUNNING):
        return not _has_ended(other)
    return not _has_ended(other) and _age(other) < _age(migration)


def _age(migration: Object) -> tuple[str, str]:
    return at(migration, "metadata", "creationTimestamp") or "", name_of(migration)


def _running_message(left: int = 0, total: int = 0, error: str = "") -> str:
    message = "The migration is running"
    if total:
        message += f", {left}/{total} objects not yet migrated" if left else f", {total} objects verified migrated"
    return f"{message}; transient error: {error}" if error else message
