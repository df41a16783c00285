"""How a component sees a cluster: one protocol, the same in one process, over HTTP and in the simulator.

Objects travel as JSON bytes. A component decodes what it needs (a msgspec projection or a dict) and sends dicts or bytes.
Outcomes are raised as `korch.api.errors.ApiError`; faults of the network as `ConnectionError` or `TimeoutError`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from korch.api.errors import ApiError
from korch.api.gvk import ResourceRef

Body = dict[str, Any] | bytes
PatchType = Literal["json", "merge", "strategic", "apply"]
EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]


@dataclass(frozen=True, slots=True)
class ObjectList:
    """One page of a LIST: raw objects (each with apiVersion and kind), the list's resourceVersion, and the continue token."""

    items: list[bytes]
    resource_version: str
    continue_token: str = ""
    remaining: int | None = None


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change. `object` is the whole object as JSON; for BOOKMARK only metadata is filled."""

    type: EventType
    object: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteOptions:
    """Of a DELETE; None means that the server decides."""

    grace_period_s: int | None = None
    propagation_policy: Literal["Background", "Foreground", "Orphan"] | None = None
    uid: str = ""
    resource_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOptions:
    """Of a LIST, a WATCH or a DELETECOLLECTION. `namespace=""` means all namespaces."""

    namespace: str = ""
    label_selector: str = ""
    field_selector: str = ""
    resource_version: str = ""
    resource_version_match: str = ""
    limit: int = 0
    continue_token: str = ""


@dataclass(frozen=True, slots=True)
class PodBinding:
    """The scheduler's word that a pod, as long as it is the one with this uid, runs on a node."""

    namespace: str
    name: str
    uid: str
    node: str


@runtime_checkable
class Binder(Protocol):
    """What a client offers besides the verbs when it is in the server's process."""

    async def bind_pods(self, bindings: Sequence[PodBinding]) -> Sequence[ApiError | None]:
        """Bind pods, at best in one commit; return for each what creating its Binding would have raised, or None."""
        ...


class Client(Protocol):
    """The verbs of the Kubernetes API. Every method awaits the server's answer."""

    async def get(self, resource: ResourceRef, name: str, *, namespace: str = "", subresource: str = "") -> bytes:
        """Return the object. Raises NotFound."""
        ...

    async def list(self, resource: ResourceRef, options: ListOptions = ListOptions()) -> ObjectList:
        """Return one page; with `limit=0` everything. Raises Expired when a continue token is too old."""
        ...

    async def create(self, resource: ResourceRef, body: Body, *, namespace: str = "", name: str = "", subresource: str = "") -> bytes:
        """Return the stored object (or the subresource's answer, as for `pods/binding`). Raises AlreadyExists, Invalid, Forbidden."""
        ...

    async def update(self, resource: ResourceRef, body: Body, *, name: str, namespace: str = "", subresource: str = "") -> bytes:
        """Replace and return the object. Raises NotFound, Conflict, Invalid."""
        ...

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
        """Return the patched object. Raises NotFound, Conflict, Invalid."""
        ...

    async def delete(self, resource: ResourceRef, name: str, *, namespace: str = "", options: DeleteOptions = DeleteOptions()) -> bytes:
        """Return the object as it was, or the Status. Raises NotFound, Conflict (preconditions)."""
        ...

    async def delete_collection(
        self, resource: ResourceRef, options: ListOptions = ListOptions(), delete: DeleteOptions = DeleteOptions()
    ) -> None:
        """Delete all that match."""
        ...

    def watch(
        self, resource: ResourceRef, options: ListOptions = ListOptions(), *, send_initial_events: bool = False, timeout_s: float = 0
    ) -> AsyncIterator[WatchEvent]:
        """Yield changes after `options.resource_version`, bookmarks among them; ends when the server or `timeout_s` ends it.

        With `send_initial_events` the present objects come first as ADDED, then a BOOKMARK whose object carries the annotation
        `k8s.io/initial-events-end: "true"`. Raises Expired when the version lies below the compaction floor.
        """
        ...

    async def raw(self, method: str, path: str, *, body: bytes = b"", content_type: str = "application/json") -> bytes:
        """Return the body of any request, such as `/version` or `/healthz`. Raises ApiError for codes of 400 and above."""
        ...
