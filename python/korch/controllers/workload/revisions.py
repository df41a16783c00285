"""The history of a DaemonSet's or StatefulSet's template, kept as ControllerRevisions that `kubectl rollout history` and `undo` read.

A revision's data is a strategic merge patch that puts the template back. The revision of the present template is found by
comparing data, never remembered; a rollback gives an old revision the highest number again. Mirrors pkg/controller/history.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import orjson

from korch.api.errors import AlreadyExists, NotFound
from korch.api.gvk import CONTROLLER_REVISIONS
from korch.api.meta import annotations_of, at, labels_of, name_of, namespace_of, uid_of
from korch.client.protocol import DeleteOptions
from korch.controllers.workload.controller import WorkloadController, decode_object
from korch.controllers.workload.hashing import fnv32a, safe_encode

Object = dict[str, Any]

HASH_LABEL = "controller-revision-hash"
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def template_patch(template: Object) -> Object:
    """Return the data of a revision: the patch that replaces an owner's template by this one."""
    return {"spec": {"template": {**template, "$patch": "replace"}}}


def revision_name(owner: Object, data: Object) -> tuple[str, str]:
    """Return (name, hash) of the revision that holds `data`; another hash after a collision."""
    text = orjson.dumps(data, option=orjson.OPT_SORT_KEYS)
    collisions = at(owner, "status", "collisionCount")
    if collisions:
        text += str(collisions).encode()
    suffix = safe_encode(str(fnv32a(text)))
    return f"{name_of(owner)}-{suffix}", suffix


def hash_of(revision: Object) -> str:
    """Return what pods of this revision carry in the label controller-revision-hash."""
    return labels_of(revision).get(HASH_LABEL, "")


def by_revision(revisions: Sequence[Object]) -> list[Object]:
    """Return the revisions, lowest number first, ties by age and name."""
    return sorted(revisions, key=lambda one: (one.get("revision", 0), at(one, "metadata", "creationTimestamp") or "", name_of(one)))


def template_of(owner: Object, revision: Object) -> Object:
    """Return the pod template that the revision holds."""
    held = at(revision, "data", "spec", "template") or owner["spec"]["template"]
    return {key: value for key, value in held.items() if key != "$patch"}


def surplus(revisions: Sequence[Object], live: Collection[str], limit: int) -> list[Object]:
    """Return revisions beyond the history limit, lowest first; those named in `live` (by hash) do not count and stay."""
    idle = [one for one in by_revision(revisions) if hash_of(one) not in live]
    return idle[: len(idle) - limit] if len(idle) > limit else []


async def current_revision(controller: WorkloadController, key: str, owner: Object, revisions: Sequence[Object]) -> Object | None:
    """Return the revision of the owner's present template, made or renumbered when needed; None when its name is taken by another
    template (the collision is then counted in the status, and the next turn tries another name)."""
    data = template_patch(owner["spec"]["template"])
    ordered = by_revision(revisions)
    highest = ordered[-1].get("revision", 0) if ordered else 0
    equal = [one for one in ordered if one.get("data") == data]
    if equal:
        found = equal[-1]
        if found.get("revision", 0) == highest:
            return found
        body = {"metadata": {"resourceVersion": at(found, "metadata", "resourceVersion")}, "revision": highest + 1}
        stored = await controller.client.patch(CONTROLLER_REVISIONS, name_of(found), body, namespace=namespace_of(owner))
        controller.wrote(key, CONTROLLER_REVISIONS, stored)
        return decode_object(stored)
    return await _create(controller, key, owner, data, highest + 1)


async def _create(controller: WorkloadController, key: str, owner: Object, data: Object, number: int) -> Object | None:
    name, suffix = revision_name(owner, data)
    template = owner["spec"]["template"]
    annotations = {key: value for key, value in annotations_of(owner).items() if key != _LAST_APPLIED}
    body = {
        "apiVersion": CONTROLLER_REVISIONS.api_version,
        "kind": CONTROLLER_REVISIONS.kind,
        "metadata": {
            "name": name,
            "namespace": namespace_of(owner),
            "labels": {**(at(template, "metadata", "labels") or {}), HASH_LABEL: suffix},
            "annotations": annotations,
            "ownerReferences": [controller.reference_to(owner)],
        },
        "data": data,
        "revision": number,
    }
    try:
        stored = await controller.client.create(CONTROLLER_REVISIONS, body, namespace=namespace_of(owner))
    except AlreadyExists:
        stored = await controller.client.get(CONTROLLER_REVISIONS, name, namespace=namespace_of(owner))
        found = decode_object(stored)
        if found.get("data") != data:
            status = dict(owner.get("status") or {})
            status["collisionCount"] = status.get("collisionCount", 0) + 1
            await controller.put_status(key, owner, status)
            return None
        controller.wrote(key, CONTROLLER_REVISIONS, stored)
        return found
    controller.wrote(key, CONTROLLER_REVISIONS, stored)
    return decode_object(stored)


async def clean_up(controller: WorkloadController, owner: Object, revisions: Sequence[Object], live: Collection[str]) -> None:
    """Delete revisions beyond the owner's revisionHistoryLimit (10 when it does not say)."""
    limit = at(owner, "spec", "revisionHistoryLimit")
    for one in surplus(revisions, live, 10 if limit is None else limit):
        try:
            options = DeleteOptions(uid=uid_of(one))
            await controller.client.delete(CONTROLLER_REVISIONS, name_of(one), namespace=namespace_of(one), options=options)
        except NotFound:
            continue
