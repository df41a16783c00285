"""Which kinds the API serves, learned from its discovery documents: custom kinds come and go while the cluster runs."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from korch.api.errors import ApiError
from korch.api.gvk import ResourceRef
from korch.client.projections import decoder
from korch.client.protocol import Client


class _Listed(msgspec.Struct, frozen=True):
    name: str = ""
    kind: str = ""
    namespaced: bool = False
    verbs: list[str] = []


class _ResourceList(msgspec.Struct, frozen=True):
    resources: list[_Listed] = []


class _Version(msgspec.Struct, frozen=True):
    groupVersion: str = ""
    version: str = ""


class _Group(msgspec.Struct, frozen=True):
    name: str = ""
    versions: list[_Version] = []
    preferredVersion: _Version = _Version()


class _GroupList(msgspec.Struct, frozen=True):
    groups: list[_Group] = []


_decode_resources = decoder(_ResourceList)
_decode_groups = decoder(_GroupList)


@dataclass(frozen=True, slots=True)
class ServedKind:
    """One collection and what may be done with it."""

    ref: ResourceRef
    verbs: frozenset[str]


@dataclass(frozen=True, slots=True)
class Served:
    """Every kind in its group's preferred version, sorted; `failures` maps group versions that could not be read to why."""

    kinds: list[ServedKind] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    def find(self, api_version: str, kind: str) -> ResourceRef | None:
        """Return the collection of an object's apiVersion and kind; the version may be another than the preferred one."""
        group = api_version.rpartition("/")[0]
        return next((one.ref for one in self.kinds if one.ref.group == group and one.ref.kind == kind), None)


async def discover(client: Client) -> Served:
    """Read the discovery documents. A group that cannot be read is reported; a server that cannot be reached raises ConnectionError."""
    served = Served()
    groups = _decode_groups(await client.raw("GET", "/apis")).groups
    paths = [("", "v1", "/api/v1")] + [
        (one.name, one.preferredVersion.version, f"/apis/{one.preferredVersion.groupVersion}") for one in groups
    ]
    for group, version, path in paths:
        try:
            listed = _decode_resources(await client.raw("GET", path)).resources
        except ApiError as error:
            served.failures[f"{group}/{version}" if group else version] = error.message
            continue
        for one in listed:
            if "/" not in one.name:
                served.kinds.append(ServedKind(ResourceRef(group, version, one.name, one.kind, one.namespaced), frozenset(one.verbs)))
    served.kinds.sort(key=lambda one: (one.ref.group, one.ref.plural))
    return served
