"""Every verb on every kind: from a decoded request to one commit, and from stored bytes to the answer.

A write is decoded once, defaulted, admitted, checked, stamped, encoded once and committed under the condition that nobody else
wrote in between. Nothing awaits between reading the store and applying the commit, so what admission saw is still true
when the write happens; when the condition fails the change is made again on the new state (or refused, if the request named a
version). The same pipeline serves HTTP and the in-process client. Mirrors apiserver's registry/generic/registry/store.go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import orjson

from korch._core import native
from korch.api import patch as patches
from korch.api.errors import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Cause,
    Conflict,
    InternalError,
    Invalid,
    MethodNotAllowed,
    NotFound,
    RequestEntityTooLarge,
    UnsupportedMediaType,
)
from korch.api.errors import invalid as invalid_value
from korch.apiserver import body as bodies
from korch.apiserver import deletion, objects
from korch.apiserver.admission import Admission, AdmissionRequest, Object
from korch.apiserver.allocation import Claim
from korch.apiserver.codec import Codec, normal
from korch.apiserver.conversion import converted
from korch.apiserver.encoding import dump, success
from korch.apiserver.field_managers import FieldManagers, check_configuration, sealed, set_managed_fields
from korch.apiserver.grants import is_node
from korch.apiserver.heads import Head, Heads
from korch.apiserver.identity import APISERVER, User
from korch.apiserver.ledger import AllocationLost
from korch.apiserver.options import RemovalOptions, WriteOptions
from korch.apiserver.pod_recipes import Draft, Opened, PodRecipes, ShapesPods
from korch.apiserver.records import Records, to_kind
from korch.resources.resource import Catalogue, Context, Resource
from korch.runtime.context import Runtime

if TYPE_CHECKING:
    from korch._core._native import Op

_GENERATED_NAME_TRIES = 8
_GENERATED_NAME_BASE_MAX = 58
_PATCH_TRIES = 5
_UPDATE_TRIES = 100

_NO_STRATEGIC_PATCH = (
    "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, "
    "application/merge-patch+json, application/apply-patch+yaml"
)

Prepare = Callable[[Resource, Object, Object, Context], None]


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a request is about: a kind, and where in it. `name` is empty for collections."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    user: User = APISERVER
    # A step that the server takes by itself: policies and webhooks are not asked.
    is_internal: bool = False


@dataclass(slots=True)
class Outcome:
    """An answer: the encoded document, its HTTP code, and warnings for the client."""

    body: bytes
    code: int = 200
    warnings: list[str] = field(default_factory=list)


class Extensions(Protocol):
    """Admission that asks others: policies and webhooks. Both methods await only when one of them concerns the request."""

    def is_idle(self) -> bool:
        """Return whether there is nobody to ask."""
        ...

    async def mutate(self, request: AdmissionRequest) -> None:
        """Let them change `request.obj`, in place. Raises ApiError to refuse."""
        ...

    async def validate(self, request: AdmissionRequest) -> None:
        """Let them refuse. Raises ApiError."""
        ...


class Allocator(Protocol):
    """The part of the allocator that the pipeline calls; see `allocation.ServiceAllocator`."""

    def claim_create(self, service: Object) -> Claim:
        """Take what a new object needs."""
        ...

    def claim_update(self, service: Object, old: Object) -> Claim:
        """Take what a changed object needs."""
        ...

    def claim_delete(self, service: Object) -> Claim:
        """Return a claim that gives back everything."""
        ...


class Pipeline:
    """The verbs. `admission` runs before mutating webhooks and policies, `validating` after them; `allocators` maps (group, plural) to
    what hands out addresses for that kind."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        records: Records,
        catalogue: Catalogue,
        codec: Codec,
        admission: Sequence[Admission],
        validating: Sequence[Admission] = (),
        allocators: Mapping[tuple[str, str], Allocator],
    ) -> None:
        self.runtime = runtime
        self.records = records
        self.catalogue = catalogue
        self.codec = codec
        self.managers = FieldManagers(codec.schema)
        self._admission = admission
        self._validating = validating
        # Those that see no spec where what becomes of it is known.
        self._bystanders = [one for one in (*admission, *validating) if not isinstance(one, ShapesPods)]
        self._recipes = PodRecipes(codec, [*admission, *validating])
        self.heads = Heads()
        # Set by the server once there is somebody to ask.
        self.extensions: Extensions | None = None
        # Converts an object that is about to be stored, for kinds whose versions another server converts.
        self.prepare_storage: Callable[[Resource, Object], Awaitable[None]] | None = None
        self._allocators = allocators

    def get(self, target: Target) -> bytes:
        """Return the stored bytes. Raises NotFound."""
        found = self.records.read(target.resource, target.namespace, target.name)
        if found is None:
            raise NotFound(target.resource.group, target.resource.plural, target.name)
        return found[0]

    async def create(self, target: Target, body: bytes, options: WriteOptions) -> Outcome:
        """Store a new object. Raises AlreadyExists, Invalid, BadRequest, Forbidden, NotFound (namespace)."""
        resource = target.resource
        warnings: list[str] = []
        known = self._known(target, body, options)
        obj = known.pod if isinstance(known, Opened) else self.codec.decode(resource, body, options.field_validation, warnings)
        objects.check_address(resource, obj, target.namespace, target.name)
        objects.refuse_version(obj)
        metadata = obj["metadata"]
        base = metadata.get("generateName") or ""
        is_generated = bool(base) and not metadata.get("name")
        for attempt in range(_GENERATED_NAME_TRIES):
            if is_generated:
                metadata["name"] = base[:_GENERATED_NAME_BASE_MAX] + self.runtime.rng.name_suffix()
            try:
                stored = await self._create_once(target, obj, options, warnings, known=known)
            except AlreadyExists:
                if not is_generated or attempt == _GENERATED_NAME_TRIES - 1:
                    raise
                obj, known = self.codec.decode(resource, body, "Ignore", []), None
                objects.check_address(resource, obj, target.namespace, target.name)
                metadata = obj["metadata"]
                continue
            return Outcome(stored, 201, warnings)
        raise InternalError("no free name was generated")

    def _known(self, target: Target, body: bytes, options: WriteOptions) -> Opened | Draft | None:
        is_plain = not options.is_dry_run and self._is_quiet(target)
        return self._recipes.open(target.resource, target.namespace, target.user, body, options.field_validation) if is_plain else None

    def _is_quiet(self, target: Target) -> bool:
        """Whether nobody is configured who has a say in a write but the server itself."""
        return self.extensions is None or target.is_internal or self.extensions.is_idle()

    async def _create_once(
        self,
        target: Target,
        obj: Object,
        options: WriteOptions,
        warnings: list[str],
        *,
        is_applied: bool = False,
        known: Opened | Draft | None = None,
    ) -> bytes:
        resource = target.resource
        metadata = obj["metadata"]
        now = self.runtime.clock.now()
        recipe = known.recipe if isinstance(known, Opened) else None
        if recipe is None:
            resource.strategy.default(obj)
        if isinstance(known, Draft):
            known.defaulted(obj)
        objects.stamp_new(resource, obj, uid=self.runtime.rng.uid(), now=now)
        if not is_applied:
            self.managers.track(resource, "", None, obj, manager=options.manager, now=now)
        if recipe is not None:
            recipe.finish(obj, self.runtime.rng)
            self._admit("CREATE", target, obj, None, options.is_dry_run, self._bystanders)
            objects.check_metadata(resource, obj)
        else:
            request = self._admit("CREATE", target, obj, None, options.is_dry_run, self._admission)
            await self._mutate(target, request)
            objects.prepare_create(resource, obj, self._context(target))
            await self._validate(target, request, warnings)
            if isinstance(known, Draft) and not warnings:
                self._recipes.learn(known, resource, obj)
        name, namespace = metadata["name"], metadata.get("namespace") or ""
        claim = self._claim(resource, "create", obj)
        try:
            if options.is_dry_run:
                if self.records.read(resource, namespace, name) is not None:
                    raise AlreadyExists(resource.group, resource.plural, name)
                _cancel(claim)
                return dump(obj)
            put = self.records.put(resource, obj, 0, recipe.fields if recipe is not None else None)
            _, values = await self.records.storage.commit([put, *_ops(claim)])
        except (native.KeyExists, native.RevisionMismatch) as error:
            _cancel(claim)
            if error.args[0] > 0:
                raise AllocationLost() from error
            raise AlreadyExists(resource.group, resource.plural, name) from error
        except ApiError:
            _cancel(claim)
            raise
        if claim is not None:
            claim.confirm()
        return await _shown(resource, values)

    async def update(self, target: Target, body: bytes, options: WriteOptions) -> Outcome:
        """Replace an object (or its status). Raises NotFound, Conflict, Invalid, BadRequest."""
        resource = target.resource
        warnings: list[str] = []
        fresh: list[Object] = [self.codec.decode(resource, body, options.field_validation, warnings)]

        def replace(_old: Object, _old_bytes: bytes) -> Object:
            # What an earlier try has changed is decoded again.
            new = fresh.pop() if fresh else self.codec.decode(resource, body, "Ignore", [])
            if target.subresource:
                new["metadata"].setdefault("name", target.name)
            objects.check_address(resource, new, target.namespace, "")
            given = new["metadata"].get("name") or ""
            if given != target.name:
                if not given:
                    raise Invalid(
                        resource.group,
                        resource.kind,
                        "",
                        [Cause("FieldValueRequired", "Required value: name is required", "metadata.name")],
                    )
                raise BadRequest(f"the name of the object ({given}) does not match the name on the URL ({target.name})")
            return new

        try:
            stored = await self.modify(target, replace, options, warnings=warnings)
        except NotFound as error:
            is_own = error.details.get("name") == target.name and error.details.get("kind") == resource.plural
            if target.subresource or not resource.strategy.allows_create_on_update or not is_own:
                raise
            return await self._create_by_update(target, body, options)
        return Outcome(stored, 200, warnings)

    async def _create_by_update(self, target: Target, body: bytes, options: WriteOptions) -> Outcome:
        """A PUT to a name that is free creates the object, unless the body says that it knew an older one."""
        resource = target.resource
        obj = self.codec.decode(resource, body, "Ignore", [])
        metadata = obj["metadata"]
        if metadata.get("uid"):
            why = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: "
            raise Conflict(resource.group, resource.plural, target.name, why)
        if metadata.get("resourceVersion") not in (None, "", "0"):
            raise NotFound(resource.group, resource.plural, target.name)
        options.may_create()
        return await self.create(target, body, options)

    async def apply(self, target: Target, body: bytes, options: WriteOptions) -> Outcome:
        """Make the object what a configuration (JSON or YAML) says, as far as its manager says anything; create it when there is none.

        Raises Conflict (another manager's fields), Invalid, BadRequest, Forbidden, NotFound (of a subresource).
        """
        resource = target.resource
        warnings: list[str] = []
        config = self._configuration(resource, body, options, warnings)
        for _ in range(_PATCH_TRIES):
            if target.subresource or self.records.read(resource, target.namespace, target.name) is not None:
                try:
                    return Outcome(await self._apply_to_stored(target, config, options, warnings), 200, warnings)
                except NotFound as error:
                    if target.subresource or error.details.get("name") != target.name:
                        raise
            options.may_create()
            try:
                return Outcome(await self._apply_to_nothing(target, config, options, warnings), 201, warnings)
            except AlreadyExists:
                await self.records.storage.settled()
        raise Conflict(resource.group, resource.plural, target.name)

    def _configuration(self, resource: Resource, body: bytes, options: WriteOptions, warnings: list[str]) -> bytes:
        config, decoded, is_yaml = bodies.configuration(body)
        check_configuration(decoded, resource.group, resource.version, resource.kind)
        if options.field_validation == "Ignore":
            return config
        repeats = is_yaml or any(one.startswith("duplicate field") for one in self.codec.check(resource.schema, body).strict)
        found = bodies.duplicate_keys(body) if repeats else ""
        if found and options.field_validation == "Strict":
            raise BadRequest(f"error strict decoding patch: {found}")
        warnings += [found] if found else []
        return config

    async def _apply_to_stored(self, target: Target, config: bytes, options: WriteOptions, warnings: list[str]) -> bytes:
        resource = target.resource

        def change(_old: Object, old_bytes: bytes) -> Object:
            now = self.runtime.clock.now()
            merged, managed = self.managers.apply(
                resource, target.subresource, old_bytes, config, manager=options.manager, now=now, force=options.force
            )
            head = self.heads.read(resource, old_bytes, merged, lambda one: self._fit(target, one)) if self._may_be_head(target) else None
            obj = head if head is not None else self._fit(target, merged)
            set_managed_fields(obj, managed)
            return obj

        return await self.modify(target, change, options, tries=_PATCH_TRIES, warnings=warnings, is_applied=True, reads_old=False)

    async def _apply_to_nothing(self, target: Target, config: bytes, options: WriteOptions, warnings: list[str]) -> bytes:
        resource = target.resource
        now = self.runtime.clock.now()
        merged, managed = self.managers.apply(resource, "", None, config, manager=options.manager, now=now, force=options.force)
        obj = self._fit(target, merged)
        set_managed_fields(obj, managed)
        if uid := obj["metadata"].get("uid"):
            why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            raise Conflict(resource.group, resource.plural, target.name, why)
        objects.refuse_version(obj)
        return await self._create_once(target, obj, options, warnings, is_applied=True)

    def _fit(self, target: Target, merged: bytes) -> Object:
        """Return a merged object as the kind's decoder would read it."""
        resource = target.resource
        checked = self.codec.check(resource.schema, merged)
        if checked.error:
            raise BadRequest(checked.error)
        obj = normal(orjson.loads(checked.body), resource.kind, resource.api_version)
        objects.check_address(resource, obj, target.namespace, target.name)
        return obj

    async def patch(self, target: Target, patch: bytes, patch_type: str, options: WriteOptions) -> Outcome:
        """Apply a json, merge or strategic patch. Raises NotFound, Conflict, Invalid, BadRequest."""
        resource = target.resource
        warnings: list[str] = []
        is_light = patch_type != "json" and self._may_be_head(target) and patches.changes_metadata_alone(patch)

        def change(_old: Object, old_bytes: bytes) -> Object:
            warnings.clear()
            head = self.heads.change(resource, old_bytes, patched) if is_light else None
            return head if head is not None else patched(old_bytes)

        def patched(old_bytes: bytes) -> Object:
            body = self.apply_patch(resource.schema, resource.kind, old_bytes, patch, patch_type)
            new = self.decode_patched(resource.schema, body, patch, options.field_validation, warnings)
            given_kind, given_version = new.get("kind", resource.kind), new.get("apiVersion", resource.api_version)
            if given_kind != resource.kind or given_version != resource.api_version:
                raise BadRequest(
                    f"the API version in the data ({given_version}) does not match the expected API version ({resource.api_version})"
                    if given_kind == resource.kind
                    else f"{given_kind} in version {given_version!r} cannot be handled as a {resource.kind}"
                )
            new = normal(new, resource.kind, resource.api_version)
            objects.check_address(resource, new, target.namespace, target.name)
            return new

        stored = await self.modify(target, change, options, tries=_PATCH_TRIES, warnings=warnings, reads_old=False)
        return Outcome(stored, 200, warnings)

    def _may_be_head(self, target: Target) -> bool:
        return not target.subresource and not is_node(target.user) and self._is_quiet(target)

    def apply_patch(self, definition: str, kind: str, old: bytes, patch: bytes, patch_type: str) -> bytes:
        """Return `old` with the patch applied. Raises BadRequest for a malformed patch, Invalid for one that does not fit."""
        if patch_type == "strategic" and definition in self.codec.custom:
            raise UnsupportedMediaType(_NO_STRATEGIC_PATCH)
        try:
            if patch_type == "json":
                return patches.json_patch(old, patch)
            if patch_type == "merge":
                return patches.merge_patch(old, patch)
            return patches.strategic_merge_patch(old, patch, definition, self.codec.schema)
        except patches.PatchTooLong as error:
            raise RequestEntityTooLarge(str(error)) from error
        except patches.MalformedPatch as error:
            raise BadRequest(str(error)) from error
        except patches.UnprocessablePatch as error:
            raise ApiError(422, "Invalid", str(error)) from error

    def decode_patched(self, definition: str, patched: bytes, patch: bytes, field_validation: str, warnings: list[str]) -> Object:
        """Return the patched object, checked against its schema. Raises Invalid as upstream does for what the patch made wrong."""
        try:
            checked = self.codec.check(definition, patched)
        except ValueError as error:
            raise BadRequest(str(error)) from error
        problem = checked.error
        if not problem and checked.strict:
            if field_validation == "Strict":
                problem = "strict decoding error: " + ", ".join(checked.strict)
            elif field_validation == "Warn":
                warnings.extend(checked.strict)
        if problem:
            shown = patch.decode(errors="replace")
            raise Invalid("", "", "", [invalid_value("patch", shown, problem)])
        return sealed(checked.body)

    async def modify(
        self,
        target: Target,
        change: Callable[[Object, bytes], Object],
        options: WriteOptions,
        *,
        prepare: Prepare | None = None,
        tries: int = _UPDATE_TRIES,
        warnings: list[str] | None = None,
        is_applied: bool = False,
        reads_old: bool = True,
    ) -> bytes:
        """Change a stored object and return its new bytes. `change(old, old_bytes)` returns the wanted object; `old` is empty unless
        `reads_old`, and then the wanted object may be a `Head`.

        What it changes is from then on owned by `options.manager`, unless `change` says who owns what itself (`is_applied`).

        A wanted object that carries another resourceVersion than the stored one is a Conflict. Lost races are repeated on the
        new state, at most `tries` times; then they are a Conflict too. Raises NotFound, Conflict, Invalid.
        """
        resource = target.resource
        for _ in range(tries):
            found = await converted(lambda: self.records.read(resource, target.namespace, target.name))
            if found is None:
                raise NotFound(resource.group, resource.plural, target.name)
            old_bytes, revision = found
            old = sealed(old_bytes) if reads_old else {}
            new = change(old, old_bytes)
            if not reads_old:
                old = new.old if isinstance(new, Head) else sealed(old_bytes)
            objects.check_uid(resource, new, old)
            objects.check_version(resource, new, old)
            try:
                if not isinstance(new, Head):
                    resource.strategy.default(new)
                if not is_applied:
                    now = self.runtime.clock.now()
                    self.managers.track(resource, target.subresource, old_bytes, new, manager=options.manager, now=now)
                stored = await self._modify_once(target, new, old, revision, options, prepare or _prepare_for(target), warnings)
                if not reads_old and not isinstance(new, Head) and self._may_be_head(target):
                    self.heads.learn(resource, old_bytes, stored)
                return stored
            except (native.RevisionMismatch, native.KeyMissing):
                await self.records.storage.settled()
        raise Conflict(resource.group, resource.plural, target.name)

    async def _modify_once(
        self,
        target: Target,
        new: Object,
        old: Object,
        revision: int,
        options: WriteOptions,
        prepare: Prepare,
        warnings: list[str] | None,
    ) -> bytes:
        resource, head = target.resource, new if isinstance(new, Head) else None
        request = self._admit("UPDATE", target, new, old, options.is_dry_run, self._admission if head is None else self._bystanders)
        if head is None:
            await self._mutate(target, request)
        claim = None if target.subresource else self._claim(resource, "update", new, old)
        try:
            if head is None:
                prepare(resource, new, old, self._context(target))
                await self._validate(target, request, [] if warnings is None else warnings)
            else:
                objects.prepare_head_update(resource, new, old)
            new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
            if objects.is_finished(new, resource.kind == "Namespace" and resource.group == ""):
                await self._finish(resource, new, revision, options.is_dry_run)
                return dump(new)
            is_same = objects.is_same(new, old)
            if is_same and "managedFields" in old["metadata"]:
                # Nothing was taken over, so nobody's time moves.
                new["metadata"]["managedFields"] = old["metadata"]["managedFields"]
            if options.is_dry_run or (is_same and not self.records.is_outdated(resource, old)):
                metadata = old["metadata"]
                await self.records.storage.confirm(resource.key(metadata.get("namespace") or "", metadata["name"]), revision)
                _cancel(claim)
                return dump(new)
            put = self.records.put(resource, new, revision, head.fields if head is not None else None)
            _, values = await self.records.storage.commit([put, *_ops(claim)])
        except native.KeyExists as error:
            _cancel(claim)
            raise AllocationLost() from error
        except (ApiError, native.StoreError):
            _cancel(claim)
            raise
        if claim is not None:
            claim.confirm()
        return await _shown(resource, values)

    async def _finish(self, resource: Resource, obj: Object, revision: int, is_dry_run: bool) -> None:
        """Remove an object whose last finalizer has gone (or whose grace period is over)."""
        if not is_dry_run:
            claim = self._claim(resource, "delete", obj)
            await self.records.storage.commit([self.records.delete(resource, obj, revision), *_ops(claim)])
            if claim is not None:
                claim.confirm()

    async def delete(self, target: Target, options: RemovalOptions) -> Outcome:
        """Delete one object, or begin to. Raises NotFound, Conflict (preconditions), Forbidden."""
        resource = target.resource
        for _ in range(_UPDATE_TRIES):
            found = await converted(lambda: self.records.read(resource, target.namespace, target.name))
            if found is None:
                raise NotFound(resource.group, resource.plural, target.name)
            old_bytes, revision = found
            obj = sealed(old_bytes)
            objects.check_preconditions(resource, obj, uid=options.uid, resource_version=options.resource_version)
            request = self._admit("DELETE", target, None, obj, options.is_dry_run, self._admission)
            warnings: list[str] = []
            await self._mutate(target, request)
            await self._validate(target, request, warnings)
            resource.strategy.prepare_delete(obj, self._context(target))
            removal = deletion.mark(resource, obj, options, self.runtime.clock.now())
            try:
                if removal.ends:
                    await self._finish(resource, obj, revision, options.is_dry_run)
                    return self._ended(resource, obj, warnings)
                if removal.changes and not options.is_dry_run:
                    await self._before_storage(resource, obj)
                    _, values = await self.records.storage.commit([self.records.put(resource, obj, revision)])
                    return Outcome(await _shown(resource, values), _pending_code(options), warnings)
                return Outcome(dump(obj), _pending_code(options), warnings)
            except (native.RevisionMismatch, native.KeyMissing):
                await self.records.storage.settled()
        raise Conflict(resource.group, resource.plural, target.name)

    def _ended(self, resource: Resource, obj: Object, warnings: list[str]) -> Outcome:
        metadata = obj["metadata"]
        if deletion.answers_object(resource):
            return Outcome(dump(obj), warnings=warnings)
        status = success(metadata["name"], resource.group, resource.plural, metadata.get("uid", ""))
        return Outcome(dump(status), warnings=warnings)

    async def delete_each(self, target: Target, values: Sequence[bytes], options: RemovalOptions) -> list[bytes]:
        """Delete objects (bytes in the kind's form) one by one; those that vanish meanwhile are no error. Return what was deleted."""
        deleted: list[bytes] = []
        for value in values:
            obj: Object = orjson.loads(value)
            metadata = obj["metadata"]
            one = Target(resource=target.resource, namespace=metadata.get("namespace") or "", name=metadata["name"], user=target.user)
            try:
                await self.delete(one, options)
            except NotFound:
                continue
            deleted.append(dump(obj))
        return deleted

    def _admit(
        self, operation: Any, target: Target, obj: Object | None, old: Object | None, is_dry_run: bool, plugins: Sequence[Admission]
    ) -> AdmissionRequest:
        metadata = (obj or old or {}).get("metadata") or {}
        request = AdmissionRequest(
            operation=operation,
            resource=target.resource,
            namespace=target.namespace,
            name=target.name or metadata.get("name") or "",
            subresource=target.subresource,
            user=target.user,
            obj=obj,
            old=old,
            is_dry_run=is_dry_run,
        )
        for plugin in plugins:
            plugin.admit(request)
        return request

    def admit_update(self, target: Target, new: Object, old: Object) -> None:
        """Run the server's own admission for a change, without awaiting: for changes committed together. Raises ApiError."""
        request = self._admit("UPDATE", target, new, old, False, self._admission)
        for plugin in self._validating:
            plugin.admit(request)

    async def _mutate(self, target: Target, request: AdmissionRequest) -> None:
        if self.extensions is not None and not target.is_internal:
            await self.extensions.mutate(request)
        for plugin in self._validating:
            plugin.admit(request)

    async def _validate(self, target: Target, request: AdmissionRequest, warnings: list[str]) -> None:
        await self._ask(target, request, warnings)
        if request.obj is not None and not request.is_dry_run:
            await self._before_storage(target.resource, request.obj)

    async def _ask(self, target: Target, request: AdmissionRequest, warnings: list[str]) -> None:
        if self.extensions is not None and not target.is_internal:
            await self.extensions.validate(request)
        warnings += request.warnings

    async def _before_storage(self, resource: Resource, obj: Object) -> None:
        if resource.present is not None and self.prepare_storage is not None:
            await self.prepare_storage(resource, obj)

    async def admit_creation(self, target: Target, obj: Object, warnings: list[str]) -> None:
        """Run admission for something that is posted but never stored as such (a review, a binding). Raises ApiError."""
        request = self._admit("CREATE", target, obj, None, False, self._admission)
        await self._mutate(target, request)
        await self._ask(target, request, warnings)

    async def admit_connection(self, target: Target, options: Object) -> None:
        """Run admission for a connection to a subresource (exec, attach, proxy); `options` are its parameters. Raises ApiError."""
        request = self._admit("CONNECT", target, options, None, False, self._admission)
        await self._mutate(target, request)
        await self._ask(target, request, [])

    def _claim(self, resource: Resource, step: str, obj: Object, old: Object | None = None) -> Claim | None:
        allocator = self._allocators.get((resource.group, resource.plural))
        if allocator is None:
            return None
        if step == "create":
            return allocator.claim_create(obj)
        if step == "update":
            return allocator.claim_update(obj, old or {})
        return allocator.claim_delete(obj)

    def _context(self, target: Target) -> Context:
        user = target.user
        return Context(now=self.runtime.clock.now(), user=user.name, uid=user.uid, groups=user.groups, extra=user.extra)

    def require_verb(self, target: Target, verb: str) -> None:
        """Raise MethodNotAllowed unless the kind (or its subresource) serves `verb`."""
        verbs: Sequence[str] = target.resource.verbs
        if target.subresource:
            verbs = next((one.verbs for one in target.resource.subresources if one.name == target.subresource), ())
        if verb not in verbs:
            raise MethodNotAllowed()


def _prepare_for(target: Target) -> Prepare:
    if target.subresource in target.resource.strategy.parts:
        return objects.prepare_part_update(target.subresource)
    return objects.prepare_status_update if target.subresource == "status" else objects.prepare_update


def _pending_code(options: RemovalOptions) -> int:
    """A deletion that was asked to wait for others is only accepted."""
    is_waiting = options.orphan_dependents is False or options.propagation_policy == "Foreground"
    return 202 if is_waiting else 200


async def _shown(resource: Resource, values: Sequence[bytes | None]) -> bytes:
    """Return what a commit stored in the form of the kind."""
    return await converted(lambda: to_kind(resource, _stored(values)))


def _cancel(claim: Claim | None) -> None:
    if claim is not None:
        claim.cancel()


def _ops(claim: Claim | None) -> list[Op]:
    return claim.ops() if claim is not None else []


def _stored(values: Sequence[bytes | None]) -> bytes:
    value = values[0]
    assert value is not None, "a put returns what it stored"
    return value
