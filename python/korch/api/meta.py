"""Reading and making `metadata`: keys, owners, labels, and safe access to nested fields of plain dict objects.

Objects are dicts in which any optional part may be missing or null, so every reader here treats both alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]


def at(obj: Mapping[str, Any] | None, *path: str) -> Any:
    """Return the value at `path`, or None when any step is missing, null or not a map."""
    found: Any = obj
    for step in path:
        # Nearly all are dicts, and asking for the abstract type costs ten times as much.
        if not isinstance(found, dict) and not isinstance(found, Mapping):
            return None
        found = found.get(step)
    return found


def name_of(obj: Mapping[str, Any]) -> str:
    return at(obj, "metadata", "name") or ""


def namespace_of(obj: Mapping[str, Any]) -> str:
    """Return the namespace, empty for cluster-scoped objects."""
    return at(obj, "metadata", "namespace") or ""


def uid_of(obj: Mapping[str, Any]) -> str:
    return at(obj, "metadata", "uid") or ""


def key_of(obj: Mapping[str, Any]) -> str:
    """Return `namespace/name`, or `name` alone for cluster-scoped objects: the key of work queues and log lines."""
    namespace = namespace_of(obj)
    return f"{namespace}/{name_of(obj)}" if namespace else name_of(obj)


def split_key(key: str) -> tuple[str, str]:
    """Return (namespace, name) of a key made by `key_of`; the namespace is empty for cluster-scoped objects."""
    namespace, _, name = key.rpartition("/")
    return namespace, name


def labels_of(obj: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels, empty when there are none. The dict may be the object's own: do not change it."""
    return at(obj, "metadata", "labels") or {}


def annotations_of(obj: Mapping[str, Any]) -> dict[str, str]:
    """Return the annotations, empty when there are none. The dict may be the object's own: do not change it."""
    return at(obj, "metadata", "annotations") or {}


def is_deleting(obj: Mapping[str, Any]) -> bool:
    """Whether deletion has begun: metadata.deletionTimestamp is set."""
    return bool(at(obj, "metadata", "deletionTimestamp"))


def owner_references(obj: Mapping[str, Any]) -> list[Object]:
    return at(obj, "metadata", "ownerReferences") or []


def controller_of(obj: Mapping[str, Any]) -> Object | None:
    """Return the owner reference whose `controller` is true, or None. Mirrors metav1.GetControllerOf."""
    for reference in owner_references(obj):
        if reference.get("controller"):
            return reference
    return None


def is_controlled_by(obj: Mapping[str, Any], owner: Mapping[str, Any]) -> bool:
    """Whether `owner` (by uid) is the controller of `obj`. Mirrors metav1.IsControlledBy."""
    reference = controller_of(obj)
    return reference is not None and reference.get("uid") == uid_of(owner)


def owner_reference(owner: Mapping[str, Any], kind: str, api_version: str, *, is_controller: bool = True) -> Object:
    """Return a reference to `owner` for an object that it makes; deletion of the owner then waits for the object.

    Kind and version are arguments because items of a list carry neither. Mirrors metav1.NewControllerRef.
    """
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": name_of(owner),
        "uid": uid_of(owner),
        "controller": is_controller,
        "blockOwnerDeletion": True,
    }


def object_reference(obj: Mapping[str, Any], kind: str = "", api_version: str = "") -> Object:
    """Return a core/v1 ObjectReference to `obj`, as events carry it; `kind` and `api_version` stand in when `obj` lacks them."""
    reference = {
        "kind": obj.get("kind") or kind,
        "namespace": namespace_of(obj),
        "name": name_of(obj),
        "uid": uid_of(obj),
        "apiVersion": obj.get("apiVersion") or api_version,
        "resourceVersion": at(obj, "metadata", "resourceVersion") or "",
    }
    return {key: value for key, value in reference.items() if value}
