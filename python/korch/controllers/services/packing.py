"""Distributing endpoints over EndpointSlices with few writes: what is there stays where it is, the rest fills the gaps.

Slices of one address family and one set of ports form a group. Within it an endpoint keeps its slice; endpoints without a place go into
slices that must be written anyway, then into any with room, then into new ones; slices that end up empty are deleted.
Mirrors k8s.io/endpointslice reconciler, reconcileByPortMapping.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from korch.api.meta import at, labels_of, name_of, namespace_of

Object = dict[str, Any]

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
SERVICE_NAME = "kubernetes.io/service-name"


def keys_of_slices(manager: str) -> Callable[[Object], Iterable[str]]:
    """Return what maps a slice to its Service (namespace/name), when `manager` made it; any other to nothing."""

    def keys(one: Object) -> Iterable[str]:
        labels = labels_of(one)
        if labels.get(MANAGED_BY) != manager or not labels.get(SERVICE_NAME):
            return ()
        return (f"{namespace_of(one)}/{labels[SERVICE_NAME]}",)

    return keys


@dataclass(frozen=True, slots=True)
class Group:
    """The slices that may hold the same endpoints: one address family, one list of ports."""

    family: str
    ports: tuple[bytes, ...]

    def port_list(self) -> list[Object]:
        return [orjson.loads(one) for one in self.ports]


def group_for(family: str, ports: Sequence[Object]) -> Group:
    """Return the group of endpoints that answer on `ports`; the order of the ports does not matter."""
    return Group(family, tuple(sorted(orjson.dumps(_plain(one), option=orjson.OPT_SORT_KEYS) for one in ports)))


def _plain(port: Object) -> Object:
    return {key: value for key, value in port.items() if value not in (None, "")} | {"name": port.get("name") or ""}


@dataclass(slots=True)
class Packing:
    """What is to be written: new endpoint lists for existing slices (by name), lists for new slices, slices to delete."""

    updates: dict[str, list[Object]] = field(default_factory=dict)
    creates: list[tuple[Group, list[Object]]] = field(default_factory=list)
    deletes: list[str] = field(default_factory=list)


def pack(wanted: Mapping[Group, Sequence[Object]], slices: Sequence[Object], limit: int) -> Packing:
    """Return how to get from the present `slices` to the `wanted` endpoints with at most `limit` endpoints a slice.

    A group that is wanted without endpoints is shown by one empty slice (the placeholder of a Service without pods).
    """
    packing = Packing()
    present: dict[Group, list[Object]] = {group: [] for group in wanted}
    for one in sorted(slices, key=name_of):
        group = group_for(one.get("addressType", ""), one.get("ports") or [])
        if group in present:
            present[group].append(one)
        else:
            packing.deletes.append(name_of(one))
    for group, endpoints in wanted.items():
        _pack_group(packing, group, {_identity(one): one for one in endpoints}, present[group], limit)
    return packing


def _pack_group(packing: Packing, group: Group, unplaced: dict[str, Object], slices: Sequence[Object], limit: int) -> None:
    wants_placeholder = not unplaced
    before = {name_of(one): list(one.get("endpoints") or []) for one in slices}
    after: dict[str, list[Object]] = {}
    for name, endpoints in before.items():
        # pop: an endpoint that two slices hold (a create whose answer was lost) stays in the first only.
        kept = [unplaced.pop(identity) for one in endpoints if (identity := _identity(one)) in unplaced]
        after[name] = kept[:limit]
        unplaced.update({_identity(one): one for one in kept[limit:]})
    rest = list(unplaced.values())
    changed = sorted((name for name in after if after[name] != before[name]), key=lambda name: -len(after[name]))
    settled = sorted((name for name in after if after[name] == before[name]), key=lambda name: -len(after[name]))
    for name in [*changed, *settled]:
        if not rest:
            break
        room = limit - len(after[name])
        after[name] += rest[:room]
        rest = rest[room:]
    for start in range(0, len(rest), limit):
        packing.creates.append((group, rest[start : start + limit]))
    empty = [name for name, endpoints in after.items() if not endpoints]
    if wants_placeholder:
        if not after:
            packing.creates.append((group, []))
        else:
            empty.remove(placeholder := next((name for name in after if not before[name]), next(iter(after))))
            if before[placeholder]:
                packing.updates[placeholder] = []
    packing.deletes += empty
    packing.updates.update({name: endpoints for name, endpoints in after.items() if endpoints and endpoints != before[name]})


def _identity(endpoint: Object) -> str:
    uid = at(endpoint, "targetRef", "uid") or ""
    return f"{uid}/{','.join(endpoint.get('addresses') or ())}"
