"""Configurations that every write has to look at, kept in memory: decoded once, and known to be current without reading the store.

A watch says whether anything was published that has not been seen; only then something is decoded. So a change is in force for
every request that begins after it was answered.
"""

from __future__ import annotations

from typing import Any

import orjson

from korch._core import native
from korch.resources.resource import Catalogue
from korch.storage import Storage, Watch

Object = dict[str, Any]


class Configurations:
    """All objects of one cluster-scoped kind, by name, in the order of their names."""

    def __init__(self, storage: Storage, catalogue: Catalogue, group: str, plural: str) -> None:
        self._storage = storage
        self._catalogue = catalogue
        self._path = (group, "v1", plural)
        self._watch: Watch | None = None
        self._objects: dict[str, Object] = {}
        self._sorted: list[Object] = []

    def all(self) -> list[Object]:
        """Return the objects as they are now. Shared: do not change them."""
        if self._watch is None or self._watch.has_news:
            self._update()
        return self._sorted

    def get(self, name: str) -> Object | None:
        """Return one object."""
        self.all()
        return self._objects.get(name)

    def _update(self) -> None:
        try:
            if self._watch is None:
                self._load()
                return
            while events := self._watch.take():
                for kind, _, value in events:
                    obj: Object = orjson.loads(value)
                    name = obj["metadata"]["name"]
                    if kind == 2:
                        self._objects.pop(name, None)
                    else:
                        self._objects[name] = obj
        except (native.WatcherLagged, native.Compacted):
            self._load()
        self._sorted = [self._objects[name] for name in sorted(self._objects)]

    def _load(self) -> None:
        resource = self._catalogue.get(*self._path)
        if resource is None:
            return
        if self._watch is not None:
            self._watch.close()
        page = self._storage.range(resource.key_prefix())
        self._watch = self._storage.watch(resource.key_prefix(), page.revision)
        loaded: list[Object] = [orjson.loads(value) for value in page.values]
        self._objects = {one["metadata"]["name"]: one for one in loaded}
        self._sorted = [self._objects[name] for name in sorted(self._objects)]
