"""Pods as controllers keep them: dicts of the fields that they read, a third of the whole object, and the way back for a pod's status.

All controllers share one such copy. Who reads a new field of a pod adds it here; what is left out (who owns which field, commands,
environments, mounts) is most of a pod, in every process for every pod. Because of what is missing a pod of the cache is never sent
back: its status is patched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict, cast

import msgspec

from korch.api.gvk import PODS
from korch.api.meta import at, name_of, namespace_of, uid_of
from korch.client.protocol import Client

Object = dict[str, Any]


class _Metadata(TypedDict, total=False):
    name: Any
    generateName: Any
    namespace: Any
    uid: Any
    resourceVersion: Any
    creationTimestamp: Any
    deletionTimestamp: Any
    deletionGracePeriodSeconds: Any
    labels: Any
    annotations: Any
    ownerReferences: Any
    finalizers: Any


class _Container(TypedDict, total=False):
    name: Any
    ports: Any
    restartPolicy: Any


class _Volume(TypedDict, total=False):
    name: Any
    persistentVolumeClaim: Any
    ephemeral: Any


class _Spec(TypedDict, total=False):
    nodeName: Any
    hostname: Any
    subdomain: Any
    affinity: Any
    tolerations: Any
    resourceClaims: Any
    containers: list[_Container] | None
    initContainers: list[_Container] | None
    volumes: list[_Volume] | None


class _ContainerStatus(TypedDict, total=False):
    name: Any
    restartCount: Any
    state: Any


class _Status(TypedDict, total=False):
    phase: Any
    reason: Any
    conditions: Any
    podIP: Any
    podIPs: Any
    resourceClaimStatuses: Any
    containerStatuses: list[_ContainerStatus] | None
    initContainerStatuses: list[_ContainerStatus] | None


class _Pod(TypedDict, total=False):
    apiVersion: Any
    kind: Any
    metadata: _Metadata
    spec: _Spec | None
    status: _Status | None


# Pod JSON -> a dict of the fields above; absent fields stay absent, nulls stay None. Raises msgspec.MsgspecError for what is no pod.
decode_pod = cast(Callable[[bytes], Object], msgspec.json.Decoder(_Pod).decode)


async def patch_pod_status(client: Client, pod: Object, status: Object) -> bytes:
    """Write these fields of a pod's status, provided that the pod is still as in the cache; return the stored pod.

    Lists such as `conditions` are merged by their keys. Raises NotFound, Conflict when the pod changed meanwhile.
    """
    metadata = {"uid": uid_of(pod), "resourceVersion": at(pod, "metadata", "resourceVersion")}
    patch = {"metadata": metadata, "status": status}
    return await client.patch(PODS, name_of(pod), patch, namespace=namespace_of(pod), subresource="status", patch_type="strategic")
