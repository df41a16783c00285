"""What is served here: the documents by which clients find kinds, names, verbs and versions.

Two forms tell the same. The legacy form has one document each for versions, groups, a group, and the resources of a
group-version; the aggregated form (apidiscovery.k8s.io/v2, asked for by the Accept header) says everything in two answers, and is
what kubectl uses. All derive from the catalogue and are kept until it changes. Mirrors apiserver's endpoints/discovery.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from korch.apiserver.document import Answer, Document, GenerationCache, answer, encode
from korch.resources.resource import Catalogue, Resource, Subresource

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

# Groups in the order in which upstream lists them; groups that are not here follow in alphabetical order.
_GROUP_ORDER = (
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "flowcontrol.apiserver.k8s.io",
)
_VERSION = re.compile(r"v(\d+)(?:(alpha|beta)(\d+))?")
_STABILITY = {None: 2, "beta": 1, "alpha": 0}


def version_priority(version: str) -> tuple[int, int, int, str]:
    """Return a sort key that puts the most stable, then newest version last: v1alpha1 < v1beta1 < v1 < v2; others come first."""
    parsed = _VERSION.fullmatch(version)
    if parsed is None:
        return (-1, 0, 0, version)
    return (_STABILITY[parsed[2]], int(parsed[1]), int(parsed[3] or 0), version)


def storage_version_hash(group: str, version: str, kind: str) -> str:
    """Return the opaque hash by which clients notice a change of the stored form. Mirrors discovery.StorageVersionHash."""
    return base64.b64encode(hashlib.sha256(f"{group}/{version}/{kind}".encode()).digest()[:8]).decode()


def wants_aggregated(accept: str) -> bool:
    """Whether the Accept header prefers the aggregated form that this server has."""
    for item in accept.split(","):
        media_type, _, rest = item.strip().partition(";")
        parameters: dict[str, str] = {}
        for part in rest.split(";"):
            name, _, value = part.strip().partition("=")
            parameters[name] = value
        if media_type in ("application/json", "application/*", "*/*"):
            is_aggregated = parameters.get("as") == "APIGroupDiscoveryList"
            if not is_aggregated:
                return False
            if parameters.get("g") == "apidiscovery.k8s.io" and parameters.get("v") == "v2":
                return True
    return False


class RemoteApi(Protocol):
    """A group-version that another server serves."""

    group: str
    version: str

    @property
    def resources(self) -> Sequence[Mapping[str, Any]] | None:
        """The rows of its APIResourceList."""
        ...


def _no_remotes() -> Sequence[RemoteApi]:
    return ()


class Discovery:
    """The discovery documents of a catalogue and of what `remotes` serve.

    Methods take microseconds once a document is made, and never block.
    """

    def __init__(self, catalogue: Catalogue, remotes: Callable[[], Sequence[RemoteApi]] = _no_remotes) -> None:
        self._catalogue = catalogue
        self._remotes = remotes
        self._cache = GenerationCache()

    def answer(self, path: str, *, accept: str = "", if_none_match: str = "", server_address: str = "") -> Answer | None:
        """Return the response to a GET of `path`, or None when it is no discovery path or nothing is served under it.

        Paths: /api, /apis, /api/v1, /apis/GROUP and /apis/GROUP/VERSION. `server_address` (host:port) is what /api names.
        """
        parts = path.strip("/").split("/")
        if parts in (["api"], ["apis"]) and wants_aggregated(accept):
            document = self.aggregated(is_core=parts == ["api"])
            return answer(document, if_none_match=if_none_match, cache_control="public")
        found: Document | None = None
        if parts == ["api"]:
            found = self.api_versions(server_address)
        elif parts == ["apis"]:
            found = self.group_list()
        elif len(parts) == 2 and parts[0] == "apis":
            found = self.group(parts[1])
        elif len(parts) == 2 and parts[0] == "api":
            found = self.resource_list("", parts[1])
        elif len(parts) == 3 and parts[0] == "apis":
            found = self.resource_list(parts[1], parts[2])
        return answer(found, if_none_match=if_none_match) if found else None

    def api_versions(self, server_address: str) -> Document:
        """Return /api: APIVersions."""

        def make() -> Document:
            addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}]
            versions = self._versions().get("", [])
            return encode({"kind": "APIVersions", "versions": versions, "serverAddressByClientCIDRs": addresses})

        return self._cached(("api", server_address), make)

    def group_list(self) -> Document:
        """Return /apis: APIGroupList."""

        def make() -> Document:
            groups = [_group(name, versions) for name, versions in self._versions().items() if name]
            return encode({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})

        return self._cached(("apis",), make)

    def group(self, group: str) -> Document | None:
        """Return /apis/GROUP: APIGroup, or None when it is not served."""
        versions = self._versions().get(group)
        if not group or not versions:
            return None
        return self._cached(("apis", group), lambda: encode({"kind": "APIGroup", "apiVersion": "v1", **_group(group, versions)}))

    def resource_list(self, group: str, version: str) -> Document | None:
        """Return /api/v1 or /apis/GROUP/VERSION: APIResourceList, or None when it is not served."""
        served = self._served(group, version)
        if not served:
            return None

        def make() -> Document:
            rows = [row for resource in served for row in _legacy_rows(resource)]
            head: dict[str, Any] = {"kind": "APIResourceList", "apiVersion": "v1"} if group else {"kind": "APIResourceList"}
            return encode({**head, "groupVersion": f"{group}/{version}" if group else version, "resources": rows})

        return self._cached(("resources", group, version), make)

    def aggregated(self, *, is_core: bool) -> Document:
        """Return the APIGroupDiscoveryList of /api (the core group) or of /apis (all others)."""

        def make() -> Document:
            items = [self._aggregated_group(group, versions) for group, versions in self._versions().items() if (group == "") == is_core]
            head = {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}}
            return encode({**head, "items": items}, AGGREGATED)

        return self._cached(("aggregated", is_core), make)

    def _aggregated_group(self, group: str, versions: list[str]) -> dict[str, Any]:
        def of(version: str) -> dict[str, Any]:
            rows = [_aggregated_row(resource) for resource in self._served(group, version)]
            for remote in self._remotes():
                if (remote.group, remote.version) == (group, version):
                    rows += _aggregated_rows(remote.resources or ())
            return {"version": version, "resources": rows, "freshness": "Current"}

        return {"metadata": {"name": group} if group else {}, "versions": [of(version) for version in versions]}

    def _cached(self, key: tuple[object, ...], make: Any) -> Document:
        return self._cache.get(self._catalogue.generation, key, make)

    def _served(self, group: str, version: str) -> list[Resource]:
        found = (one for one in self._catalogue.all() if one.group == group and one.version == version)
        return sorted(found, key=lambda one: one.plural)

    def _versions(self) -> dict[str, list[str]]:
        """Return the versions of every group, the preferred one first, groups in the order in which they are listed."""
        found: dict[str, set[str]] = {}
        for one in self._catalogue.all():
            found.setdefault(one.group, set()).add(one.version)
        for one in self._remotes():
            found.setdefault(one.group, set()).add(one.version)
        return {group: sorted(found[group], key=version_priority, reverse=True) for group in sorted_groups(found)}


def sorted_groups(groups: Iterable[str]) -> list[str]:
    """Return group names in the order in which discovery lists them."""
    place = {name: position for position, name in enumerate(_GROUP_ORDER)}
    return sorted(groups, key=lambda name: (place.get(name, len(place)), name))


def _group(name: str, versions: list[str]) -> dict[str, Any]:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _legacy_rows(resource: Resource) -> list[dict[str, Any]]:
    row: dict[str, Any] = {
        "name": resource.plural,
        "singularName": resource.singular or resource.kind.lower(),
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        row["shortNames"] = list(resource.short_names)
    if resource.categories:
        row["categories"] = list(resource.categories)
    if not resource.is_virtual:
        group = resource.group if resource.storage is None else resource.storage[0]
        row["storageVersionHash"] = storage_version_hash(group, resource.version, resource.kind)
    return [row, *(_legacy_subresource(resource, one) for one in sorted(resource.subresources, key=lambda one: one.name))]


def _legacy_subresource(resource: Resource, subresource: Subresource) -> dict[str, Any]:
    row: dict[str, Any] = {"name": f"{resource.plural}/{subresource.name}", "singularName": "", "namespaced": resource.namespaced}
    if subresource.version:
        row |= {"group": subresource.group, "version": subresource.version}
    return row | {"kind": subresource.kind or resource.kind, "verbs": list(subresource.verbs)}


def _aggregated_row(resource: Resource) -> dict[str, Any]:
    row: dict[str, Any] = {
        "resource": resource.plural,
        # Empty group and version mean those of the list.
        "responseKind": {"group": "", "version": "", "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular or resource.kind.lower(),
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        row["shortNames"] = list(resource.short_names)
    if resource.categories:
        row["categories"] = list(resource.categories)
    if resource.subresources:
        row["subresources"] = [
            {
                "subresource": one.name,
                "responseKind": {"group": one.group, "version": one.version, "kind": one.kind or resource.kind},
                "verbs": list(one.verbs),
            }
            for one in sorted(resource.subresources, key=lambda one: one.name)
        ]
    return row


def _aggregated_rows(resources: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of an APIResourceList in the aggregated form, subresources inside their parents."""
    rows: dict[str, dict[str, Any]] = {}
    for one in resources:
        name, _, below = str(one.get("name") or "").partition("/")
        kind = {"group": one.get("group") or "", "version": one.get("version") or "", "kind": one.get("kind") or ""}
        if not below:
            rows[name] = {
                "resource": name,
                "responseKind": kind,
                "scope": "Namespaced" if one.get("namespaced") else "Cluster",
                "singularResource": one.get("singularName") or "",
                "verbs": one.get("verbs") or [],
            } | {key: one[key] for key in ("shortNames", "categories") if one.get(key)}
        elif name in rows:
            inner = {"subresource": below, "responseKind": kind, "verbs": one.get("verbs") or []}
            rows[name].setdefault("subresources", []).append(inner)
    return list(rows.values())
