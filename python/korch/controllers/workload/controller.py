"""The shape of a controller that owns pods: finding its pods, making and deleting them with events, writing its status.

Objects are plain dicts decoded once for all controllers (they share informers), and are read-only: what is written is a new dict.
Mirrors upstream pkg/controller/controller_utils.go (RealPodControl) in what it writes and says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import orjson

from korch.api import selectors
from korch.api.errors import ApiError, NotFound
from korch.api.gvk import PODS, ResourceRef
from korch.api.meta import at, controller_of, is_deleting, key_of, labels_of, name_of, namespace_of, owner_reference, uid_of
from korch.client.controller import Controller, Watch
from korch.client.informer import Informers
from korch.client.protocol import Client, DeleteOptions
from korch.controllers.workload.ownership import OWNER_INDEXES, candidates, claim
from korch.controllers.workload.pacing import Pacer
from korch.controllers.workload.pod_template import pod_from_template
from korch.controllers.workload.pods import decode_pod
from korch.runtime.context import Runtime

Object = dict[str, Any]

decode_object = orjson.loads


def same_key(obj: Object) -> tuple[str]:
    """Map an object to its own key."""
    return (key_of(obj),)


def watch_own(resource: ResourceRef) -> Watch:
    """Follow the kind that a controller reconciles."""
    return Watch(resource, keys=same_key, decode=decode_object, indexes=OWNER_INDEXES)


def watch_dependents(resource: ResourceRef, *, keys: str | None = "dependent_keys") -> Watch:
    """Follow a kind whose objects are owned by what a WorkloadController reconciles."""
    return Watch(resource, keys=keys, decode=decode_pod if resource == PODS else decode_object, indexes=OWNER_INDEXES)


def is_namespace_ending(error: ApiError) -> bool:
    """Whether a create was refused because its namespace is being deleted: nothing to report, nothing to retry."""
    return any(cause.get("reason") == "NamespaceTerminating" for cause in error.details.get("causes") or ())


class WorkloadController(Controller):
    """Base of the controllers that own pods. `resource` is the kind they reconcile and must be their first watch."""

    resource: ClassVar[ResourceRef]

    def __init__(self, client: Client, informers: Informers, runtime: Runtime) -> None:
        self.pacer = Pacer()
        super().__init__(client, informers, runtime)

    def dependent_keys(self, obj: Object) -> Iterable[str]:
        """Map a pod (or other dependent) to its owner's key; one that nobody controls to every owner that selects it."""
        controller = controller_of(obj)
        if controller is not None:
            if controller.get("kind") != self.resource.kind or controller.get("apiVersion") != self.resource.api_version:
                return ()
            return (f"{namespace_of(obj)}/{controller.get('name')}",)
        if is_deleting(obj):
            return ()
        labels = labels_of(obj)
        owners = self.informer(self.resource).list(namespace_of(obj))
        return [key_of(owner) for owner in owners if selectors.matches(self.selector_of(owner), labels)]

    def selector_of(self, owner: Object) -> selectors.Requirements:
        """Return which labels the owner's pods have."""
        return selectors.from_label_selector(at(owner, "spec", "selector"))

    def now(self) -> float:
        """Return seconds since the epoch."""
        return self.runtime.clock.now()

    async def claimed(self, key: str, owner: Object, kind: ResourceRef, found: Sequence[Object] | None = None) -> list[Object]:
        """Return the objects of `kind` that belong to `owner`, adopting and releasing on the way; `found` narrows the candidates."""
        requirements = self.selector_of(owner)
        return await claim(
            self.client,
            owner,
            self.resource,
            candidates(self.informer(kind), owner) if found is None else found,
            kind,
            matches=lambda labels: selectors.matches(requirements, labels),
            wrote=lambda resource, stored: self.wrote(key, resource, stored),
        )

    def reference_to(self, owner: Object) -> Object:
        """Return the controller reference that dependents of `owner` carry."""
        return owner_reference(owner, self.resource.kind, self.resource.api_version)

    async def create_pod(self, key: str, owner: Object, template: Object) -> None:
        """Make a pod from `template`. A refusal becomes an event and is raised."""
        await self.create_prepared(key, owner, pod_from_template(template, owner, self.reference_to(owner)))

    async def create_prepared(self, key: str, owner: Object, pod: Object) -> Object:
        """Create `pod` as it is and return it. A refusal becomes an event and is raised."""
        try:
            stored = await self.client.create(PODS, pod, namespace=namespace_of(owner))
        except ApiError as error:
            if not is_namespace_ending(error):
                self.recorder.event(owner, "Warning", "FailedCreate", f"Error creating: {error.message}")
            raise
        self.wrote(key, PODS, stored)
        created = decode_object(stored)
        self.recorder.event(owner, "Normal", "SuccessfulCreate", f"Created pod: {name_of(created)}")
        return created

    async def delete_pod(self, key: str, owner: Object, pod: Object) -> None:
        """Delete exactly this pod. One that is gone already is no error; any other refusal becomes an event and is raised."""
        try:
            answer = await self.client.delete(PODS, name_of(pod), namespace=namespace_of(pod), options=DeleteOptions(uid=uid_of(pod)))
        except NotFound:
            return
        except ApiError as error:
            self.recorder.event(owner, "Warning", "FailedDelete", f"Error deleting: {error.message}")
            raise
        if decode_object(answer).get("kind") == "Pod":
            self.wrote(key, PODS, answer)
        self.recorder.event(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {name_of(pod)}")

    async def put_status(self, key: str, owner: Object, status: Object) -> Object:
        """Write `status` unless the object says so already; return the object as it is then. Raises Conflict when it changed meanwhile."""
        if status == (owner.get("status") or {}):
            return owner
        body = {**owner, "status": status}
        stored = await self.client.update(self.resource, body, name=name_of(owner), namespace=namespace_of(owner), subresource="status")
        self.wrote(key, self.resource, stored)
        return decode_object(stored)
