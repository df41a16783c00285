"""The pure steps of a write: what the server fills in, keeps, refuses and forgets between the request and the store.

`prepare_create` and `prepare_update` take the decoded object (and the stored one), change the former in place and raise
the outcome that the client gets. They read no store and no clock. Mirrors apiserver's registry/rest create.go and update.go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from korch.api.errors import BadRequest, Cause, Conflict, Invalid
from korch.api.errors import invalid as invalid_value
from korch.api.validation import UNQUALIFIED_FINALIZER, validate_object_meta, validate_object_meta_update
from korch.apiserver.field_managers import managers_of
from korch.resources.resource import Context, Resource, Strategy
from korch.runtime.clock import rfc3339

Object = dict[str, Any]

# What a client may send and the server decides.
_SYSTEM_FIELDS = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink")
_COMPARED_APART = ("resourceVersion", "managedFields")
_KEPT_ON_UPDATE = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds")


def check_address(resource: Resource, obj: Object, namespace: str, name: str) -> None:
    """Fill namespace and name from the request's path; raise BadRequest when the body names others."""
    metadata = obj.setdefault("metadata", {})
    given = metadata.get("namespace") or ""
    if given and given != namespace:
        raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
    if namespace and resource.namespaced:
        metadata["namespace"] = namespace
    else:
        metadata.pop("namespace", None)
    if name:
        if metadata.get("name") and metadata["name"] != name:
            raise BadRequest(f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})")
        metadata["name"] = name


def stamp_new(resource: Resource, obj: Object, *, uid: str, now: float) -> None:
    """Give a new object its identity. `now` is seconds since the epoch."""
    metadata = obj["metadata"]
    for field in _SYSTEM_FIELDS:
        metadata.pop(field, None)
    metadata["uid"] = uid
    metadata["creationTimestamp"] = rfc3339(now)
    if resource.strategy.has_generation:
        metadata["generation"] = 1


def refuse_version(obj: Object) -> None:
    """Raise BadRequest when an object that is to be created names a version."""
    metadata = obj["metadata"]
    if metadata.get("resourceVersion") not in (None, "", "0"):
        raise BadRequest("resourceVersion should not be set on objects to be created")
    metadata.pop("resourceVersion", None)


def prepare_create(resource: Resource, obj: Object, context: Context) -> None:
    """Run the kind's create strategy and its checks. Raises Invalid with every cause found."""
    strategy = resource.strategy
    if strategy.has_status and not strategy.keeps_status_on_create:
        obj.pop("status", None)
    strategy.prepare_create(obj, context)
    if strategy.has_status and not strategy.keeps_status_on_create:
        obj.setdefault("status", {})
        _fill_counts(strategy, obj)
    _raise_if(resource, obj, _metadata_causes(resource, obj) + strategy.validate(obj))


def check_metadata(resource: Resource, obj: Object) -> None:
    """Run the checks of a new object's metadata, for one of which everything else is known to be valid. Raises Invalid."""
    _raise_if(resource, obj, _metadata_causes(resource, obj))


def prepare_head_update(resource: Resource, new: Object, old: Object) -> None:
    """Do what `prepare_update` does, to an object of which nothing but the metadata differs. Raises Invalid."""
    keep_system_fields(new, old)
    _raise_if(resource, new, validate_object_meta_update(new, old) + _metadata_causes(resource, new))


def check_preconditions(resource: Resource, obj: Object, *, uid: str, resource_version: str) -> None:
    """Raise Conflict unless `obj` has this uid and resourceVersion ("" fits all)."""
    metadata = obj["metadata"]
    if uid and uid != metadata.get("uid"):
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {metadata.get('uid', '')}"
        raise Conflict(resource.group, resource.plural, metadata["name"], why)
    if resource_version and resource_version != metadata.get("resourceVersion"):
        why = (
            f"Precondition failed: ResourceVersion in precondition: {resource_version}, "
            f"ResourceVersion in object meta: {metadata.get('resourceVersion', '')}"
        )
        raise Conflict(resource.group, resource.plural, metadata["name"], why)


def check_version(resource: Resource, new: Object, old: Object) -> None:
    """Raise Conflict when the update was made from another version, Invalid when the kind demands one and none is given."""
    given = new["metadata"].get("resourceVersion") or ""
    if given in ("", "0"):
        if not resource.strategy.allows_unconditional_update:
            cause = invalid_value("metadata.resourceVersion", 0, "must be specified for an update")
            raise Invalid(resource.group, resource.kind, old["metadata"]["name"], [cause])
        return
    if given != old["metadata"]["resourceVersion"]:
        raise Conflict(resource.group, resource.plural, old["metadata"]["name"])


def check_uid(resource: Resource, new: Object, old: Object) -> None:
    """Raise Conflict when the update names another uid than the stored object's."""
    check_preconditions(resource, old, uid=new["metadata"].get("uid") or "", resource_version="")


def prepare_update(resource: Resource, new: Object, old: Object, context: Context) -> None:
    """Carry over what an update may not change, then run the kind's update strategy and its checks. Raises Invalid."""
    strategy = resource.strategy
    keep_system_fields(new, old)
    if strategy.has_status:
        _take(new, old, "status")
    strategy.prepare_update(new, old, context)
    _fill_counts(strategy, new)
    if strategy.has_generation and new.get("spec") != old.get("spec"):
        new["metadata"]["generation"] = (old["metadata"].get("generation") or 0) + 1
    causes = validate_object_meta_update(new, old) + _metadata_causes(resource, new)
    if not strategy.validates_update_alone:
        causes += strategy.validate(new)
    causes += strategy.validate_update(new, old)
    _raise_if(resource, new, causes)


def prepare_status_update(resource: Resource, new: Object, old: Object, context: Context) -> None:
    """Let only `status` (and labels, annotations, finalizers) through, then run the kind's checks for it. Raises Invalid."""
    strategy = resource.strategy
    keep_system_fields(new, old)
    _take(new["metadata"], old["metadata"], "ownerReferences")
    for field in [key for key in new if key not in ("status", "metadata", "kind", "apiVersion")]:
        _take(new, old, field)
    for field in old:
        if field not in ("status", "metadata"):
            _take(new, old, field)
    strategy.prepare_status_update(new, old, context)
    _fill_counts(strategy, new)
    causes = validate_object_meta_update(new, old) + _metadata_causes(resource, new)
    causes += strategy.validate_status_update(new, old)
    _raise_if(resource, new, causes)


def _fill_counts(strategy: Strategy, obj: Object) -> None:
    if strategy.status_counts:
        obj["status"] = dict.fromkeys(strategy.status_counts, 0) | (obj.get("status") or {})


def prepare_part_update(part: str) -> Callable[[Resource, Object, Object, Context], None]:
    """Return the preparation of an update through the subresource `part`, which the kind's strategy describes."""

    def prepare(resource: Resource, new: Object, old: Object, context: Context) -> None:
        keep_system_fields(new, old)
        change, check = resource.strategy.parts[part]
        change(new, old, context)
        if resource.strategy.has_generation and new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] = (old["metadata"].get("generation") or 0) + 1
        _raise_if(resource, new, validate_object_meta_update(new, old) + _metadata_causes(resource, new) + check(new, old))

    return prepare


def keep_system_fields(new: Object, old: Object) -> None:
    """Overwrite in `new` the metadata that only the server writes."""
    metadata = new["metadata"]
    for field in _KEPT_ON_UPDATE:
        _take(metadata, old["metadata"], field)
    metadata.pop("selfLink", None)


def is_same(new: Object, old: Object) -> bool:
    """Whether an update changes nothing, so that it must not be written. Neither resourceVersion nor the time of an ownership counts.

    Ownership without its times, too, is part of the object: who takes a field over is remembered.
    """
    first = dict(new, metadata={key: value for key, value in new["metadata"].items() if key not in _COMPARED_APART})
    second = dict(old, metadata={key: value for key, value in old["metadata"].items() if key not in _COMPARED_APART})
    if first != second:
        return False
    if orjson.dumps(new["metadata"].get("managedFields")) == orjson.dumps(old["metadata"].get("managedFields")):
        return True
    mine, theirs = managers_of(new), managers_of(old)
    return mine == theirs or [dict(one, time="") for one in mine] == [dict(one, time="") for one in theirs]


def is_finished(obj: Object, finalizers_of_spec: bool) -> bool:
    """Whether a deleted object has nobody left who wants it: no finalizers, and no grace period running."""
    metadata = obj["metadata"]
    if not metadata.get("deletionTimestamp") or metadata.get("finalizers"):
        return False
    if finalizers_of_spec:
        return not (obj.get("spec") or {}).get("finalizers")
    return not metadata.get("deletionGracePeriodSeconds")


def _take(into: Object, source: Object, field: str) -> None:
    if field in source:
        into[field] = source[field]
    else:
        into.pop(field, None)


def _raise_if(resource: Resource, obj: Object, causes: list[Any]) -> None:
    if causes:
        metadata = obj["metadata"]
        raise Invalid(resource.group, resource.kind, metadata.get("name") or metadata.get("generateName") or "", causes)


def _metadata_causes(resource: Resource, obj: Object) -> list[Cause]:
    causes = validate_object_meta(obj, namespaced=resource.namespaced, validate_name=resource.strategy.validate_name)
    # Finalizers of custom kinds need no slash.
    return causes if resource.definitions is None else [one for one in causes if not one.message.endswith(UNQUALIFIED_FINALIZER)]
