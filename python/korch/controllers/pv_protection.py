"""Keeps a deleted volume while a claim is bound to it.

Watches and writes volumes. Invariant: the finalizer of a volume that is being deleted goes when it is not bound.
Mirrors upstream pkg/controller/volume/pvprotection.
"""

from __future__ import annotations

from korch.api.gvk import PERSISTENT_VOLUMES
from korch.api.meta import at, is_deleting, name_of
from korch.client.controller import Controller, Requeue, Watch
from korch.controllers.pvc_protection import without_finalizer
from korch.controllers.workload.controller import decode_object, same_key

FINALIZER = "kubernetes.io/pv-protection"


class PvProtectionController(Controller):
    """Reconciles one volume a key."""

    name = "persistentvolume-protection-controller"
    workers = 1
    watches = (Watch(PERSISTENT_VOLUMES, keys=same_key, decode=decode_object),)

    async def reconcile(self, key: str) -> Requeue | None:
        volume = self.informer(PERSISTENT_VOLUMES).get_by_key(key)
        if volume is None or not is_deleting(volume) or FINALIZER not in (at(volume, "metadata", "finalizers") or ()):
            return None
        if at(volume, "status", "phase") != "Bound":
            body = without_finalizer(volume, FINALIZER)
            self.wrote(key, PERSISTENT_VOLUMES, await self.client.update(PERSISTENT_VOLUMES, body, name=name_of(volume)))
        return None
