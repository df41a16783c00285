"""Where a plan is played: the few things that operations do, the same for the engine alone and for a whole cluster."""

from __future__ import annotations

import random
from typing import Any, Protocol

from korch.api.gvk import ResourceRef
from korch.lab.bench.ledger import PodLedger
from korch.resources.resource import Catalogue
from korch.scheduler.attempts import AttemptLog

Object = dict[str, Any]
# The alphabet of Kubernetes' generated names.
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


class StageError(Exception):
    """Something that a workload asks for was refused; the message says what and why."""


class Stage(Protocol):
    """A cluster, or what stands for one. Objects are dicts with apiVersion and kind."""

    level: str
    ledger: PodLedger
    attempts: AttemptLog

    async def create(self, obj: Object, namespace: str = "") -> str:
        """Make an object and return its name. Raises StageError."""
        ...

    async def create_pod(self, body: bytes, namespace: str, name: str) -> None:
        """Make a pod from its JSON, which has the name too. Raises StageError."""
        ...

    async def update(self, obj: Object, namespace: str, subresource: str = "") -> None:
        """Replace an object, or the part of it that is a subresource. Raises StageError."""
        ...

    async def delete(self, kind: ResourceRef, name: str, namespace: str = "") -> None:
        """Delete an object; one that is gone is no error. Raises StageError."""
        ...

    async def rest(self) -> None:
        """Await the end of what was put off, such as events for users."""
        ...

    def waiting(self) -> dict[str, int]:
        """Return how many pods wait in each place of the scheduling queue."""
        ...


class Kinds:
    """Finds where a kind is served. Raises StageError for one that is not."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._known: dict[tuple[str, str], ResourceRef] = {}

    def of(self, obj: Object) -> ResourceRef:
        """Return the resource of an object."""
        given = (obj.get("apiVersion", ""), obj.get("kind", ""))
        if (known := self._known.get(given)) is not None:
            return known
        group, _, version = given[0].rpartition("/")
        found = self._catalogue.by_kind(group, version, given[1])
        if found is None:
            raise StageError(f'no matches for kind "{given[1]}" in version "{given[0]}"')
        self._known[given] = found.ref
        return found.ref


class Names:
    """Makes names from generateName, so that whoever makes an object knows what it will be called."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def complete(self, obj: Object) -> str:
        """Give the object a name unless it has one, and return it."""
        metadata = obj.setdefault("metadata", {})
        if not metadata.get("name"):
            metadata["name"] = metadata.get("generateName", "") + "".join(self._random.choices(_ALPHABET, k=8))
        return metadata["name"]
