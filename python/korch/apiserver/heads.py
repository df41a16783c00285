"""Updates that change nothing but an object's metadata: its head is read, everything else goes from stored bytes to stored bytes.

Most patches of pods set labels, annotations or finalizers. What such an update does to the spec is nothing, once it is known that a spec
is what its own defaults and rules leave as it is; and that is learned by watching an update which went the long way. The name of a pod's
token volume, which is its own, is left open in what is remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from korch._core import native
from korch.apiserver.admission.service_account import TOKEN_VOLUME_PREFIX
from korch.resources.resource import Resource

Object = dict[str, Any]
Members = Sequence[tuple[str, bytes]]

_SETTLED_MAX = 512
_SPEC_BYTES_MAX = 16 * 1024
_OPENING = b'"%b' % TOKEN_VOLUME_PREFIX.encode()


class Head(dict[str, Any]):
    """An object whose members beside its metadata are encoded, the same as those of `old`, the head of what is stored. `fields` are what it
    can be selected by."""

    __slots__ = ("fields", "old")

    def __init__(self, head: Object, members: Object, old: Object, fields: Mapping[str, str]) -> None:
        super().__init__(head | members)
        self.old = old
        self.fields = fields


class Heads:
    """Knows the specs that updates of metadata leave as they are."""

    def __init__(self) -> None:
        # Members without what is a pod's own, with what their pod can be selected by.
        self._settled: dict[tuple[bytes, ...], Mapping[str, str]] = {}

    def read(self, resource: Resource, old_bytes: bytes, new_bytes: bytes, decode: Callable[[bytes], Object]) -> Head | None:
        """Return the head of `new_bytes` as `decode` reads it, with the managers of the old one; None when more than the head has changed,
        or when what an update does to the rest is not known."""
        if not _is_about(resource) or not self._settled:
            return None
        old, new = native.part_object(old_bytes), native.part_object(new_bytes)
        return self._head(old, new[0], decode) if old is not None and new is not None and old[2] == new[2] else None

    def change(self, resource: Resource, old_bytes: bytes, change: Callable[[bytes], Object]) -> Head | None:
        """The same for an update of which it is known that nothing but the head changes: `change` makes the new head of the old one."""
        if not _is_about(resource) or not self._settled:
            return None
        old = native.part_object(old_bytes)
        return self._head(old, old[0], change) if old is not None else None

    def _head(self, old: tuple[bytes, bytes, Members], new: bytes, decode: Callable[[bytes], Object]) -> Head | None:
        head, managers, members = old
        fields = self._settled.get(_open(members))
        if fields is None:
            return None
        stored: Object = orjson.loads(head)
        fresh = decode(new)
        encoded: Object = {name: orjson.Fragment(value) for name, value in members}
        if managers:
            stored["metadata"]["managedFields"] = fresh["metadata"]["managedFields"] = orjson.Fragment(managers)
        return Head(fresh, encoded, stored | encoded, fields)

    def learn(self, resource: Resource, old_bytes: bytes, new_bytes: bytes) -> None:
        """Watch an update that went the long way."""
        if not _is_about(resource):
            return
        old, new = native.part_object(old_bytes), native.part_object(new_bytes)
        if old is None or new is None or old[2] != new[2] or sum(len(value) for _, value in old[2]) > _SPEC_BYTES_MAX:
            return
        if len(self._settled) >= _SETTLED_MAX:
            self._settled.clear()
        whole: Object = orjson.loads(new_bytes)
        self._settled[_open(old[2])] = {label: read(whole) for label, read in resource.selectable_fields.items()}


def _is_about(resource: Resource) -> bool:
    return resource.plural == "pods" and not resource.group


def _open(members: Members) -> tuple[bytes, ...]:
    """Return the members with the name of a token volume left open, by a byte that no JSON holds."""
    found: list[bytes] = []
    for name, value in members:
        start = value.find(_OPENING)
        if start >= 0:
            end = value.find(b'"', start + 1)
            value = value.replace(value[start : end + 1], b"\0")
        found += (name.encode(), value)
    return tuple(found)
