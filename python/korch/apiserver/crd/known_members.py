"""What is known of a custom kind's members (everything but `apiVersion`, `kind` and `metadata`), by their bytes.

Objects of a declared kind often come with the same spec: made by one generator, or applied again and again. Where nothing in the schema
is about the metadata, what is left of the members after pruning and defaulting, and that nothing is wrong with them, depends on nothing
but their bytes. Members are kept when they come a second time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from korch._core import native

_KEPT_MAX = 16
_SEEN_MAX = 256
_BYTES_MAX = 16 * 1024
# What a schema may say at its root without a word about metadata, and about metadata without a rule for it.
_PLAIN_ROOT = frozenset(("type", "properties", "required", "title", "description", "x-kubernetes-preserve-unknown-fields"))
_PLAIN_METADATA = frozenset(("type", "description"))
Findings = tuple[bytes, list[str], list[str], list[tuple[str, str]]]


class KnownMembers:
    """What is known under one schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        metadata = (schema.get("properties") or {}).get("metadata") or {}
        self._is_off = not (schema.keys() <= _PLAIN_ROOT and metadata.keys() <= _PLAIN_METADATA)
        self._seen: set[int] = set()
        self._pruned: dict[tuple[tuple[str, bytes], ...], bytes] = {}
        self._valid: set[bytes] = set()

    def check(self, schema: native.StructuralSchema, builtin: native.Schema, body: bytes) -> Findings:
        """Return what the schema's own `check` does. Raises ValueError."""
        members = () if self._is_off else _members(body)
        if not members or not self._is_again(members):
            return schema.check(builtin, body)
        head, key = members
        if (known := self._pruned.get(key)) is not None:
            found = schema.check(builtin, head)
            parts = native.part_object(found[0])
            if parts is not None and not any(found[1:]):
                return parts[0][:-1] + known, [], [], []
        found = schema.check(builtin, body)
        parts = native.part_object(found[0])
        if parts is not None and not parts[1] and not any(found[1:]):
            self._keep(key, parts[2])
        return found

    def are_valid(self, obj: Mapping[str, Any]) -> bytes | None:
        """Return None when the members of a new object are known to be valid; else what to tell `learn_valid`, b"" for nothing."""
        if self._is_off:
            return b""
        members = orjson.dumps({key: value for key, value in obj.items() if key != "metadata"})
        if members in self._valid:
            return None
        return members if len(members) <= _BYTES_MAX else b""

    def learn_valid(self, members: bytes) -> None:
        """Note that nothing was found wrong."""
        if members and self._is_second(hash(members)):
            if len(self._valid) >= _KEPT_MAX:
                self._valid.clear()
            self._valid.add(members)

    def _keep(self, key: tuple[tuple[str, bytes], ...], members: Sequence[tuple[str, bytes]]) -> None:
        if len(self._pruned) >= _KEPT_MAX:
            self._pruned.clear()
        self._pruned[key] = b"".join(b",%b:%b" % (orjson.dumps(name), value) for name, value in members) + b"}"

    def _is_again(self, members: tuple[bytes, tuple[tuple[str, bytes], ...]]) -> bool:
        return members[1] in self._pruned or self._is_second(hash(members[1]))

    def _is_second(self, mark: int) -> bool:
        if mark in self._seen:
            return True
        if len(self._seen) >= _SEEN_MAX:
            self._seen.clear()
        self._seen.add(mark)
        return False


def _members(body: bytes) -> tuple[bytes, tuple[tuple[str, bytes], ...]] | tuple[()]:
    """Return the head and the members of a body, nothing for one that is not clear, brings managers, or is too long to be kept."""
    parts = native.part_object(body) if len(body) <= _BYTES_MAX else None
    return () if parts is None or parts[1] or not parts[2] else (parts[0], tuple(parts[2]))
