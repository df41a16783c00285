"""Which objects a controller owns: those whose controller reference names it and whose labels its selector matches.

An owned object that is no longer selected is released (its reference removed); a selected one that nobody controls is adopted.
The decision is a pure function; both changes are merge patches bound to the resourceVersion they were decided on, so a race with
another controller ends in a Conflict and a new look. Before the first adoption the owner is read live: a controller must not adopt for
an owner that is gone or being deleted. Mirrors upstream pkg/controller/controller_ref_manager.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from korch.api.errors import NotFound
from korch.api.gvk import ResourceRef
from korch.api.meta import at, controller_of, is_deleting, labels_of, name_of, namespace_of, owner_reference, owner_references, uid_of
from korch.client.informer import Informer
from korch.client.protocol import Client

Object = dict[str, Any]
Matches = Callable[[dict[str, str]], bool]

CONTROLLED = "controller"
ORPHANS = "orphans"
NAMESPACE = "namespace"


@dataclass(frozen=True, slots=True)
class Claims:
    """The outcome of looking at candidates: already ours, to be adopted, to be released."""

    owned: list[Object] = field(default_factory=list)
    to_adopt: list[Object] = field(default_factory=list)
    to_release: list[Object] = field(default_factory=list)


def plan_claims(owner: Object, candidates: Sequence[Object], matches: Matches) -> Claims:
    """Sort `candidates` into claims. An owner being deleted neither adopts nor releases, and nothing that is being deleted is adopted."""
    claims = Claims()
    owner_is_ending = is_deleting(owner)
    for one in candidates:
        controller = controller_of(one)
        if controller is not None:
            if controller.get("uid") != uid_of(owner):
                continue
            if matches(labels_of(one)):
                claims.owned.append(one)
            elif not owner_is_ending:
                claims.to_release.append(one)
        elif not owner_is_ending and not is_deleting(one) and matches(labels_of(one)):
            claims.to_adopt.append(one)
    return claims


def _controller_uids(obj: Object) -> list[str]:
    controller = controller_of(obj)
    return [controller["uid"]] if controller is not None else []


def _orphan_namespaces(obj: Object) -> list[str]:
    return [namespace_of(obj)] if controller_of(obj) is None else []


def _namespaces(obj: Object) -> list[str]:
    return [namespace_of(obj)]


# What the readers below need on an informer of dict objects; the same functions everywhere, since informers are shared.
OWNER_INDEXES: Mapping[str, Callable[[Any], Iterable[str]]] = {
    CONTROLLED: _controller_uids,
    ORPHANS: _orphan_namespaces,
    NAMESPACE: _namespaces,
}


def candidates(informer: Informer[Any], owner: Object) -> list[Object]:
    """Return what `owner` controls and what nobody controls in its namespace."""
    return [*informer.by_index(CONTROLLED, uid_of(owner)), *informer.by_index(ORPHANS, namespace_of(owner))]


def controlled(informer: Informer[Any], owner: Object) -> list[Object]:
    """Return what `owner` controls, selected or not."""
    return list(informer.by_index(CONTROLLED, uid_of(owner)))


async def claim(
    client: Client,
    owner: Object,
    owner_kind: ResourceRef,
    found: Sequence[Object],
    kind: ResourceRef,
    *,
    matches: Matches,
    wrote: Callable[[ResourceRef, bytes], None],
) -> list[Object]:
    """Return the objects of `found` that belong to `owner`, after adopting and releasing. `wrote` is told of every written object.

    Raises Conflict when somebody else changed an object or the owner meanwhile: try again after the informers caught up.
    """
    claims = plan_claims(owner, found, matches)
    if claims.to_adopt:
        await _check_owner_lives(client, owner, owner_kind)
    owned = list(claims.owned)
    for one in claims.to_adopt:
        reference = owner_reference(owner, owner_kind.kind, owner_kind.api_version)
        adopted = await _set_owners(client, kind, one, [*owner_references(one), reference], wrote)
        if adopted is not None:
            owned.append(adopted)
    for one in claims.to_release:
        kept = [reference for reference in owner_references(one) if reference.get("uid") != uid_of(owner)]
        await _set_owners(client, kind, one, kept, wrote)
    return owned


async def _check_owner_lives(client: Client, owner: Object, owner_kind: ResourceRef) -> None:
    live = orjson.loads(await client.get(owner_kind, name_of(owner), namespace=namespace_of(owner)))
    if uid_of(live) != uid_of(owner) or is_deleting(live):
        raise NotFound(owner_kind.group, owner_kind.plural, name_of(owner))


async def _set_owners(
    client: Client, kind: ResourceRef, obj: Object, owners: list[Object], wrote: Callable[[ResourceRef, bytes], None]
) -> Object | None:
    metadata = {"uid": uid_of(obj), "resourceVersion": at(obj, "metadata", "resourceVersion"), "ownerReferences": owners or None}
    try:
        stored = await client.patch(kind, name_of(obj), {"metadata": metadata}, namespace=namespace_of(obj), patch_type="merge")
    except NotFound:
        return None
    wrote(kind, stored)
    return orjson.loads(stored)
