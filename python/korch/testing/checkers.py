"""What must hold at every moment of every simulation, whatever fails: checked on the store's own stream of changes.

The auditor sees each committed change once, in order, from behind the server: no client, fault or cache is between. A broken rule
is a `Violation` that names the rule, the revision and the objects. Rules about a whole cluster at rest (caches equal the server, nobody
writes any more) belong to `SimCluster.settle`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from korch.api.meta import at, key_of, uid_of
from korch.api.pods import amounts, is_terminal, requests

Object = dict[str, Any]
# (type, revision, object) as the store tells it; type is 0 ADDED, 1 MODIFIED, 2 DELETED.
Event = tuple[int, int, bytes]
DELETED = 2
# Kinds that are written in a cluster at rest too.
HEARTBEATS = ("Lease", "Event")


class Violation(AssertionError):
    """A rule of the cluster was broken."""


class Auditor:
    """The rules over the stream of changes. Feed it with `absorb`; it raises Violation at the first change that breaks one."""

    def __init__(self) -> None:
        self.revision = 0
        self.changes = 0
        # Virtual time of the last change that was not a heartbeat.
        self.changed_at = 0.0
        self._objects: dict[tuple[str, str], Object] = {}
        self._nodes: dict[str, Object] = {}
        # Pods that hold a place on a node, and what they hold: node -> key -> requests.
        self._placed: dict[str, dict[str, dict[str, int]]] = {}
        self._addresses: dict[str, str] = {}
        self._seen_uids: dict[str, tuple[str, str]] = {}

    def absorb(self, events: Sequence[Event], now: float = 0.0) -> None:
        """Check events, oldest first, that were committed at `now` (virtual seconds). Raises Violation."""
        for event_type, revision, raw in events:
            self.changes += 1
            obj: Object = orjson.loads(raw)
            where = (obj.get("kind", ""), key_of(obj))
            self._check_stream(event_type, revision, obj, where)
            old = self._objects.get(where)
            if not _is_heartbeat(where[0], obj, old):
                self.changed_at = now
            self._check_object(event_type, obj, old, where)
            if where[0] == "Pod":
                self._check_pod(event_type, obj, old, where[1])
            elif where[0] == "Node":
                self._nodes[where[1]] = obj
                if event_type == DELETED:
                    del self._nodes[where[1]]
            if event_type == DELETED:
                self._objects.pop(where, None)
            else:
                self._objects[where] = obj

    def _check_stream(self, event_type: int, revision: int, obj: Object, where: tuple[str, str]) -> None:
        # Several objects may change under one revision, none under an older one.
        self._require(revision >= self.revision, f"revision {revision} came after {self.revision}", where)
        self.revision = revision
        stamped = at(obj, "metadata", "resourceVersion")
        self._require(stamped == str(revision), f"resourceVersion {stamped} in the change of revision {revision}", where)
        known = where in self._objects
        self._require(
            known == (event_type != 0), f"an event of type {event_type} for an object that is {'there' if known else 'not there'}", where
        )

    def _check_object(self, event_type: int, obj: Object, old: Object | None, where: tuple[str, str]) -> None:
        uid = uid_of(obj)
        self._require(bool(uid), "an object without uid", where)
        if old is None:
            self._require(self._seen_uids.setdefault(uid, where) == where and event_type == 0, f"uid {uid} is used twice", where)
            return
        self._require(uid == uid_of(old), "the uid changed", where)
        before, after = at(old, "metadata", "generation") or 0, at(obj, "metadata", "generation") or 0
        self._require(after >= before, f"the generation fell from {before} to {after}", where)
        if at(old, "metadata", "deletionTimestamp"):
            self._require(bool(at(obj, "metadata", "deletionTimestamp")), "a deletion was taken back", where)
        if event_type == DELETED and not at(old, "metadata", "deletionTimestamp"):
            # The change that takes the last finalizer off a terminating object removes it, and the event still shows its last state.
            left = [one for one in at(old, "metadata", "finalizers") or () if one in (at(obj, "metadata", "finalizers") or ())]
            self._require(not left, f"removed in spite of finalizers {left}", where)

    def _check_pod(self, event_type: int, pod: Object, old: Object | None, key: str) -> None:
        where = ("Pod", key)
        node, node_before = at(pod, "spec", "nodeName") or "", at(old, "spec", "nodeName") or ""
        if node_before:
            self._require(node == node_before, f"bound to {node_before}, then to {node or 'nothing'}", where)
        elif node:
            self._require(node in self._nodes, f"bound to node {node}, which does not exist", where)
        if at(pod, "status", "phase") == "Running":
            self._require(bool(node), "running without a node", where)
        is_over = event_type == DELETED or is_terminal(pod)
        self._check_address(pod, key, is_over)
        if not node:
            return
        held = self._placed.setdefault(node, {})
        if is_over:
            held.pop(key, None)
        elif key not in held:
            held[key] = requests(pod)
            self._check_capacity(node, held, where)

    def _check_address(self, pod: Object, key: str, is_over: bool) -> None:
        address = at(pod, "status", "podIP")
        if not address or at(pod, "spec", "hostNetwork"):
            return
        if is_over:
            if self._addresses.get(address) == key:
                del self._addresses[address]
            return
        holder = self._addresses.setdefault(address, key)
        self._require(holder == key, f"has the address {address} of pod {holder}", ("Pod", key))

    def _check_capacity(self, node: str, held: dict[str, dict[str, int]], where: tuple[str, str]) -> None:
        allocatable = amounts(at(self._nodes.get(node), "status", "allocatable"))
        total: dict[str, int] = {"pods": len(held)}
        for one in held.values():
            for name, amount in one.items():
                total[name] = total.get(name, 0) + amount
        over = {name: amount for name, amount in total.items() if name in allocatable and amount > allocatable[name]}
        self._require(not over, f"node {node} holds {over} of {allocatable}", where)

    def _require(self, holds: bool, rule: str, where: tuple[str, str]) -> None:
        if not holds:
            raise Violation(f"{where[0]} {where[1]} at revision {self.revision}: {rule}")


def _is_heartbeat(kind: str, obj: Object, old: Object | None) -> bool:
    """Return whether a change only says that somebody is still alive."""
    if kind in HEARTBEATS:
        return True
    return kind == "Node" and old is not None and _without_times(obj) == _without_times(old)


def _without_times(node: Object) -> Object:
    conditions = [
        {name: value for name, value in one.items() if name != "lastHeartbeatTime"} for one in at(node, "status", "conditions") or ()
    ]
    meta = {name: value for name, value in node["metadata"].items() if name not in ("resourceVersion", "managedFields")}
    return node | {"metadata": meta, "status": (node.get("status") or {}) | {"conditions": conditions}}
