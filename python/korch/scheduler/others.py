"""What the engine is told besides pods and nodes: namespaces, services and controllers, disruption budgets, storage.

Each kind is followed as bytes and handed on as bytes. A kind that the server does not serve is left out: nothing of it exists then.
"""

from __future__ import annotations

from collections.abc import Callable

from korch.api.errors import ApiError, NotFound
from korch.api.gvk import NAMESPACES, REPLICA_SETS, REPLICATION_CONTROLLERS, SERVICES, STATEFUL_SETS, ResourceRef
from korch.client.informer import Informer, Informers
from korch.client.projections import Meta
from korch.client.protocol import Client, ListOptions
from korch.runtime.log import get_logger
from korch.scheduler.volumes import PERSISTENT_VOLUME_CLAIMS, STORAGE_CLASSES

log = get_logger("scheduler")

POD_DISRUPTION_BUDGETS = ResourceRef("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
ALWAYS_SERVED = (NAMESPACES, SERVICES, REPLICATION_CONTROLLERS, REPLICA_SETS, STATEFUL_SETS)
STORAGE = (
    PERSISTENT_VOLUME_CLAIMS,
    STORAGE_CLASSES,
    ResourceRef("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False),
    ResourceRef("storage.k8s.io", "v1", "csinodes", "CSINode", namespaced=False),
    ResourceRef("storage.k8s.io", "v1", "csidrivers", "CSIDriver", namespaced=False),
    ResourceRef("storage.k8s.io", "v1", "csistoragecapacities", "CSIStorageCapacity"),
)
PERHAPS_SERVED = (POD_DISRUPTION_BUDGETS, *STORAGE)


class Others:
    """The newest state of each object of these kinds that the engine has not been given yet."""

    def __init__(self, client: Client, informers: Informers, changed: Callable[[ResourceRef], None]) -> None:
        """`changed` is called after each object that came, changed or went."""
        self._changed = changed
        self._client = client
        self._informers = informers
        self._news: dict[tuple[str, str], bytes | None] = {}
        self._followed: dict[ResourceRef, Informer[Meta]] = {}
        for resource in ALWAYS_SERVED:
            self._follow(resource)

    async def start(self) -> None:
        """Follow what else the server serves and await the first picture of everything."""
        for resource in PERHAPS_SERVED:
            if resource not in self._followed and await self._is_served(resource):
                self._follow(resource)
        for informer in self._followed.values():
            await informer.wait_synced()

    def take(self) -> tuple[list[bytes], dict[str, list[str]]]:
        """Return what came or changed, and the keys of what went by kind, since the last call."""
        news, self._news = self._news, {}
        gone: dict[str, list[str]] = {}
        for (kind, key), raw in news.items():
            if raw is None:
                gone.setdefault(kind, []).append(key)
        return [raw for raw in news.values() if raw is not None], gone

    async def _is_served(self, resource: ResourceRef) -> bool:
        try:
            await self._client.list(resource, ListOptions(limit=1))
        except NotFound:
            return False
        except (ApiError, OSError) as error:
            log.warning("cannot list", resource=resource.plural, error=str(error))
            return False
        return True

    def _follow(self, resource: ResourceRef) -> None:
        informer = self._followed[resource] = self._informers.informer(resource)

        def note(meta: Meta) -> None:
            raw = informer.raw(meta.key)
            # Lists leave out the kind of their items; the engine needs it to tell them apart.
            if raw is not None and not meta.kind:
                raw = b'{"kind":"%s",' % resource.kind.encode() + raw.lstrip()[1:]
            self._news[resource.kind, meta.key] = raw
            self._changed(resource)

        informer.on(add=note, update=lambda _, new: note(new), delete=note)
