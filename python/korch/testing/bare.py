"""The smallest thing that behaves like an API server: a dictionary with revisions and watches, for unit tests of clients.

It knows names, uids, resourceVersions, conflicts, generateName, merge and JSON patches, graceful deletion of pods, finalizers, selectors,
watch with bookmarks and compaction. It does not validate, default or admit; what needs those runs against the real pipeline
(`korch.testing.cluster`). The contract suite holds it to the other clients.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from korch.api.errors import AlreadyExists, ApiError, Conflict, Expired, MethodNotAllowed, NoSuchPath, NotFound
from korch.api.gvk import ResourceRef
from korch.api.patch import UnprocessablePatch, json_patch
from korch.client.protocol import Body, DeleteOptions, EventType, ListOptions, ObjectList, PatchType, WatchEvent
from korch.runtime.clock import rfc3339
from korch.runtime.context import Runtime

Object = dict[str, Any]
POD_GRACE_S = 30


@dataclass(frozen=True, slots=True)
class _Change:
    revision: int
    resource: ResourceRef
    type: EventType
    old: bytes | None
    new: bytes


class BareClient:
    """A Client that is its own server. `fault`, when set, is called with (verb, resource) before every call and may raise."""

    def __init__(self, runtime: Runtime) -> None:
        self.revision = 1
        self.calls: list[tuple[str, str, str]] = []
        self.fault: Callable[[str, ResourceRef], None] | None = None
        self._runtime = runtime
        self._objects: dict[tuple[ResourceRef, str, str], bytes] = {}
        self._log: list[_Change] = []
        self._floor = 0
        self._news = asyncio.Event()
        self._epoch = 0

    def compact(self) -> None:
        """Forget all history: every watch from an older revision is answered with 410 Expired."""
        self._floor = self.revision
        self._log.clear()

    def cut_watches(self) -> None:
        """Break every watch connection that is open now."""
        self._epoch += 1
        self._wake()

    async def get(self, resource: ResourceRef, name: str, *, namespace: str = "", subresource: str = "") -> bytes:
        self._call("get", resource, name)
        return self._read(resource, namespace, name)

    async def list(self, resource: ResourceRef, options: ListOptions = ListOptions()) -> ObjectList:
        self._call("list", resource, "")
        found = [raw for raw in self._in(resource, options.namespace) if _matches(raw, options)]
        start = int(options.continue_token or 0)
        end = start + options.limit if options.limit else len(found)
        token = str(end) if end < len(found) else ""
        return ObjectList(found[start:end], str(self.revision), token, max(0, len(found) - end) or None)

    async def create(self, resource: ResourceRef, body: Body, *, namespace: str = "", name: str = "", subresource: str = "") -> bytes:
        self._call("create", resource, name)
        obj = _decode(body)
        if subresource == "binding":
            return self._bind(resource, obj, namespace, name)
        if subresource:
            raise NoSuchPath
        meta = obj.setdefault("metadata", {})
        if not meta.get("name"):
            meta["name"] = meta.get("generateName", "") + self._runtime.rng.name_suffix()
        namespace = (namespace or meta.get("namespace", "")) if resource.namespaced else ""
        if (resource, namespace, meta["name"]) in self._objects:
            raise AlreadyExists(resource.group, resource.plural, meta["name"])
        if namespace:
            meta["namespace"] = namespace
        meta |= {"uid": self._runtime.rng.uid(), "creationTimestamp": rfc3339(self._runtime.clock.now()), "generation": 1}
        return self._write(resource, obj, "ADDED")

    async def update(self, resource: ResourceRef, body: Body, *, name: str, namespace: str = "", subresource: str = "") -> bytes:
        self._call("update", resource, name)
        new = _decode(body)
        old = orjson.loads(self._read(resource, namespace, name))
        asked = new.get("metadata", {}).get("resourceVersion")
        if asked and asked != old["metadata"]["resourceVersion"]:
            raise Conflict(resource.group, resource.plural, name)
        return self._change(resource, old, new, subresource)

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
        self._call("patch", resource, name)
        change = orjson.loads(patch) if isinstance(patch, bytes) else patch
        if patch_type == "json":
            return self._json_patch(resource, self._read(resource, namespace, name), orjson.dumps(change), subresource)
        if not isinstance(change, dict):
            raise MethodNotAllowed
        raw = self._read(resource, namespace, name)
        asked = (change.get("metadata") or {}).get("resourceVersion")
        if asked and asked != orjson.loads(raw)["metadata"]["resourceVersion"]:
            raise Conflict(resource.group, resource.plural, name)
        return self._change(resource, orjson.loads(raw), _merge(orjson.loads(raw), change), subresource)

    async def delete(self, resource: ResourceRef, name: str, *, namespace: str = "", options: DeleteOptions = DeleteOptions()) -> bytes:
        self._call("delete", resource, name)
        obj = orjson.loads(self._read(resource, namespace, name))
        meta = obj["metadata"]
        if options.uid and options.uid != meta["uid"]:
            raise Conflict(resource.group, resource.plural, name)
        grace_s = options.grace_period_s
        if resource.plural == "pods" and grace_s is None:
            grace_s = obj.get("spec", {}).get("terminationGracePeriodSeconds", POD_GRACE_S)
        waits = resource.plural == "pods" and bool(grace_s) and bool(obj.get("spec", {}).get("nodeName"))
        if waits or meta.get("finalizers"):
            if "deletionTimestamp" in meta:
                return orjson.dumps(obj)
            seconds = grace_s or 0
            meta |= {"deletionTimestamp": rfc3339(self._runtime.clock.now() + seconds), "deletionGracePeriodSeconds": seconds}
            return self._write(resource, obj, "MODIFIED")
        return self._remove(resource, obj)

    async def delete_collection(
        self, resource: ResourceRef, options: ListOptions = ListOptions(), delete: DeleteOptions = DeleteOptions()
    ) -> None:
        for raw in (await self.list(resource, options)).items:
            meta = orjson.loads(raw)["metadata"]
            await self.delete(resource, meta["name"], namespace=meta.get("namespace", ""), options=delete)

    async def watch(
        self, resource: ResourceRef, options: ListOptions = ListOptions(), *, send_initial_events: bool = False, timeout_s: float = 0
    ) -> AsyncIterator[WatchEvent]:
        self._call("watch", resource, "")
        epoch = self._epoch
        seen = self.revision if send_initial_events else int(options.resource_version or self.revision)
        if seen < self._floor:
            raise Expired(f"too old resource version: {seen} ({self._floor})")
        if send_initial_events:
            for raw in [one for one in self._in(resource, options.namespace) if _matches(one, options)]:
                yield WatchEvent("ADDED", raw)
            yield WatchEvent("BOOKMARK", _bookmark(resource, seen, {"k8s.io/initial-events-end": "true"}))
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s if timeout_s else None
        while True:
            # Taken before looking at the log: what is written while the reader holds an event must wake us below.
            news = self._news
            for change in [one for one in self._log if one.revision > seen]:
                seen = change.revision
                if event := _as_seen(change, resource, options):
                    yield event
            if seen < self._floor:
                raise Expired(f"too old resource version: {seen} ({self._floor})")
            try:
                async with asyncio.timeout_at(end):
                    await news.wait()
            except TimeoutError:
                yield WatchEvent("BOOKMARK", _bookmark(resource, self.revision, {}))
                return
            if epoch != self._epoch:
                raise ConnectionError("the watch was cut")

    async def raw(self, method: str, path: str, *, body: bytes = b"", content_type: str = "application/json") -> bytes:
        if path in ("/healthz", "/livez", "/readyz"):
            return b"ok"
        raise NoSuchPath

    def _call(self, verb: str, resource: ResourceRef, name: str) -> None:
        self.calls.append((verb, resource.plural, name))
        if self.fault is not None:
            self.fault(verb, resource)

    def _read(self, resource: ResourceRef, namespace: str, name: str) -> bytes:
        found = self._objects.get((resource, namespace if resource.namespaced else "", name))
        if found is None:
            raise NotFound(resource.group, resource.plural, name)
        return found

    def _in(self, resource: ResourceRef, namespace: str) -> list[bytes]:
        chosen = [key for key in self._objects if key[0] == resource and (not namespace or key[1] == namespace)]
        return [self._objects[key] for key in sorted(chosen, key=lambda key: key[1:])]

    def _json_patch(self, resource: ResourceRef, raw: bytes, operations: bytes, subresource: str) -> bytes:
        try:
            return self._change(resource, orjson.loads(raw), orjson.loads(json_patch(raw, operations)), subresource)
        except UnprocessablePatch as error:
            raise ApiError(422, "Invalid", str(error)) from error

    def _change(self, resource: ResourceRef, old: Object, new: Object, subresource: str) -> bytes:
        if subresource == "status":
            new = old | {"status": new.get("status")}
        elif subresource:
            raise NoSuchPath
        elif "status" in old or "status" in new:
            new = new | {"status": old.get("status", {})}
        kept = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion", "generation")
        meta = {name: value for name, value in new.get("metadata", {}).items() if name not in kept}
        new["metadata"] = meta | {name: old["metadata"][name] for name in kept if name in old["metadata"]}
        if new == old:
            return orjson.dumps(old)
        if new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] += 1
        if "deletionTimestamp" in new["metadata"] and not new["metadata"].get("finalizers") and resource.plural != "pods":
            return self._remove(resource, new)
        return self._write(resource, new, "MODIFIED")

    def _bind(self, resource: ResourceRef, binding: Object, namespace: str, name: str) -> bytes:
        pod = orjson.loads(self._read(resource, namespace, name))
        if pod.setdefault("spec", {}).get("nodeName"):
            raise Conflict(resource.group, resource.plural, name, f'pod {name} is already assigned to node "{pod["spec"]["nodeName"]}"')
        pod["spec"]["nodeName"] = binding["target"]["name"]
        self._write(resource, pod, "MODIFIED")
        return orjson.dumps({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})

    def _write(self, resource: ResourceRef, obj: Object, event_type: EventType) -> bytes:
        self.revision += 1
        meta = obj["metadata"]
        meta["resourceVersion"] = str(self.revision)
        head = {"apiVersion": resource.api_version, "kind": resource.kind}
        key = (resource, meta.get("namespace", ""), meta["name"])
        old, raw = self._objects.get(key), orjson.dumps(head | obj)
        self._objects[key] = raw
        self._log.append(_Change(self.revision, resource, event_type, old, raw))
        self._wake()
        return raw

    def _remove(self, resource: ResourceRef, obj: Object) -> bytes:
        self.revision += 1
        meta = obj["metadata"]
        old = self._objects.pop((resource, meta.get("namespace", ""), meta["name"]))
        raw = orjson.dumps(_with_meta(obj, resourceVersion=str(self.revision)))
        self._log.append(_Change(self.revision, resource, "DELETED", old, raw))
        self._wake()
        return raw

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _with_meta(obj: Object, **changes: Any) -> Object:
    """Return the object with other metadata fields."""
    return obj | {"metadata": obj["metadata"] | changes}


def _as_seen(change: _Change, resource: ResourceRef, options: ListOptions) -> WatchEvent | None:
    """Return the event that a watcher with a selector gets: objects that start or stop to match are added or deleted."""
    if change.resource != resource:
        return None
    did = change.old is not None and _matches(change.old, options)
    does = change.type != "DELETED" and _matches(change.new, options)
    if did and does:
        return WatchEvent("MODIFIED", change.new)
    if does:
        return WatchEvent("ADDED", change.new)
    return WatchEvent("DELETED", change.new) if did else None


def _matches(raw: bytes, options: ListOptions) -> bool:
    obj = orjson.loads(raw)
    meta = obj["metadata"]
    if options.namespace and meta.get("namespace") != options.namespace:
        return False
    labels = meta.get("labels") or {}
    for term in filter(None, options.label_selector.split(",")):
        name, equals, wanted = term.replace("==", "=").partition("=")
        negated = name.endswith("!")
        if (labels.get(name.rstrip("!")) == wanted if equals else name in labels) == negated:
            return False
    for term in filter(None, options.field_selector.split(",")):
        name, _, wanted = term.replace("==", "=").partition("=")
        value: Any = obj
        for part in name.rstrip("!").split("."):
            value = value.get(part, "") if isinstance(value, dict) else ""
        if (str(value) == wanted) == name.endswith("!"):
            return False
    return True


def _bookmark(resource: ResourceRef, revision: int, annotations: dict[str, str]) -> bytes:
    meta: Object = {"resourceVersion": str(revision)}
    if annotations:
        meta["annotations"] = annotations
    return orjson.dumps({"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta})


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name), value)
    return merged


def _decode(body: Body) -> Object:
    return orjson.loads(body if isinstance(body, bytes) else orjson.dumps(body))
