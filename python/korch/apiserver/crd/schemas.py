"""The schema of one version of a custom kind, compiled when a request first needs it.

A cluster may hold hundreds of declarations of which most are never used, so nothing of a schema is held in memory before: it is read
from the stored declaration.
"""

from __future__ import annotations

from collections.abc import Callable

import orjson

from korch._core import native
from korch.api.errors import Cause
from korch.apiserver.crd.known_members import KnownMembers
from korch.resources.resource import Object

_ANYTHING = b'{"type":"object","x-kubernetes-preserve-unknown-fields":true}'


class LazySchema:
    """A structural schema. `read` returns its openAPIV3Schema as JSON, b"" when there is none."""

    def __init__(self, read: Callable[[], bytes], builtin: native.Schema) -> None:
        self._read = read
        self._builtin = builtin
        self._compiled: native.StructuralSchema | None = None
        self._known: KnownMembers | None = None

    @property
    def is_compiled(self) -> bool:
        return self._compiled is not None

    @property
    def compiled(self) -> native.StructuralSchema:
        """The compiled schema."""
        if self._compiled is None:
            self._compiled = native.StructuralSchema(self._read() or _ANYTHING)
        return self._compiled

    @property
    def known(self) -> KnownMembers:
        """What is known of objects that have been looked at."""
        if self._known is None:
            self._known = KnownMembers(self.document())
        return self._known

    def document(self) -> Object:
        """Return the schema as it was declared. Not kept."""
        return orjson.loads(self._read() or _ANYTHING)

    def check(self, body: bytes) -> tuple[bytes, list[str], list[str], list[tuple[str, str]]]:
        """Return a body pruned and defaulted, its unknown and duplicate fields, and what makes it no object. Raises ValueError."""
        return self.known.check(self.compiled, self._builtin, body)

    def restore(self, stored: bytes) -> bytes:
        """Return a stored object pruned and defaulted by the present schema."""
        return self.compiled.default(stored)

    def validate(self, obj: Object, old: Object | None = None) -> list[Cause]:
        """Return what is wrong with an object, in the light of the old one."""
        members = self.known.are_valid(obj) if old is None else b""
        if members is None:
            return []
        found, _ = self.compiled.validate(orjson.dumps(obj), None if old is None else orjson.dumps(old))
        if not found:
            self.known.learn_valid(members)
        return [Cause(reason, message, field) for reason, message, field in found]
