"""`scale`: any workload's replica count in one shape, autoscaling/v1 Scale, read from and written to the paths the kind declares.

Mirrors registry/apps/deployment/storage (ScaleREST) and apiextensions' scale conversion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from korch._core import native
from korch.api import selectors
from korch.api.errors import BadRequest, Invalid, invalid
from korch.api.meta import at
from korch.apiserver.body import configuration
from korch.apiserver.encoding import dump
from korch.apiserver.field_managers import SCALE, check_configuration, merged, set_managed_fields
from korch.apiserver.options import WriteOptions
from korch.apiserver.pipeline import Outcome, Pipeline, Target
from korch.resources.resource import Resource, Scale
from korch.runtime.clock import rfc3339

Object = dict[str, Any]

_KIND = ("autoscaling", "v1", "Scale")
_COPIED = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def scale_of(resource: Resource, obj: Object) -> Object:
    """Return the Scale of a workload."""
    paths = resource.scale or Scale()
    metadata = obj["metadata"]
    status: Object = {"replicas": at(obj, *paths.status_replicas.split(".")) or 0}
    if selector := _selector_text(at(obj, *paths.label_selector.split("."))):
        status["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in _COPIED if metadata.get(key)},
        "spec": {"replicas": at(obj, *paths.spec_replicas.split(".")) or 0},
        "status": status,
    }


def get(pipeline: Pipeline, target: Target) -> bytes:
    """Return the Scale of the target. Raises NotFound."""
    return dump(scale_of(target.resource, orjson.loads(pipeline.get(target))))


async def update(pipeline: Pipeline, target: Target, body: bytes, options: WriteOptions) -> Outcome:
    """Take the replica count from a Scale. Raises NotFound, Conflict, Invalid, BadRequest."""
    warnings: list[str] = []
    scale = pipeline.codec.decode_as(SCALE, "Scale", "autoscaling/v1", body, options.field_validation, warnings)
    given = scale["metadata"].get("name") or ""
    if given and given != target.name:
        raise BadRequest(f"the name of the object ({given}) does not match the name on the URL ({target.name})")

    def change(before: bytes) -> Object:
        return _tracked(pipeline, before, scale, options)

    return Outcome(await _write(pipeline, target, change, options), 200, warnings)


async def patch(pipeline: Pipeline, target: Target, patch: bytes, patch_type: str, options: WriteOptions) -> Outcome:
    """Patch the Scale, or apply one, and write it back. Raises NotFound, Conflict, Invalid, BadRequest."""
    warnings: list[str] = []
    config = b""
    if patch_type == "apply":
        config, decoded, _ = configuration(patch)
        check_configuration(decoded, "autoscaling", "v1", "Scale")

    def change(before: bytes) -> Object:
        warnings.clear()
        if patch_type == "apply":
            now = pipeline.runtime.clock.now()
            scale, managed = merged(pipeline.managers.scale, _KIND, before, config, manager=options.manager, now=now, force=options.force)
            obj: Object = orjson.loads(scale)
            set_managed_fields(obj, managed)
            return obj
        patched = pipeline.apply_patch(SCALE, "Scale", before, patch, patch_type)
        scale = pipeline.decode_patched(SCALE, patched, patch, options.field_validation, warnings)
        return _tracked(pipeline, before, scale, options)

    return Outcome(await _write(pipeline, target, change, options), 200, warnings)


def _tracked(pipeline: Pipeline, before: bytes, scale: Object, options: WriteOptions) -> Object:
    now = rfc3339(pipeline.runtime.clock.now())
    set_managed_fields(scale, pipeline.managers.scale.track(before, dump(scale), options.manager, now))
    return scale


async def _write(pipeline: Pipeline, target: Target, change_scale: Callable[[bytes], Object], options: WriteOptions) -> bytes:
    resource = target.resource
    paths = resource.scale or Scale()
    main = Target(resource=resource, namespace=target.namespace, name=target.name, user=target.user)

    def change(old: Object, old_bytes: bytes) -> Object:
        owners = dump(old["metadata"].get("managedFields") or [])
        before = scale_of(resource, old)
        set_managed_fields(before, native.scale_managers(owners, paths.spec_replicas))
        scale = change_scale(dump(before))
        replicas = at(scale, "spec", "replicas") or 0
        if replicas < 0:
            causes = [invalid("spec.replicas", replicas, "must be greater than or equal to 0")]
            raise Invalid("autoscaling", "Scale", target.name, causes)
        new: Object = orjson.loads(old_bytes)
        _set(new, paths.spec_replicas.split("."), replicas)
        new["metadata"]["resourceVersion"] = at(scale, "metadata", "resourceVersion") or ""
        if uid := at(scale, "metadata", "uid"):
            new["metadata"]["uid"] = uid
        scaled = dump(at(scale, "metadata", "managedFields") or [])
        set_managed_fields(new, native.scaled_managers(owners, scaled, paths.spec_replicas, resource.api_version))
        return new

    stored = await pipeline.modify(main, change, options, is_applied=True)
    return dump(scale_of(resource, orjson.loads(stored)))


def _set(obj: Object, path: list[str], value: object) -> None:
    for step in path[:-1]:
        obj = obj.setdefault(step, {})
    obj[path[-1]] = value


def _selector_text(selector: Any) -> str:
    if isinstance(selector, str):
        return selector
    if not isinstance(selector, dict):
        return ""
    if "matchLabels" in selector or "matchExpressions" in selector or not selector:
        return selectors.format(selectors.from_label_selector(selector))
    return selectors.format(selectors.from_label_selector({"matchLabels": selector}))
