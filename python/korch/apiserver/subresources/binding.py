"""`pods/binding` and `bindings`: the scheduler's word that a pod runs on a node. It can be said once.

Sets spec.nodeName and the condition PodScheduled. Mirrors registry/core/pod/storage (BindingREST.assignPod).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson

from korch._core import native
from korch.api.errors import ApiError, BadRequest, Conflict, Invalid, NotFound, not_supported, required
from korch.api.meta import at
from korch.apiserver import objects
from korch.apiserver.encoding import dump, success
from korch.apiserver.identity import User
from korch.apiserver.options import WriteOptions
from korch.apiserver.pipeline import Outcome, Pipeline, Target
from korch.client.protocol import PodBinding
from korch.resources.resource import Context, Resource
from korch.runtime.clock import rfc3339

if TYPE_CHECKING:
    from korch._core._native import Op

Object = dict[str, Any]

SCHEMA = "io.k8s.api.core.v1.Binding"


async def create(pipeline: Pipeline, target: Target, body: bytes, options: WriteOptions) -> Outcome:
    """Bind the pod `target.name` (or the one that the Binding names). Raises NotFound, Conflict, Invalid, BadRequest."""
    warnings: list[str] = []
    binding = pipeline.codec.decode_as(SCHEMA, "Binding", "v1", body, options.field_validation, warnings)
    metadata = binding["metadata"]
    if metadata.get("namespace") and metadata["namespace"] != target.namespace:
        raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
    name = target.name or metadata.get("name") or ""
    if metadata.get("name") and metadata["name"] != name:
        raise BadRequest("name in URL does not match name in Binding object")
    pods = pipeline.catalogue.get("", "v1", "pods")
    assert pods is not None, "a server that binds serves pods"
    node = _node_of(binding, name)
    now = rfc3339(pipeline.runtime.clock.now())
    pod_target = Target(resource=pods, namespace=target.namespace, name=name, subresource="binding", user=target.user)

    def bind(old: Object, old_bytes: bytes) -> Object:
        objects.check_preconditions(pods, old, uid=metadata.get("uid") or "", resource_version=metadata.get("resourceVersion") or "")
        return bound(orjson.loads(old_bytes), node, metadata.get("annotations") or {}, now)

    await pipeline.modify(pod_target, bind, options, prepare=_prepare, is_applied=True)
    return Outcome(dump(success()), 201, warnings)


async def create_many(pipeline: Pipeline, user: User, bindings: Sequence[PodBinding], options: WriteOptions) -> list[ApiError | None]:
    """Bind pods in one commit and return what went wrong with each, None for nothing.

    Where policies or webhooks want to be asked, or somebody else wrote in between, each is bound by itself."""
    pods = pipeline.catalogue.get("", "v1", "pods")
    assert pods is not None, "a server that binds serves pods"
    targets = [Target(resource=pods, namespace=one.namespace, name=one.name, subresource="binding", user=user) for one in bindings]
    answers: list[ApiError | None] = [None] * len(bindings)
    singly = list(range(len(bindings)))
    if pipeline.extensions is None or pipeline.extensions.is_idle():
        # A pod that is named twice is bound once, and the second Binding sees that.
        first = {(one.namespace, one.name): index for index, one in reversed(list(enumerate(bindings)))}
        together = sorted(first.values())
        if await _commit(pipeline, [(targets[index], bindings[index]) for index in together], together, answers):
            singly = sorted(set(singly) - set(together))
    for index in singly:
        one = bindings[index]
        metadata = {"name": one.name, "namespace": one.namespace, "uid": one.uid}
        body = dump({"metadata": metadata, "target": {"kind": "Node", "name": one.node}})
        try:
            await create(pipeline, targets[index], body, options)
            answers[index] = None
        except ApiError as error:
            answers[index] = error
    return answers


async def _commit(
    pipeline: Pipeline, chosen: Sequence[tuple[Target, PodBinding]], indexes: Sequence[int], answers: list[ApiError | None]
) -> bool:
    """Bind what can be bound in one commit, write refusals to `answers`; False when somebody else wrote meanwhile and nothing was bound."""
    now = rfc3339(pipeline.runtime.clock.now())
    ops: list[Op] = []
    for index, (target, binding) in zip(indexes, chosen, strict=True):
        try:
            ops.append(_operation(pipeline, target, binding, now))
        except ApiError as error:
            answers[index] = error
    try:
        if ops:
            await pipeline.records.storage.commit(ops)
        return True
    except (native.RevisionMismatch, native.KeyMissing):
        await pipeline.records.storage.settled()
        return False


def _operation(pipeline: Pipeline, target: Target, binding: PodBinding, now: str) -> Op:
    """Return the write that binds a pod, admitted. Raises NotFound, Conflict, Forbidden."""
    pods = target.resource
    found = pipeline.records.read(pods, binding.namespace, binding.name)
    if found is None:
        raise NotFound(pods.group, pods.plural, binding.name)
    value, revision = found
    old: Object = orjson.loads(value)
    objects.check_preconditions(pods, old, uid=binding.uid, resource_version="")
    new = bound({**old, "spec": {**old["spec"]}, "status": {**(old.get("status") or {})}}, binding.node, {}, now)
    pipeline.admit_update(target, new, old)
    return pipeline.records.put(pods, new, revision)


def bound(pod: Object, node: str, annotations: dict[str, str], now: str) -> Object:
    """Return `pod` assigned to `node`. `now` is the transition time. Raises Conflict when it cannot be."""
    name = pod["metadata"]["name"]
    spec = pod.setdefault("spec", {})
    if pod["metadata"].get("deletionTimestamp"):
        raise Conflict("", "pods/binding", name, f"pod {name} is being deleted, cannot be assigned to a host")
    if spec.get("nodeName"):
        raise Conflict("", "pods/binding", name, f'pod {name} is already assigned to node "{spec["nodeName"]}"')
    if spec.get("schedulingGates"):
        raise Conflict("", "pods/binding", name, f"pod {name} has non-empty .spec.schedulingGates")
    spec["nodeName"] = node
    if annotations:
        pod["metadata"]["annotations"] = (pod["metadata"].get("annotations") or {}) | annotations
    status = pod.setdefault("status", {})
    others = [one for one in status.get("conditions") or [] if one.get("type") != "PodScheduled"]
    status["conditions"] = [*others, {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}]
    return pod


def _prepare(resource: Resource, new: Object, old: Object, _context: Context) -> None:
    objects.keep_system_fields(new, old)


def _node_of(binding: Object, name: str) -> str:
    kind = at(binding, "target", "kind") or ""
    node = at(binding, "target", "name") or ""
    if kind not in ("", "Node"):
        raise Invalid("", "Binding", name, [not_supported("target.kind", kind, ("Node", "<empty>"))])
    if not node:
        raise Invalid("", "Binding", name, [required("target.name")])
    return node
