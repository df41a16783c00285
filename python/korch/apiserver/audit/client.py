"""The audit of what runs inside the server's process: a `Client` around another that tells of each call as of a request.

Controllers and scheduler do not pass through HTTP, but what they change is told of under their own names, as it would be if they ran
elsewhere. Reads and watches of theirs are told of too, where the policy says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, TypeVar

import orjson

from korch.api.errors import ApiError
from korch.api.gvk import ResourceRef
from korch.apiserver.audit.auditor import Auditor
from korch.apiserver.audit.record import Record
from korch.apiserver.encoding import dump
from korch.apiserver.identity import ALLOWED, User
from korch.apiserver.request_info import RequestInfo
from korch.client.protocol import Body, Client, DeleteOptions, ListOptions, ObjectList, PatchType, WatchEvent
from korch.runtime.rng import Rng

T = TypeVar("T")


class AuditedClient:
    """A `korch.client.protocol.Client` for one user whose calls are told of."""

    def __init__(self, inner: Client, user: User, auditor: Auditor, rng: Rng) -> None:
        self._inner = inner
        self._user = user
        self._auditor = auditor
        self._rng = rng

    async def get(self, resource: ResourceRef, name: str, *, namespace: str = "", subresource: str = "") -> bytes:
        """Return the object."""
        record = self._begin("get", resource, namespace, name, subresource)
        return await _told(record, self._inner.get(resource, name, namespace=namespace, subresource=subresource))

    async def list(self, resource: ResourceRef, options: ListOptions = ListOptions()) -> ObjectList:
        """Return one page."""
        return await _told(self._begin("list", resource, options.namespace), self._inner.list(resource, options))

    async def create(self, resource: ResourceRef, body: Body, *, namespace: str = "", name: str = "", subresource: str = "") -> bytes:
        """Return the stored object."""
        record = self._begin("create", resource, namespace, name, subresource, body)
        return await _told(record, self._inner.create(resource, body, namespace=namespace, name=name, subresource=subresource), 201)

    async def update(self, resource: ResourceRef, body: Body, *, name: str, namespace: str = "", subresource: str = "") -> bytes:
        """Replace and return the object."""
        record = self._begin("update", resource, namespace, name, subresource, body)
        return await _told(record, self._inner.update(resource, body, name=name, namespace=namespace, subresource=subresource))

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
        record = self._begin("patch", resource, namespace, name, subresource, patch)
        options: dict[str, Any] = {"patch_type": patch_type, "field_manager": field_manager, "force": force}
        return await _told(record, self._inner.patch(resource, name, patch, namespace=namespace, subresource=subresource, **options))

    async def delete(self, resource: ResourceRef, name: str, *, namespace: str = "", options: DeleteOptions = DeleteOptions()) -> bytes:
        """Return the object as it was, or the Status."""
        record = self._begin("delete", resource, namespace, name)
        return await _told(record, self._inner.delete(resource, name, namespace=namespace, options=options))

    async def delete_collection(
        self, resource: ResourceRef, options: ListOptions = ListOptions(), delete: DeleteOptions = DeleteOptions()
    ) -> None:
        """Delete all that match."""
        await _told(self._begin("deletecollection", resource, options.namespace), self._inner.delete_collection(resource, options, delete))

    async def watch(
        self, resource: ResourceRef, options: ListOptions = ListOptions(), *, send_initial_events: bool = False, timeout_s: float = 0
    ) -> AsyncIterator[WatchEvent]:
        """Yield changes, bookmarks among them."""
        record = self._begin("watch", resource, options.namespace)
        if record is not None:
            record.started(200)
        try:
            async for event in self._inner.watch(resource, options, send_initial_events=send_initial_events, timeout_s=timeout_s):
                yield event
        finally:
            if record is not None:
                record.complete(200)

    async def raw(self, method: str, path: str, *, body: bytes = b"", content_type: str = "application/json") -> bytes:
        """Return the body of any request. It passes through the request chain, which tells of it."""
        return await self._inner.raw(method, path, body=body, content_type=content_type)

    def _begin(
        self,
        verb: str,
        resource: ResourceRef,
        namespace: str,
        name: str = "",
        subresource: str = "",
        body: Body | Sequence[Any] | None = None,
    ) -> Record | None:
        prefix = f"/apis/{resource.group}" if resource.group else "/api"
        within = f"/namespaces/{namespace}" if namespace and resource.namespaced else ""
        tail = "".join(f"/{one}" for one in (name, subresource) if one)
        info = RequestInfo(
            verb=verb,
            path=f"{prefix}/{resource.version}{within}/{resource.plural}{tail}",
            is_resource=True,
            api_prefix=prefix[1:].partition("/")[0],
            group=resource.group,
            version=resource.version,
            namespace=namespace if resource.namespaced else "",
            resource=resource.plural,
            subresource=subresource,
            name=name,
        )
        record = self._auditor.begin_within(info, self._user, audit_id=self._rng.uid())
        if record is None:
            return None
        record.authorized(ALLOWED)
        record.received()
        if body is not None:
            record.request_body(body if isinstance(body, bytes) else orjson.dumps(body))
        return record


async def _told(record: Record | None, call: Awaitable[T], code: int = 200) -> T:
    if record is None:
        return await call
    record.enter()
    try:
        answer = await call
    except ApiError as error:
        record.response_body(dump(error.status()))
        record.complete(error.code)
        raise
    finally:
        record.leave()
    if isinstance(answer, bytes):
        record.response_body(answer)
    record.complete(code)
    return answer
