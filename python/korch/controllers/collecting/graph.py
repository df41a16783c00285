"""Who owns whom: every object that can be owned or own, by uid, with the edges of metadata.ownerReferences.

Fed by informers of all kinds, it holds metadata only. An owner that is not (yet) known has no node, but its dependents are found by its
uid all the same. Mirrors upstream pkg/controller/garbagecollector/graph.go.
"""

from __future__ import annotations

from dataclasses import dataclass

from korch.api.gvk import ResourceRef
from korch.client.projections import Meta, OwnerReference

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"


@dataclass(frozen=True, slots=True)
class Node:
    """One object: the collection it lives in and its metadata."""

    ref: ResourceRef
    meta: Meta

    @property
    def uid(self) -> str:
        return self.meta.uid

    @property
    def owners(self) -> list[OwnerReference]:
        return self.meta.metadata.ownerReferences

    @property
    def is_orphaning(self) -> bool:
        """Whether it is being deleted and must first let its dependents go."""
        return self.meta.is_terminating and ORPHAN in self.meta.metadata.finalizers

    @property
    def is_deleting_dependents(self) -> bool:
        """Whether it is being deleted and waits for the dependents that block that."""
        return self.meta.is_terminating and FOREGROUND in self.meta.metadata.finalizers

    def blocks(self, owner_uid: str) -> bool:
        """Whether this object's existence blocks the foreground deletion of the owner."""
        return any(one.uid == owner_uid and one.blockOwnerDeletion for one in self.owners)

    def is_named_by(self, owner: OwnerReference, namespace: str) -> bool:
        """Whether a reference in an object of `namespace` means this node by all it says, not by uid alone."""
        group = owner.apiVersion.rpartition("/")[0]
        is_same_kind = (owner.kind, group, owner.name) == (self.ref.kind, self.ref.group, self.meta.name)
        return is_same_kind and (not self.ref.namespaced or self.meta.namespace == namespace)


class Graph:
    """The nodes and the edges from owners to dependents."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._dependents: dict[str, dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, uid: str) -> Node | None:
        return self._nodes.get(uid)

    def dependents(self, uid: str) -> list[Node]:
        """Return the objects that name `uid` as an owner, in order of their arrival."""
        return [self._nodes[one] for one in self._dependents.get(uid, ())]

    def put(self, node: Node) -> Node | None:
        """Take the node's new state and return its old one."""
        old = self._nodes.get(node.uid)
        if old is not None:
            self._unlink(old)
        self._nodes[node.uid] = node
        for owner in node.owners:
            self._dependents.setdefault(owner.uid, {})[node.uid] = None
        return old

    def remove(self, uid: str) -> Node | None:
        """Forget the node and return it."""
        old = self._nodes.pop(uid, None)
        if old is not None:
            self._unlink(old)
        return old

    def _unlink(self, node: Node) -> None:
        for owner in node.owners:
            edges = self._dependents.get(owner.uid)
            if edges is not None:
                edges.pop(node.uid, None)
                if not edges:
                    del self._dependents[owner.uid]
