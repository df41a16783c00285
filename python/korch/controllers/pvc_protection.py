"""Keeps a deleted claim until no pod uses it any more.

Watches claims and pods; writes claims. Invariant: the finalizer of a claim that is being deleted goes when no pod that could still run
mentions it. Mirrors upstream pkg/controller/volume/pvcprotection.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from korch.api.gvk import PERSISTENT_VOLUME_CLAIMS, PODS
from korch.api.meta import at, is_deleting, name_of, namespace_of
from korch.api.pods import is_terminal
from korch.client.controller import Controller, Requeue, Watch
from korch.client.projections import object_key
from korch.controllers.workload.controller import decode_object, same_key
from korch.controllers.workload.pods import decode_pod

Object = dict[str, Any]

FINALIZER = "kubernetes.io/pvc-protection"


def claim_keys(pod: Object) -> Iterable[str]:
    """Map a pod to the claims that it mounts."""
    for volume in at(pod, "spec", "volumes") or ():
        if claim := volume.get("persistentVolumeClaim"):
            yield object_key(namespace_of(pod), claim.get("claimName") or "")
        elif volume.get("ephemeral"):
            yield object_key(namespace_of(pod), f"{name_of(pod)}-{volume.get('name')}")


class PvcProtectionController(Controller):
    """Reconciles one claim a key."""

    name = "persistentvolumeclaim-protection-controller"
    workers = 1
    watches = (
        Watch(PERSISTENT_VOLUME_CLAIMS, keys=same_key, decode=decode_object),
        Watch(PODS, keys=claim_keys, decode=decode_pod, indexes={"claims": claim_keys}),
    )

    async def reconcile(self, key: str) -> Requeue | None:
        claim = self.informer(PERSISTENT_VOLUME_CLAIMS).get_by_key(key)
        if claim is None or not is_deleting(claim) or FINALIZER not in (at(claim, "metadata", "finalizers") or ()):
            return None
        users = self.informer(PODS).by_index("claims", key)
        if any(not is_terminal(pod) and at(pod, "spec", "nodeName") for pod in users):
            return None
        self.wrote(
            key,
            PERSISTENT_VOLUME_CLAIMS,
            await self.client.update(
                PERSISTENT_VOLUME_CLAIMS, without_finalizer(claim, FINALIZER), name=name_of(claim), namespace=namespace_of(claim)
            ),
        )
        return None


def without_finalizer(obj: Object, finalizer: str) -> Object:
    """Return the object without one of its finalizers."""
    kept = [one for one in at(obj, "metadata", "finalizers") or () if one != finalizer]
    return {**obj, "metadata": {**obj["metadata"], "finalizers": kept}}
