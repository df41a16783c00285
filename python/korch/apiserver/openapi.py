"""The published schema of everything that is served: OpenAPI v3, one document a group-version, and v2, all in one.

`kubectl explain`, client-side validation and client-side apply read these. They are big and seldom asked for, so each document is
made on its first request and kept until the catalogue changes. The v3 root names every document with a hash that is computed from
the declarations alone, so that listing them builds none. v2 is served as JSON and as protobuf, as the client prefers; v3 as JSON.
Mirrors kube-openapi's handler and handler3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import parse_qs

import orjson

from korch.apiserver import openapi_v2_protobuf
from korch.apiserver.discovery import RemoteApi
from korch.apiserver.document import JSON, Answer, Document, GenerationCache, answer, encode, hashed
from korch.apiserver.negotiation import media_types
from korch.apiserver.openapi_paths import DELETE_OPTIONS, PATCH, STATUS, paths_of, to_v2
from korch.resources.resource import Catalogue, Resource

Json = dict[str, Any]
_INFO = {"title": "Kubernetes", "version": "v1.37.0"}
_V2_REFERENCE, _V3_REFERENCE = "#/definitions/", "#/components/schemas/"
_SCHEMA_VALUED = ("items", "additionalProperties", "not")
_JSON_RANGES = frozenset({JSON, "application/*", "*/*"})
_ALWAYS = (DELETE_OPTIONS, PATCH, STATUS, "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent")
_GVK = "x-kubernetes-group-version-kind"

# In v3 these two say that they are either of two types; v2 has no way to.
_EITHER = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"oneOf": [{"type": "string"}, {"type": "number"}]},
}
# Defaults of list-map keys: without them a client cannot tell two entries apart as the server does.
_KEY_DEFAULTS = {("io.k8s.api.core.v1.ContainerPort", "protocol"): "TCP", ("io.k8s.api.core.v1.ServicePort", "protocol"): "TCP"}


def built_in_definitions() -> Json:
    """Return the definitions of all built-in kinds. Imported here, so that a server that nobody asks for schemas never reads them."""
    from korch.resources import openapi

    return openapi.definitions()


class OpenAPI:
    """The schema documents of a catalogue. The first request of a document takes up to some 100 ms of CPU; none awaits.

    `definitions` returns the OpenAPI v2 definitions by name; custom kinds are served when theirs are among them.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        definitions: Callable[[], Json] = built_in_definitions,
        remotes: Callable[[], Sequence[RemoteApi]] = lambda: (),
    ) -> None:
        self._catalogue = catalogue
        self._remotes = remotes
        self._definitions = definitions
        self._cache = GenerationCache()

    def answer(self, path: str, *, query: str = "", accept: str = "", if_none_match: str = "") -> Answer | None:
        """Return the response to a GET of `path` under /openapi, or None when nothing is there.

        A v3 document that is asked for by its present hash may be kept for ever; by another one, the answer is a redirect.
        """
        trimmed = path.rstrip("/")
        is_v2 = trimmed == "/openapi/v2"
        content_type = _preferred(accept, openapi_v2_protobuf.MEDIA_TYPES if is_v2 else frozenset())
        if content_type is None:
            return Answer(406, {"Content-Type": "text/plain; charset=utf-8", "Vary": "Accept"}, b"406 Not Acceptable")
        if is_v2:
            document = self.v2() if content_type == JSON else self.v2_protobuf()
            return answer(document, if_none_match=if_none_match)
        if trimmed == "/openapi/v3":
            return answer(self.v3_root(), if_none_match=if_none_match)
        if not trimmed.startswith("/openapi/v3/"):
            return None
        name = trimmed.removeprefix("/openapi/v3/")
        served = {_document_name(one): (one.group, one.version) for one in self._catalogue.all()}.get(name)
        if served is None:
            return None
        wanted, present = parse_qs(query).get("hash", [""])[0], self._hash(*served)
        if wanted and wanted != present:
            return Answer(301, {"Location": f"{trimmed}?hash={present}"})
        cache_control = "public, immutable, max-age=31536000" if wanted else "no-cache, private"
        document = Document(self.v3(*served).body, JSON, f'"{present}"')
        return answer(document, if_none_match=if_none_match, cache_control=cache_control)

    def v2(self) -> Document:
        """Return the one document of OpenAPI v2, as JSON."""
        return self._cache.get(self._catalogue.generation, "v2", lambda: encode(self._v2_value()))

    def v2_protobuf(self) -> Document:
        """Return the one document of OpenAPI v2, as gnostic's protobuf message."""

        def make() -> Document:
            return hashed(openapi_v2_protobuf.encode_document(self._v2_value()), openapi_v2_protobuf.CONTENT_TYPE)

        return self._cache.get(self._catalogue.generation, "v2 protobuf", make)

    def v3_root(self) -> Document:
        """Return the list of v3 documents, each with its hash."""

        def make() -> Document:
            served = {_document_name(one): (one.group, one.version) for one in self._catalogue.all()}
            listed = {
                name: {"serverRelativeURL": f"/openapi/v3/{name}?hash={self._hash(*group_version)}"}
                for name, group_version in sorted(served.items())
            }
            for one in self._remotes():
                # Their documents are their own affair, and so are the hashes.
                listed[f"apis/{one.group}/{one.version}"] = {"serverRelativeURL": f"/openapi/v3/apis/{one.group}/{one.version}"}
            return encode({"paths": listed})

        return self._cache.get(self._catalogue.generation, "v3", make)

    def v3(self, group: str, version: str) -> Document:
        """Return the v3 document of a group-version."""

        def make() -> Document:
            served = self._served(group, version)
            definitions = self._all_definitions(served, is_v3=True)
            paths, roots = self._paths(served, definitions)
            used = _closure(definitions, roots)
            schemas = {name: _definition_v3(name, definitions[name]) for name in sorted(used)}
            body = {"openapi": "3.0.0", "info": _INFO, "paths": dict(sorted(paths.items())), "components": {"schemas": schemas}}
            return encode(body)

        return self._cache.get(self._catalogue.generation, ("v3", group, version), make)

    def _v2_value(self) -> Json:
        served = self._catalogue.all()
        definitions = self._all_definitions(served, is_v3=False)
        paths, roots = self._paths(served, definitions)
        used = _closure(definitions, roots)
        return {
            "swagger": "2.0",
            "info": _INFO,
            "paths": {path: to_v2(item, _to_v2_reference) for path, item in sorted(paths.items())},
            "definitions": {name: definitions[name] for name in sorted(used)},
        }

    def _all_definitions(self, resources: Iterable[Resource], *, is_v3: bool) -> Json:
        """Return the definitions of built-in kinds and of the custom ones among `resources`, by name."""
        found = dict(self._definitions())
        for one in resources:
            if one.definitions is not None:
                found.update(one.definitions(is_v3))
        return found

    def _paths(self, resources: Iterable[Resource], definitions: Json) -> tuple[dict[str, Json], set[str]]:
        """Return the path items of `resources`, and the names of the definitions that they start from."""
        by_kind = _by_kind(definitions)
        roots: set[str] = set(_ALWAYS)
        paths: dict[str, Json] = {}

        def schema_of(group: str, version: str, kind: str) -> str | None:
            name = by_kind.get((group, version, kind))
            if name:
                roots.add(name)
            return name

        for resource in resources:
            roots.add(resource.schema)
            paths |= paths_of(resource, schema_of)
        return paths, roots & definitions.keys()

    def _served(self, group: str, version: str) -> list[Resource]:
        return [one for one in self._catalogue.all() if one.group == group and one.version == version]

    def _hash(self, group: str, version: str) -> str:
        declared: list[Any] = [_INFO["version"]]
        for one in sorted(self._served(group, version), key=lambda one: one.plural):
            inner = [(sub.name, sub.verbs, sub.group, sub.version, sub.kind) for sub in one.subresources]
            declared.append([one.plural, one.kind, one.schema, one.namespaced, one.verbs, inner])
            declared.append(one.fingerprint)
            if not one.schema.startswith("io.k8s."):
                declared.append(self._definitions().get(one.schema))
        return hashlib.sha256(orjson.dumps(declared)).hexdigest().upper()


def _document_name(resource: Resource) -> str:
    return f"apis/{resource.group}/{resource.version}" if resource.group else f"api/{resource.version}"


def _preferred(accept: str, protobuf: frozenset[str]) -> str | None:
    """Return JSON or the protobuf content type, whichever the Accept header names first of those served; None when it names neither."""
    if not accept.strip():
        return JSON
    for media_type in media_types(accept):
        if media_type in _JSON_RANGES:
            return JSON
        if media_type in protobuf:
            return openapi_v2_protobuf.CONTENT_TYPE
    return None


def _by_kind(definitions: Json) -> dict[tuple[str, str, str], str]:
    """Return the definition's name by (group, version, kind), for definitions that belong to one kind alone."""
    found: dict[tuple[str, str, str], str] = {}
    for name, schema in definitions.items():
        kinds = schema.get(_GVK) or ()
        if len(kinds) == 1:
            found[kinds[0]["group"], kinds[0]["version"], kinds[0]["kind"]] = name
    return found


def _closure(definitions: Json, roots: Iterable[str]) -> set[str]:
    """Return the names of `roots` and of all that they refer to."""
    found: set[str] = set()
    pending = list(roots)
    while pending:
        name = pending.pop()
        if name in found:
            continue
        found.add(name)
        pending += _references(definitions[name])
    return found


def _references(schema: Json) -> Iterable[str]:
    """Yield the definitions that a schema names. Keys of `properties` are names of fields, never keywords."""
    reference = schema.get("$ref")
    if isinstance(reference, str):
        yield reference.removeprefix(_V2_REFERENCE)
    for child in (schema.get("properties") or {}).values():
        yield from _references(child)
    for key in _SCHEMA_VALUED:
        if isinstance(schema.get(key), dict):
            yield from _references(schema[key])


def _definition_v3(name: str, schema: Json) -> Json:
    if name in _EITHER:
        return {"description": schema.get("description", ""), **_EITHER[name]}
    converted = _schema_v3(schema)
    for (owner, field), value in _KEY_DEFAULTS.items():
        if owner == name:
            converted["properties"][field] = converted["properties"][field] | {"default": value}
    return converted


def _schema_v3(schema: Json) -> Json:
    """Return a v2 schema in v3 form: a reference cannot have siblings, so it moves into `allOf`."""
    converted: Json = {}
    for key, value in schema.items():
        if key == "$ref":
            reference = {"$ref": _V3_REFERENCE + value.removeprefix(_V2_REFERENCE)}
            if len(schema) == 1:
                return reference
            converted["allOf"] = [reference]
        elif key == "properties":
            converted[key] = {name: _schema_v3(child) for name, child in value.items()}
        elif key in _SCHEMA_VALUED and isinstance(value, dict):
            converted[key] = _schema_v3(value)
        else:
            converted[key] = value
    return converted


def _to_v2_reference(schema: Json) -> Json:
    reference = schema.get("$ref")
    return {"$ref": _V2_REFERENCE + reference.removeprefix(_V3_REFERENCE)} if reference else schema
