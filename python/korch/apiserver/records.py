"""Objects of a kind in the store: their bytes in the kind's own form, and the operations that write them.

A kind whose objects are stored in another kind's form (events.k8s.io) is converted here and nowhere else; all others
pass through untouched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from korch.apiserver.conversion import NeedsConversion
from korch.apiserver.encoding import dump, encode
from korch.resources.resource import Resource
from korch.storage import Storage

if TYPE_CHECKING:
    from korch._core._native import Op

Object = dict[str, Any]


def to_kind(resource: Resource, value: bytes) -> bytes:
    """Return stored bytes in the kind's form."""
    if resource.present is not None:
        return resource.present(value)
    if resource.storage is None:
        return value
    return dump(load(resource, value))


def to_kinds(resource: Resource, values: Sequence[bytes]) -> list[bytes]:
    """Return many stored values in the kind's form. Raises NeedsConversion once for all that nobody has converted yet."""
    if resource.present is None:
        return list(values) if resource.storage is None else [to_kind(resource, value) for value in values]
    found: list[bytes] = []
    missing: list[NeedsConversion] = []
    for value in values:
        try:
            found.append(resource.present(value))
        except NeedsConversion as need:
            missing.append(need)
    if missing:
        raise NeedsConversion.all_of(missing)
    return found


def load(resource: Resource, value: bytes) -> Object:
    """Return stored bytes as an object in the kind's form."""
    obj: Object = orjson.loads(value)
    if resource.storage is not None:
        resource.from_storage(obj)
    return obj


def attributes(
    resource: Resource, obj: Object, selectable: Mapping[str, str] | None = None
) -> tuple[dict[str, str], dict[str, str], Sequence[str]]:
    """Return what the store indexes of an object: labels, fields (metadata.name and namespace among them) and owners' uids.

    `selectable` are the kind's own fields, where they are known already.
    """
    metadata = obj["metadata"]
    fields = {"metadata.name": metadata["name"]}
    if resource.namespaced:
        fields["metadata.namespace"] = metadata.get("namespace") or ""
    if selectable is not None:
        fields.update(selectable)
    else:
        for label, read in resource.selectable_fields.items():
            fields[label] = read(obj)
    owners = [one["uid"] for one in metadata.get("ownerReferences") or [] if one.get("uid")]
    return dict(metadata.get("labels") or {}), fields, owners


class Records:
    """Reads objects from the store and makes the operations that write them."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def read(self, resource: Resource, namespace: str, name: str) -> tuple[bytes, int] | None:
        """Return the object's bytes in the kind's form and its revision, None when there is none."""
        record = self.storage.get(resource.key(namespace, name))
        if record is None:
            return None
        return to_kind(resource, record.value), record.mod_revision

    def is_outdated(self, resource: Resource, obj: Object) -> bool:
        """Return whether an object that did not change would be stored in another form than it is in."""
        if resource.is_outdated is None:
            return False
        record = self.storage.get(resource.key(obj["metadata"].get("namespace") or "", obj["metadata"]["name"]))
        return record is not None and resource.is_outdated(record.value)

    def put(self, resource: Resource, obj: Object, expected: int, selectable: Mapping[str, str] | None = None) -> Op:
        """Return the operation that stores `obj`, provided that its key is at revision `expected` (0: that it is free).

        Takes `obj` over when the kind is stored in another's form. `selectable` as of `attributes`.
        """
        metadata = obj["metadata"]
        key = resource.key(metadata.get("namespace") or "", metadata["name"])
        if resource.storage is not None:
            resource.to_storage(obj)
        value, splice_at = encode(obj)
        labels, fields, owners = attributes(resource, obj, selectable)
        return key, value, expected, splice_at, labels, fields, owners

    def delete(self, resource: Resource, obj: Object, expected: int) -> Op:
        """Return the operation that removes `obj`, provided that it is at revision `expected`."""
        metadata = obj["metadata"]
        return resource.key(metadata.get("namespace") or "", metadata["name"]), None, expected, -1, {}, {}, ()
