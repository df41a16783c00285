"""The cluster as seen from inside the server's process: the Client protocol on the pipeline itself, without HTTP.

For controllers, the scheduler and the simulator. Admission and validation hold as they do for everybody else; authorization does
not apply, since whoever holds this object is part of the server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import orjson

from korch.api.errors import ApiError, UnsupportedMediaType
from korch.api.gvk import ResourceRef
from korch.apiserver.body import PATCH_TYPES
from korch.apiserver.conversion import converted
from korch.apiserver.dispatch import Dispatch
from korch.apiserver.field_managers import manager_of_user
from korch.apiserver.identity import User
from korch.apiserver.options import ReadOptions, RemovalOptions, WriteOptions
from korch.apiserver.pipeline import Target
from korch.apiserver.watching import WatchStream
from korch.client.protocol import Body, DeleteOptions, EventType, ListOptions, ObjectList, PatchType, PodBinding, WatchEvent
from korch.runtime.rng import Rng

# Performs a whole HTTP request against the server's application: (method, path, body, content type) -> body. Raises ApiError.
RawRequest = Callable[[str, str, bytes, str], Awaitable[bytes]]


class LocalClient:
    """A `korch.client.protocol.Client` for one user."""

    def __init__(self, dispatch: Dispatch, user: User, rng: Rng, raw: RawRequest) -> None:
        self._dispatch = dispatch
        self._user = user
        self._rng = rng
        self._raw = raw
        self._write = WriteOptions(field_validation="Ignore", manager=manager_of_user(user.name))

    async def get(self, resource: ResourceRef, name: str, *, namespace: str = "", subresource: str = "") -> bytes:
        """Return the object."""
        target = self._target(resource, namespace, name, subresource)
        await self._dispatch.see()
        return await converted(lambda: self._dispatch.get(target))

    async def list(self, resource: ResourceRef, options: ListOptions = ListOptions()) -> ObjectList:
        """Return one page."""
        target, read = self._target(resource, options.namespace), _read_options(options)
        await self._dispatch.see(read)
        page = await converted(lambda: self._dispatch.list(target, read))
        return ObjectList(page.items, str(page.revision), page.continue_token, page.remaining)

    async def create(self, resource: ResourceRef, body: Body, *, namespace: str = "", name: str = "", subresource: str = "") -> bytes:
        """Return the stored object."""
        target = self._target(resource, namespace, name, subresource)
        return (await self._dispatch.create(target, _encoded(body), self._write)).body

    async def bind_pods(self, bindings: Sequence[PodBinding]) -> list[ApiError | None]:
        """Bind pods, at best in one commit; return what went wrong with each."""
        return await self._dispatch.bind_pods(self._user, bindings, self._write)

    async def update(self, resource: ResourceRef, body: Body, *, name: str, namespace: str = "", subresource: str = "") -> bytes:
        """Replace and return the object."""
        target = self._target(resource, namespace, name, subresource)
        return (await self._dispatch.update(target, _encoded(body), self._write)).body

    async def patch(
        self,
        resource: ResourceRef,
        name: str,
        patch: dict[str, Any] | Sequence[Any] | bytes,
        *,
        namespace: str = "",
        subresource: str = "",
        patch_type: PatchType = "merge",
        field_manager: str = "",
        force: bool = False,
    ) -> bytes:
        """Return the patched object."""
        if patch_type not in PATCH_TYPES.values():
            raise UnsupportedMediaType(f"the server does not support {patch_type} patches")
        body = patch if isinstance(patch, bytes) else orjson.dumps(patch)
        target = self._target(resource, namespace, name, subresource)
        options = replace(self._write, manager=field_manager or self._write.manager, force=force)
        return (await self._dispatch.patch(target, body, patch_type, options)).body

    async def delete(self, resource: ResourceRef, name: str, *, namespace: str = "", options: DeleteOptions = DeleteOptions()) -> bytes:
        """Return the object as it was, or the Status."""
        target = self._target(resource, namespace, name)
        return (await self._dispatch.delete(target, _removal_options(options))).body

    async def delete_collection(
        self, resource: ResourceRef, options: ListOptions = ListOptions(), delete: DeleteOptions = DeleteOptions()
    ) -> None:
        """Delete all that match."""
        target = self._target(resource, options.namespace)
        await self._dispatch.delete_collection(target, _read_options(options), _removal_options(delete))

    async def watch(
        self, resource: ResourceRef, options: ListOptions = ListOptions(), *, send_initial_events: bool = False, timeout_s: float = 0
    ) -> AsyncIterator[WatchEvent]:
        """Yield changes, bookmarks among them."""
        target = self._target(resource, options.namespace)
        read = ReadOptions(
            label_selector=options.label_selector,
            field_selector=options.field_selector,
            resource_version=options.resource_version,
            resource_version_match="NotOlderThan" if send_initial_events else "",
            timeout_s=timeout_s,
            allows_bookmarks=True,
            sends_initial_events=send_initial_events,
        )
        self._dispatch.pipeline.require_verb(target, "watch")
        await self._dispatch.see(read)
        async for event_type, body in WatchStream(self._dispatch.pipeline.records.storage, target, read, rng=self._rng).events():
            yield WatchEvent(cast(EventType, event_type), body)

    async def raw(self, method: str, path: str, *, body: bytes = b"", content_type: str = "application/json") -> bytes:
        """Return the body of any request."""
        return await self._raw(method, path, body, content_type)

    def _target(self, resource: ResourceRef, namespace: str, name: str = "", subresource: str = "") -> Target:
        return self._dispatch.target(
            self._user,
            group=resource.group,
            version=resource.version,
            plural=resource.plural,
            namespace=namespace,
            name=name,
            subresource=subresource,
        )


def _encoded(body: Body) -> bytes:
    return body if isinstance(body, bytes) else orjson.dumps(body)


def _read_options(options: ListOptions) -> ReadOptions:
    return ReadOptions(
        label_selector=options.label_selector,
        field_selector=options.field_selector,
        resource_version=options.resource_version,
        resource_version_match=options.resource_version_match,
        limit=options.limit,
        continue_token=options.continue_token,
    )


def _removal_options(options: DeleteOptions) -> RemovalOptions:
    return RemovalOptions(
        grace_period_s=options.grace_period_s,
        propagation_policy=options.propagation_policy,
        uid=options.uid,
        resource_version=options.resource_version,
    )
