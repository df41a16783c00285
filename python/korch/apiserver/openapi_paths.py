"""The `paths` of an OpenAPI document, generated from the catalogue: what may be done with each kind, and with what bodies.

Clients read three things here: the kind behind a path (`x-kubernetes-group-version-kind`), whether PATCH takes a strategic merge
patch (built-in kinds do, custom ones do not), and whether PATCH knows `fieldValidation` and `dryRun`. Operations are built once in
the OpenAPI v3 form; `to_v2` turns them into the older one. Mirrors apiserver's endpoints/installer.go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from korch.resources.resource import Resource, Subresource

Json = dict[str, Any]
# Returns the name of the definition for (group, version, kind), or None when it has none.
SchemaOf = Callable[[str, str, str], str | None]

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
STATUS, DELETE_OPTIONS, PATCH = _META + "Status", _META + "DeleteOptions", _META + "Patch"
_BUILT_IN = "io.k8s."
_READ_TYPES = ("application/json", "application/yaml")
_WATCH_TYPES = (*_READ_TYPES, "application/json;stream=watch")
_STRATEGIC = "application/strategic-merge-patch+json"
_PATCH_TYPES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    _STRATEGIC,
)
_STREAMS = frozenset({"attach", "exec", "portforward", "proxy"})

# verb -> (HTTP method, x-kubernetes-action, first word of the operationId)
_VERBS = {
    "list": ("get", "list", "list"),
    "create": ("post", "post", "create"),
    "deletecollection": ("delete", "deletecollection", "delete"),
    "get": ("get", "get", "read"),
    "update": ("put", "put", "replace"),
    "patch": ("patch", "patch", "patch"),
    "delete": ("delete", "delete", "delete"),
}
_CODES = {"create": ("200", "201", "202"), "update": ("200", "201"), "patch": ("200", "201"), "delete": ("200", "202")}
_CODE_WORDS = {"200": "OK", "201": "Created", "202": "Accepted"}
_COLLECTION_VERBS = ("list", "create", "deletecollection")
_OBJECT_VERBS = ("get", "update", "patch", "delete")


def _query(name: str, description: str, kind: str = "string") -> Json:
    return {"name": name, "in": "query", "description": description, "schema": {"type": kind, "uniqueItems": True}}


def _path(name: str, description: str) -> Json:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string", "uniqueItems": True}}


_PRETTY = _query("pretty", "If 'true', the output is indented for people.")
_DRY_RUN = _query("dryRun", "'All' goes through every stage of the request and stores nothing.")
_MANAGER = _query("fieldManager", "Name of the actor that makes the change.")
_VALIDATION = _query("fieldValidation", "What to do with unknown or duplicate fields: Ignore, Warn or Strict.")
_FORCE = _query("force", "Take over fields that other managers own; apply patches only.", "boolean")
_LIST_PARAMETERS = [
    _query("allowWatchBookmarks", "Whether a watch also sends BOOKMARK events.", "boolean"),
    _query("continue", "Where the last page of a list ended, as the server said."),
    _query("fieldSelector", "Which objects, by their fields."),
    _query("labelSelector", "Which objects, by their labels."),
    _query("limit", "How many objects a page of a list holds at most.", "integer"),
    _query("resourceVersion", "How old the answer may be."),
    _query("resourceVersionMatch", "How resourceVersion is meant for lists."),
    _query("sendInitialEvents", "Whether a watch starts with the present objects.", "boolean"),
    _query("timeoutSeconds", "When to end the call.", "integer"),
    _query("watch", "Stream changes instead of listing.", "boolean"),
]
_DELETE_PARAMETERS = [
    _DRY_RUN,
    _query("gracePeriodSeconds", "Seconds before the object is gone; 0 deletes at once.", "integer"),
    _query("propagationPolicy", "What becomes of dependents: Orphan, Background or Foreground."),
]
_PARAMETERS: dict[str, list[Json]] = {
    "list": _LIST_PARAMETERS,
    "create": [_DRY_RUN, _MANAGER, _VALIDATION],
    "deletecollection": [*_DELETE_PARAMETERS, *_LIST_PARAMETERS],
    "get": [],
    "update": [_DRY_RUN, _MANAGER, _VALIDATION],
    "patch": [_DRY_RUN, _MANAGER, _VALIDATION, _FORCE],
    "delete": _DELETE_PARAMETERS,
}


@dataclass(frozen=True, slots=True)
class _Body:
    """What an operation sends and receives: its kind, and the names of its definitions."""

    group: str
    version: str
    kind: str
    schema: str | None
    list_schema: str | None = None


def paths_of(resource: Resource, schema_of: SchemaOf) -> dict[str, Json]:
    """Return the v3 path items of one kind: its collections, its objects and their subresources."""
    body = _Body(
        resource.group,
        resource.version,
        resource.kind,
        resource.schema,
        schema_of(resource.group, resource.version, resource.list_name),
    )
    root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    scope = "/namespaces/{namespace}" if resource.namespaced else ""
    found: dict[str, Json] = {}
    base = f"{root}{scope}/{resource.plural}"
    _add(found, base, resource, body, [verb for verb in _COLLECTION_VERBS if verb in resource.verbs])
    if resource.namespaced and "list" in resource.verbs:
        _add(found, f"{root}/{resource.plural}", resource, body, ["list"])
    item = base + "/{name}"
    _add(found, item, resource, body, [verb for verb in _OBJECT_VERBS if verb in resource.verbs])
    for subresource in resource.subresources:
        inner = _subresource_body(resource, subresource, schema_of)
        _add(found, f"{item}/{subresource.name}", resource, inner, list(subresource.verbs), subresource.name)
    return found


def to_v2(item: Json, rewrite: Callable[[Any], Any]) -> Json:
    """Return a v3 path item in the form of OpenAPI v2. `rewrite` turns references of one form into the other."""
    converted: Json = {}
    for key, value in item.items():
        if key == "parameters":
            converted[key] = [_parameter_v2(one) for one in value]
            continue
        operation = {name: part for name, part in value.items() if name not in ("requestBody", "responses", "parameters")}
        parameters = [_parameter_v2(one) for one in value["parameters"]]
        if (request := value.get("requestBody")) is not None:
            schema = next(iter(request["content"].values()))["schema"]
            parameters.append({"name": "body", "in": "body", "required": True, "schema": rewrite(schema)})
            operation["consumes"] = list(request["content"])
        operation["produces"] = list(_READ_TYPES)
        operation["parameters"] = parameters
        operation["responses"] = {code: _response_v2(response, rewrite) for code, response in value["responses"].items()}
        operation["schemes"] = ["https"]
        converted[key] = operation
    return converted


def _parameter_v2(parameter: Json) -> Json:
    return {key: value for key, value in parameter.items() if key != "schema"} | parameter["schema"]


def _response_v2(response: Json, rewrite: Callable[[Any], Any]) -> Json:
    content = response.get("content")
    if not content:
        return response
    schema = next(iter(content.values()))["schema"]
    return {"description": response["description"], "schema": rewrite(schema)}


def _subresource_body(resource: Resource, subresource: Subresource, schema_of: SchemaOf) -> _Body:
    if not subresource.kind:
        return _Body(resource.group, resource.version, resource.kind, resource.schema)
    group = subresource.group if subresource.version else resource.group
    version = subresource.version or resource.version
    return _Body(group, version, subresource.kind, schema_of(group, version, subresource.kind))


def _add(found: dict[str, Json], path: str, resource: Resource, body: _Body, verbs: list[str], subresource: str = "") -> None:
    if not verbs:
        return
    parameters = [_PRETTY]
    if "{namespace}" in path:
        parameters = [_path("namespace", "Scope of the object's name."), *parameters]
    if "{name}" in path:
        parameters = [_path("name", f"Name of the {resource.kind}."), *parameters]
    item: Json = {"parameters": parameters}
    for verb in verbs:
        method = _VERBS[verb][0]
        item[method] = _operation(path, resource, body, verb, subresource)
    found[path] = item


def _operation(path: str, resource: Resource, body: _Body, verb: str, subresource: str) -> Json:
    _, action, word = _VERBS[verb]
    is_stream = subresource in _STREAMS
    operation: Json = {
        "description": f"{verb} {subresource + ' of ' if subresource else ''}{body.kind}",
        "operationId": _operation_id(path, resource, "connect" + word.capitalize() if is_stream else word, verb, subresource),
        "tags": [_tag(resource)],
        "parameters": [] if is_stream else _PARAMETERS[verb],
        "responses": _responses(body, verb, is_text=is_stream or subresource == "log"),
        "x-kubernetes-action": "connect" if is_stream else action,
        "x-kubernetes-group-version-kind": {"group": body.group, "kind": body.kind, "version": body.version},
    }
    if is_stream:
        return operation
    if verb in ("create", "update") and body.schema:
        operation["requestBody"] = {"required": True, "content": {"*/*": _schema(body.schema)}}
    elif verb == "patch":
        is_built_in = resource.definitions is None and resource.schema.startswith(_BUILT_IN)
        content_types = _PATCH_TYPES if is_built_in else [one for one in _PATCH_TYPES if one != _STRATEGIC]
        operation["requestBody"] = {"required": True, "content": {one: _schema(PATCH) for one in content_types}}
    elif verb in ("delete", "deletecollection"):
        operation["requestBody"] = {"content": {"*/*": _schema(DELETE_OPTIONS)}}
    return operation


def _responses(body: _Body, verb: str, *, is_text: bool) -> Json:
    denied = {"description": "Unauthorized"}
    if is_text:
        content = {"text/plain": {"schema": {"type": "string"}}}
        return {"200": {"description": "OK", "content": content}, "401": denied}
    name = {"list": body.list_schema, "deletecollection": STATUS, "delete": STATUS}.get(verb, body.schema)
    types = _WATCH_TYPES if verb == "list" else _READ_TYPES
    ok: Json = {"description": "OK"}
    if name:
        ok["content"] = {one: _schema(name) for one in types}
    codes = {"create": ("200", "201", "202"), "update": ("200", "201"), "patch": ("200", "201"), "delete": ("200", "202")}.get(
        verb, ("200",)
    )
    words = {"200": "OK", "201": "Created", "202": "Accepted"}
    return {code: ok | {"description": words[code]} for code in codes} | {"401": denied}


def _schema(name: str) -> Json:
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


def _group_words(resource: Resource) -> tuple[str, str]:
    """Return the group's short name and the version, such as ("core", "v1")."""
    return (resource.group.partition(".")[0] or "core", resource.version)


def _tag(resource: Resource) -> str:
    return "_".join(_group_words(resource))


def _operation_id(path: str, resource: Resource, word: str, verb: str, subresource: str) -> str:
    group, version = _group_words(resource)
    collection = "Collection" if verb == "deletecollection" else ""
    namespaced = "Namespaced" if "{namespace}" in path else ""
    everywhere = "ForAllNamespaces" if resource.namespaced and not namespaced else ""
    return f"{word}{_camel(group)}{_camel(version)}{collection}{namespaced}{resource.kind}{_camel(subresource)}{everywhere}"


def _camel(text: str) -> str:
    return text[:1].upper() + text[1:]
