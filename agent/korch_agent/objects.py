"""The ConfigMaps and Secrets (and only those) that pods of this node use, each followed by a watch of its own.

A node may read just the objects its pods name, so there is no watch over all of them. An object is watched from the first pod that
uses it until the last one is gone; a change wakes the pods that use it. Mirrors kubelet's watch-based object manager.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from korch.api.errors import NotFound
from korch.api.gvk import ResourceRef
from korch.client.informer import Informer
from korch.client.protocol import Client
from korch.runtime import tasks
from korch.runtime.context import Runtime

Key = tuple[ResourceRef, str, str]


class _Followed:
    """One object: its informer, the task that runs it, and the uids of the pods that use it."""

    def __init__(self, informer: Informer[dict[str, Any]], task: asyncio.Task[None]) -> None:
        self.informer = informer
        self.task = task
        self.users: set[str] = set()


class Objects:
    """Looks up and follows single objects. `changed(uid)` is called for each pod that uses an object that changed."""

    def __init__(self, client: Client, runtime: Runtime, *, changed: Callable[[str], None]) -> None:
        self._client = client
        self._runtime = runtime
        self._changed = changed
        self._followed: dict[Key, _Followed] = {}

    async def get(self, resource: ResourceRef, namespace: str, name: str) -> dict[str, Any] | None:
        """Return the object, from the watch when it is followed; None when it does not exist. Raises ApiError, ConnectionError."""
        followed = self._followed.get((resource, namespace, name))
        if followed is not None and followed.informer.has_synced and (found := followed.informer.get(namespace, name)) is not None:
            return found
        try:
            return orjson.loads(await self._client.get(resource, name, namespace=namespace))
        except NotFound:
            return None

    def follow(self, uid: str, namespace: str, wanted: Iterable[tuple[ResourceRef, str]]) -> None:
        """Make the pod `uid` a user of exactly these objects of its namespace."""
        keys = {(resource, namespace, name) for resource, name in wanted}
        for key in keys:
            followed = self._followed.get(key)
            if followed is None:
                followed = self._followed[key] = self._start(key)
            followed.users.add(uid)
        for key in [key for key, followed in self._followed.items() if uid in followed.users and key not in keys]:
            self._followed[key].users.discard(uid)
            if not self._followed[key].users:
                self._followed.pop(key).task.cancel()

    def forget(self, uid: str) -> None:
        """Take away the pod `uid`; objects that nobody else uses are not followed any more."""
        self.follow(uid, "", ())

    async def close(self) -> None:
        """End all watches."""
        ending = [followed.task for followed in self._followed.values()]
        self._followed.clear()
        for task in ending:
            task.cancel()
        for task in ending:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _start(self, key: Key) -> _Followed:
        resource, namespace, name = key
        informer: Informer[dict[str, Any]] = Informer(
            self._client,
            resource,
            runtime=self._runtime,
            namespace=namespace,
            field_selector=f"metadata.name={name}",
            decode=orjson.loads,
        )

        def wake(*_: object) -> None:
            followed = self._followed.get(key)
            for uid in list(followed.users) if followed is not None else ():
                self._changed(uid)

        informer.on(add=wake, update=wake, delete=wake)
        return _Followed(informer, tasks.spawn(informer.run(), name=f"follow/{resource.plural}/{namespace}/{name}"))
