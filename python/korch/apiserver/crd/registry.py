"""The declarations of custom kinds, watched: a kind is served within milliseconds of its declaration, and ends with it.

Level-triggered: every event looks at the stored declaration, decides its names, serves its versions, and then says so in its status;
one that is being deleted loses its objects first, then its finalizer. Mirrors apiextensions-apiserver's naming, establishing and
finalizer controllers and its crdHandler.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from korch._core import native
from korch.api.errors import ApiError, NotFound
from korch.api.meta import at
from korch.apiserver.codec import Codec
from korch.apiserver.crd import names
from korch.apiserver.crd.kind import Shown, resource_of
from korch.apiserver.crd.schemas import LazySchema
from korch.apiserver.crd.versions import Versions
from korch.apiserver.identity import APISERVER
from korch.apiserver.options import RemovalOptions, WriteOptions
from korch.apiserver.pipeline import Pipeline, Target
from korch.apiserver.webhook_client import WebhookClient
from korch.resources.apiextensions import customresourcedefinition as definition
from korch.resources.resource import Object, Resource
from korch.runtime.context import Runtime
from korch.runtime.log import get_logger
from korch.storage import Storage, Watch

log = get_logger("customresources")

_CLEANUP_INTERVAL_S = 0.5
_RETRY_S = 1.0


@dataclass(slots=True)
class _Served:
    """What stands in the catalogue for one declaration."""

    fingerprint: str
    # That of the declaration when it was last looked at.
    resource_version: str = ""
    keys: list[tuple[str, str, str]] = field(default_factory=list)
    definitions: list[str] = field(default_factory=list)
    spec_hash: int = 0
    schema_revision: int = 0
    versions: Versions | None = None


class CustomKinds:
    """Serves the custom kinds of one store. `load` makes them known at once, `run` keeps them so."""

    def __init__(self, pipeline: Pipeline, runtime: Runtime, webhooks: WebhookClient) -> None:
        self._pipeline = pipeline
        self._storage: Storage = pipeline.records.storage
        self._codec: Codec = pipeline.codec
        self._catalogue = pipeline.catalogue
        self._runtime = runtime
        self._webhooks = webhooks
        self._served: dict[str, _Served] = {}
        self._terminating: set[str] = set()
        # Of every declaration its group and names, and those that wait for a name.
        self._known: dict[str, Object] = {}
        self._waiting: set[str] = set()
        self._revision = 0

    @property
    def _kind(self) -> Resource | None:
        return self._catalogue.get(definition.GROUP, "v1", "customresourcedefinitions")

    def load(self) -> None:
        """Serve every declaration whose names are accepted, and forget those that are gone."""
        resource = self._kind
        if resource is None:
            return
        page = self._storage.range(resource.key_prefix())
        self._revision = page.revision
        gone = set(self._known)
        for value in page.values:
            crd: Object = orjson.loads(value)
            gone.discard(crd["metadata"]["name"])
            self._know(crd)
            self._serve(crd)
        for name in gone:
            self._forget(name)
            self._known.pop(name, None)

    async def run(self) -> None:
        """Follow the declarations; returns only when cancelled."""
        resource = self._kind
        while resource is not None:
            try:
                self.load()
                async with self._storage.watch(resource.key_prefix(), self._revision) as watch:
                    for name in list(self._known):
                        await self._settle(resource, name)
                    await self._follow(resource, watch)
            except (native.Compacted, native.WatcherLagged):
                continue

    async def _follow(self, resource: Resource, watch: Watch) -> None:
        while True:
            try:
                async with asyncio.timeout(_CLEANUP_INTERVAL_S if self._terminating else None):
                    events = await watch.next_events()
            except TimeoutError:
                events = []
            else:
                if not events:
                    return
            changed = {orjson.loads(value)["metadata"]["name"] for _, _, value in events}
            for name in sorted(changed | self._terminating):
                await self._settle(resource, name)
            # A name that was given up may be what another declaration waits for.
            for name in sorted(self._waiting - changed) if changed else ():
                await self._settle(resource, name)

    def _know(self, crd: Object) -> None:
        """Remember of a declaration what decides about the names of others."""
        metadata = {"name": crd["metadata"]["name"]}
        accepted = {"acceptedNames": at(crd, "status", "acceptedNames")}
        self._known[metadata["name"]] = {"metadata": metadata, "spec": {"group": at(crd, "spec", "group")}, "status": accepted}

    async def _settle(self, resource: Resource, name: str) -> None:
        """Make everything right for one declaration."""
        record = self._storage.get(resource.key("", name))
        if record is None:
            self._forget(name)
            self._known.pop(name, None)
            self._terminating.discard(name)
            self._waiting.discard(name)
            return
        crd: Object = orjson.loads(record.value)
        try:
            if crd["metadata"].get("deletionTimestamp"):
                self._terminating.add(name)
                self._serve(crd)
                await self._clean(resource, crd)
                return
            others = list(self._known.values())
            status = names.decided(crd, others, self._runtime.clock.now())
            self._know({**crd, "status": status})
            (self._waiting.discard if definition.has_condition({"status": status}, "NamesAccepted") else self._waiting.add)(name)
            self._serve({**crd, "status": status})
            if status != crd.get("status"):
                await self._write_status(resource, name, lambda now: names.decided(now, others, self._runtime.clock.now()))
        except NotFound:
            return
        except ApiError as error:
            log.warning("custom kind is not right yet", kind=name, error=str(error))
            if crd["metadata"].get("deletionTimestamp"):
                self._terminating.add(name)

    def _serve(self, crd: Object) -> None:
        """Put the versions of a declaration into the catalogue, in place of what stood there for it."""
        name, metadata = crd["metadata"]["name"], crd["metadata"]
        if not definition.has_condition(crd, "Established"):
            self._forget(name)
            return
        accepted = orjson.dumps([at(crd, "status", "acceptedNames"), at(crd, "status", "storedVersions")]).decode()
        fingerprint = f"{metadata.get('uid')}/{metadata.get('generation')}/{bool(metadata.get('deletionTimestamp'))}/{accepted}"
        before = self._served.get(name)
        if before is not None and before.fingerprint == fingerprint:
            before.resource_version = metadata["resourceVersion"]
            return
        served = _Served(fingerprint, schema_revision=self._schema_revision(crd, before))
        served.spec_hash = _spec_hash(crd)
        served.resource_version = metadata["resourceVersion"]
        schemas = {one["name"]: LazySchema(self._reader(name, one["name"]), self._codec.schema) for one in crd["spec"]["versions"]}
        versions = Versions(crd, schemas=schemas, schema_revision=served.schema_revision, webhooks=self._webhooks, rng=self._runtime.rng)
        served.versions = versions
        resources: list[Resource] = []
        is_plain = len(crd["spec"]["versions"]) == 1 and not served.schema_revision
        for one in crd["spec"]["versions"]:
            if not one.get("served"):
                continue
            present = None if is_plain else versions.presenter(one["name"])
            is_outdated = None if is_plain else versions.is_outdated
            shown = Shown(present=present, is_outdated=is_outdated, to_storage=versions.writer(one["name"]))
            resources.append(resource_of(crd, one, schemas[one["name"]], shown, lambda: self._is_current(name)))
        served.keys = [(one.group, one.version, one.plural) for one in resources]
        served.definitions = [one.schema for one in resources]
        if before is not None:
            for key in before.keys:
                if key not in served.keys:
                    self._catalogue.remove(*key)
            for one in before.definitions:
                self._codec.custom.pop(one, None)
        for one in resources:
            self._codec.custom[one.schema] = schemas[one.version].check
            self._catalogue.add(one)
        self._served[name] = served

    def _schema_revision(self, crd: Object, before: _Served | None) -> int:
        """Return the revision from which on objects are written by the present schema; 0 when there never was another."""
        if (crd["metadata"].get("generation") or 1) <= 1 or crd["metadata"].get("deletionTimestamp"):
            return before.schema_revision if before is not None else 0
        if before is not None and before.spec_hash == _spec_hash(crd):
            return before.schema_revision
        return int(crd["metadata"].get("resourceVersion") or 0)

    def _is_current(self, name: str) -> bool:
        """Whether the stored declaration is the one that was last looked at."""
        resource, served = self._kind, self._served.get(name)
        record = self._storage.get(resource.key("", name)) if resource is not None else None
        return record is not None and served is not None and served.resource_version == str(record.mod_revision)

    def _reader(self, name: str, version: str) -> Callable[[], bytes]:
        def read() -> bytes:
            resource = self._kind
            record = self._storage.get(resource.key("", name)) if resource is not None else None
            if record is None:
                return b""
            versions: list[Object] = at(orjson.loads(record.value), "spec", "versions") or []
            schema = next((at(one, "schema", "openAPIV3Schema") for one in versions if one.get("name") == version), None)
            return orjson.dumps(schema) if schema else b""

        return read

    def _forget(self, name: str) -> None:
        served = self._served.pop(name, None)
        if served is None:
            return
        for key in served.keys:
            self._catalogue.remove(*key)
        for one in served.definitions:
            self._codec.custom.pop(one, None)

    async def prepare_storage(self, resource: Resource, obj: Object) -> None:
        """Convert an object that is about to be stored, when its kind is converted by a webhook. Raises InternalError."""
        served = self._served.get(f"{resource.plural}.{resource.group}")
        if served is not None and served.versions is not None:
            await served.versions.prepare(obj, resource.version)

    async def _clean(self, resource: Resource, crd: Object) -> None:
        """Delete the objects of a declaration that is being deleted; when there are none left, let it go."""
        name = crd["metadata"]["name"]
        finalizers: list[str] = crd["metadata"].get("finalizers") or []
        if definition.CLEANUP_FINALIZER not in finalizers:
            return
        left = await self._delete_objects(crd)
        if left:
            if not definition.has_condition(crd, "Terminating"):
                await self._write_status(resource, name, lambda now: names.terminating(now, self._runtime.clock.now(), is_done=False))
            return

        def release(old: Object, old_bytes: bytes) -> Object:
            new: Object = orjson.loads(old_bytes)
            new["metadata"]["finalizers"] = [one for one in old["metadata"].get("finalizers") or () if one != definition.CLEANUP_FINALIZER]
            return new

        await self._pipeline.modify(Target(resource=resource, name=name), release, WriteOptions())
        self._terminating.discard(name)

    async def _delete_objects(self, crd: Object) -> int:
        """Delete every object of the kind; return how many are left because something else holds them."""
        served = self._served.get(crd["metadata"]["name"])
        group, plural = crd["spec"]["group"], crd["spec"]["names"]["plural"]
        if served is None or not served.keys:
            return 0
        resource = self._catalogue.get(*served.keys[0])
        if resource is None:
            return 0
        prefix = f"/registry/{group}/{plural}/".encode()
        for value in self._storage.range(prefix).values:
            metadata: Any = orjson.loads(value)["metadata"]
            if metadata.get("deletionTimestamp"):
                continue
            target = Target(
                resource=resource, namespace=metadata.get("namespace") or "", name=metadata["name"], user=APISERVER, is_internal=True
            )
            try:
                await self._pipeline.delete(target, RemovalOptions(propagation_policy="Background"))
            except NotFound:
                continue
        return len(self._storage.range(prefix, limit=1).values)

    async def _write_status(self, resource: Resource, name: str, decide: Callable[[Object], Object]) -> None:
        def change(old: Object, old_bytes: bytes) -> Object:
            new: Object = orjson.loads(old_bytes)
            new["status"] = decide(old)
            return new

        await self._pipeline.modify(Target(resource=resource, name=name, subresource="status"), change, WriteOptions())


def _spec_hash(crd: Object) -> int:
    return hash(orjson.dumps(crd["spec"]["versions"]))
