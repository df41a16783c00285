"""From a verb on a target to whoever answers it: the pipeline, a subresource, or a function that answers a virtual kind.

HTTP and the in-process client both come through here, so both see the same kinds, verbs and refusals.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from korch.api.errors import ApiError, BadRequest, MethodNotAllowed, NoSuchPath, NotFound
from korch.apiserver import objects
from korch.apiserver.conversion import converted
from korch.apiserver.encoding import dump, list_body
from korch.apiserver.identity import User
from korch.apiserver.listing import ListPage, list_page
from korch.apiserver.options import ReadOptions, RemovalOptions, WriteOptions
from korch.apiserver.pipeline import Outcome, Pipeline, Target
from korch.apiserver.subresources import binding, eviction, finalize, scale
from korch.client.protocol import PodBinding
from korch.resources.resource import Resource

Object = dict[str, Any]

# Answers a posted object that is not stored (a review, a token request) with the object to send back.
Answerer = Callable[[Target, Object], Object | Awaitable[Object]]


class Dispatch:
    """The verbs of every kind and subresource. `answerers` maps (group, plural, subresource) to functions."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.answerers: dict[tuple[str, str, str], Answerer] = {}
        # Kinds that are made when they are asked for: (group, plural) -> all objects now.
        self.computed: dict[tuple[str, str], Callable[[], list[Object]]] = {}

    def target(
        self, user: User, *, group: str, version: str, plural: str, namespace: str = "", name: str = "", subresource: str = ""
    ) -> Target:
        """Return the target of a path. Raises NoSuchPath when it is not served."""
        resource = self.pipeline.catalogue.get(group, version, plural)
        if resource is None:
            raise NoSuchPath()
        if subresource and not any(one.name == subresource for one in resource.subresources):
            raise NoSuchPath()
        if not resource.namespaced:
            namespace = ""
        return Target(resource=resource, namespace=namespace, name=name, subresource=subresource, user=user)

    async def see(self, options: ReadOptions | None = None) -> None:
        """Return when a read with `options` finds what it may not miss: at once, where this server is the only one."""

    def get(self, target: Target) -> bytes:
        """Return one object, or one of its subresources. Raises NotFound, MethodNotAllowed."""
        self.pipeline.require_verb(target, "get")
        if (compute := self.computed.get((target.resource.group, target.resource.plural))) is not None:
            found = next((one for one in compute() if one["metadata"]["name"] == target.name), None)
            if found is None:
                raise NotFound(target.resource.group, target.resource.plural, target.name)
            return dump(found)
        if target.subresource == "scale":
            return scale.get(self.pipeline, target)
        if target.subresource in ("", "status") or self._shows_parent(target):
            return self.pipeline.get(target)
        raise MethodNotAllowed()

    def list(self, target: Target, options: ReadOptions) -> ListPage:
        """Return a page of the collection. Raises BadRequest, Invalid, Expired, MethodNotAllowed."""
        self.pipeline.require_verb(target, "list")
        if (compute := self.computed.get((target.resource.group, target.resource.plural))) is not None:
            return ListPage([dump(one) for one in compute()], self.pipeline.records.storage.revision())
        return list_page(self.pipeline.records.storage, target, options)

    async def create(self, target: Target, body: bytes, options: WriteOptions) -> Outcome:
        """Create an object, or post to a subresource."""
        self.pipeline.require_verb(target, "create")
        resource = target.resource
        if resource.namespaced and not target.namespace and not resource.is_virtual:
            raise BadRequest("the server does not allow this method on the requested resource")
        is_pod = resource.plural == "pods" and resource.group == ""
        if (is_pod and target.subresource == "binding") or (resource.plural == "bindings" and resource.group == ""):
            return await binding.create(self.pipeline, target, body, options)
        if is_pod and target.subresource == "eviction":
            return await eviction.create(self.pipeline, target, body, options)
        if resource.is_virtual or target.subresource:
            return await self._answer(target, body, options)
        return await self.pipeline.create(target, body, options)

    async def bind_pods(self, user: User, bindings: Sequence[PodBinding], options: WriteOptions) -> list[ApiError | None]:
        """Post the Bindings of many pods; return what each would have raised."""
        return await binding.create_many(self.pipeline, user, bindings, options)

    async def update(self, target: Target, body: bytes, options: WriteOptions) -> Outcome:
        """Replace an object, or a part of it through a subresource."""
        self.pipeline.require_verb(target, "update")
        if target.subresource == "scale":
            return await scale.update(self.pipeline, target, body, options)
        if target.subresource == "finalize":
            return await self._finalize(target, body, options)
        if target.subresource in ("", "status", *target.resource.strategy.parts):
            return await self.pipeline.update(target, body, options)
        raise MethodNotAllowed()

    async def patch(self, target: Target, patch: bytes, patch_type: str, options: WriteOptions) -> Outcome:
        """Patch an object, or a part of it through a subresource."""
        self.pipeline.require_verb(target, "patch")
        if target.subresource == "scale":
            return await scale.patch(self.pipeline, target, patch, patch_type, options)
        if target.subresource in ("", "status", *target.resource.strategy.parts):
            if patch_type == "apply":
                return await self.pipeline.apply(target, patch, options)
            return await self.pipeline.patch(target, patch, patch_type, options)
        raise MethodNotAllowed()

    async def delete(self, target: Target, options: RemovalOptions) -> Outcome:
        """Delete one object, or begin to."""
        self.pipeline.require_verb(target, "delete")
        if target.subresource:
            raise MethodNotAllowed()
        return await self.pipeline.delete(target, options)

    async def delete_collection(self, target: Target, options: ReadOptions, removal: RemovalOptions) -> Outcome:
        """Delete all that match; answer the list of what was deleted."""
        self.pipeline.require_verb(target, "deletecollection")
        resource = target.resource
        page = await converted(lambda: list_page(self.pipeline.records.storage, target, options))
        deleted = await self.pipeline.delete_each(target, page.items, removal)
        return Outcome(list_body(resource.list_name, resource.api_version, deleted, resource_version=str(page.revision)))

    async def _finalize(self, target: Target, body: bytes, options: WriteOptions) -> Outcome:
        resource = target.resource
        warnings: list[str] = []
        self.pipeline.codec.decode(resource, body, options.field_validation, warnings)

        def change(_old: Object, _old_bytes: bytes) -> Object:
            new = self.pipeline.codec.decode(resource, body, "Ignore", [])
            objects.check_address(resource, new, "", target.name)
            return new

        stored = await self.pipeline.modify(target, change, options, prepare=finalize.prepare)
        return Outcome(stored, 200, warnings)

    async def _answer(self, target: Target, body: bytes, options: WriteOptions) -> Outcome:
        resource = target.resource
        answerer = self.answerers.get((resource.group, resource.plural, target.subresource))
        if answerer is None:
            raise MethodNotAllowed()
        warnings: list[str] = []
        schema, kind, api_version = _body_kind(resource, target.subresource)
        obj = self.pipeline.codec.decode_as(schema, kind, api_version, body, options.field_validation, warnings)
        if resource.is_virtual:
            objects.check_address(resource, obj, target.namespace, "")
        await self.pipeline.admit_creation(target, obj, warnings)
        answer = answerer(target, obj)
        return Outcome(dump(answer if isinstance(answer, dict) else await answer), 201, warnings)

    def _shows_parent(self, target: Target) -> bool:
        """Whether the subresource is a view of the whole object, as ephemeralcontainers is."""
        declared = next((one for one in target.resource.subresources if one.name == target.subresource), None)
        return declared is not None and not declared.kind and "update" in declared.verbs


def _body_kind(resource: Resource, subresource: str) -> tuple[str, str, str]:
    """Return the definition, kind and apiVersion of what is posted to a kind or subresource."""
    if not subresource:
        return resource.schema, resource.kind, resource.api_version
    declared = next(one for one in resource.subresources if one.name == subresource)
    group, version = declared.group, declared.version or resource.version
    package = group.removesuffix(".k8s.io").split(".")[0] or "core"
    api_version = f"{group}/{version}" if group else version
    return f"io.k8s.api.{package}.{version}.{declared.kind}", declared.kind, api_version
