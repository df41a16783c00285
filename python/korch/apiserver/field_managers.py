"""Who owns which field: `metadata.managedFields` of every write, and server-side apply, for each endpoint of each kind.

The work is native; here stands what differs between endpoints: which fields each of them takes back from every request (the status of
a main resource, the spec of a status), so that nobody comes to own what was not stored. Mirrors apiserver's use of
apimachinery's util/managedfields, and GetResetFields of the registries.
"""

from __future__ import annotations

from typing import Any

import orjson

from korch._core import native
from korch.api.errors import ApiError, BadRequest, Conflict
from korch.resources.openapi import definitions
from korch.resources.resource import Resource
from korch.runtime.clock import rfc3339

Object = dict[str, Any]

_META = "io.k8s.apimachinery.pkg."
SCALE = "io.k8s.api.autoscaling.v1.Scale"
_MANAGER_BYTES_MAX = 128
# What the status endpoint takes back; the default is `spec`.
_SPEC_AND_METADATA = ("metadata", "spec")
_STATUS_RESETS: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "pods"): ("spec", "metadata.deletionTimestamp", "metadata.ownerReferences"),
    ("apps", "deployments"): ("spec", "metadata.labels"),
    ("certificates.k8s.io", "certificatesigningrequests"): ("spec", "status.conditions"),
    ("apiextensions.k8s.io", "customresourcedefinitions"): ("spec",),
}
_STATUS_RESETS |= {
    key: _SPEC_AND_METADATA
    for key in (
        ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
        ("apiregistration.k8s.io", "apiservices"),
        ("certificates.k8s.io", "podcertificaterequests"),
        ("flowcontrol.apiserver.k8s.io", "flowschemas"),
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
        ("networking.k8s.io", "servicecidrs"),
        ("resource.k8s.io", "devicetaintrules"),
        ("resource.k8s.io", "resourceclaims"),
        ("storage.k8s.io", "csinodes"),
        ("storage.k8s.io", "volumeattachments"),
        ("storagemigration.k8s.io", "storageversionmigrations"),
    )
}
# Groups of built-in kinds whose name does not end as all others do. The status endpoints of custom kinds take metadata back too.
_BUILT_IN_GROUPS = ("", "apps", "autoscaling", "batch", "policy")
_MAIN_RESETS = {("certificates.k8s.io", "certificatesigningrequests"): ("spec", "status")}
_OTHER_RESETS = {("certificatesigningrequests", "approval"): ("spec", "status.certificate"), ("namespaces", "finalize"): ("status",)}
_ONLY = {
    ("pods", "ephemeralcontainers"): ("spec.ephemeralContainers",),
    ("pods", "resize"): (
        "spec.containers.*.resources",
        "spec.containers.*.resizePolicy",
        "spec.initContainers.*.resources",
        "spec.initContainers.*.resizePolicy",
        "spec.resources",
    ),
}


def manager_name(field_manager: str, user_agent: str) -> str:
    """Return the request's manager: the one it names, else its program's name, as the User-Agent begins with it."""
    if field_manager:
        return field_manager
    name, size = "", 0
    for char in user_agent.partition("/")[0]:
        size += len(char.encode())
        if char.isprintable():
            if size > _MANAGER_BYTES_MAX:
                break
            name += char
    return name


def manager_of_user(user_name: str) -> str:
    """Return the manager of a component inside the server, which has no User-Agent: `system:kube-scheduler` is `kube-scheduler`."""
    name = user_name.rpartition(":")[2]
    return "kube-apiserver" if name == "apiserver" else name


class FieldManagers:
    """The native field managers of one server, each made when its endpoint is first written to."""

    def __init__(self, schema: native.Schema) -> None:
        self._schema = schema
        self._made: dict[tuple[str, str, str, str], tuple[Resource, native.FieldManager]] = {}
        self.scale = native.FieldManager(schema, SCALE, api_version="autoscaling/v1", subresource="scale")

    def track(self, resource: Resource, subresource: str, live: bytes | None, new: Object, *, manager: str, now: float) -> None:
        """Set managedFields of `new`, which takes the place of `live` (encoded; None: of nothing). `now` is seconds since the epoch.

        They are set as encoded JSON, since next to nobody looks at them before they are stored; see `managers_of`.
        When the managers of the stored object cannot be read, they stay as they are.
        """
        try:
            managed = self._of(resource, subresource).track(live, orjson.dumps(new), manager, rfc3339(now))
        except ValueError:
            stored = orjson.loads(live)["metadata"].get("managedFields") if live else None
            managed = orjson.dumps(stored) if stored else b""
        set_managed_fields(new, managed)

    def apply(
        self, resource: Resource, subresource: str, live: bytes | None, config: bytes, *, manager: str, now: float, force: bool
    ) -> tuple[bytes, bytes]:
        """Return the object that `config` (encoded) makes of `live` (None: of nothing), and its managers, both as JSON.

        Raises Conflict (with the fields in dispute as causes), ApiError for a configuration that does not fit the kind.
        """
        endpoint = self._of(resource, subresource)
        kind = (resource.group, resource.version, resource.kind)
        return merged(endpoint, kind, live, config, manager=manager, now=now, force=force)

    def overlay(self, resource: Resource, obj: bytes, config: bytes) -> bytes:
        """Return `obj` with `config` merged into it by the kind's schema (both encoded); nobody comes to own anything.

        Raises ValueError, in upstream's words, when `config` does not fit the kind or names a part that is replaced as a whole.
        """
        return self._of(resource, "").overlay(obj, config)

    def _of(self, resource: Resource, subresource: str) -> native.FieldManager:
        key = (resource.group, resource.version, resource.plural, subresource)
        found = self._made.get(key)
        if found is not None and found[0] is resource:
            return found[1]
        schema, definition = self._schema_of(resource)
        made = native.FieldManager(
            schema,
            definition,
            api_version=resource.api_version,
            subresource=subresource,
            reset=_resets(resource, subresource),
            only=list(_ONLY.get((resource.plural, subresource), ()) if not resource.group else ()),
        )
        self._made[key] = (resource, made)
        return made

    def _schema_of(self, resource: Resource) -> tuple[native.Schema, str]:
        """Return a schema and the definition in it. A kind without one merges its maps by field and replaces its lists."""
        if resource.definitions is not None:
            meta = {name: schema for name, schema in definitions().items() if name.startswith(_META)}
            return native.Schema(orjson.dumps({**meta, **resource.definitions(True)})), resource.schema
        return self._schema, resource.schema if self._schema.has(resource.schema) else ""


def merged(
    endpoint: native.FieldManager,
    kind: tuple[str, str, str],
    live: bytes | None,
    config: bytes,
    *,
    manager: str,
    now: float,
    force: bool,
) -> tuple[bytes, bytes]:
    """Return what `config` makes of `live` at one endpoint, and the managers; `kind` is (group, version, kind) for messages.

    Raises as `FieldManagers.apply` does.
    """
    try:
        return endpoint.apply(live, config, manager, rfc3339(now), force)
    except native.ApplyConflict as error:
        raise apply_conflict(error.args[0]) from error
    except native.UnfitConfiguration as error:
        raise unfit(kind, config, str(error)) from error
    except ValueError as error:
        raise ApiError(500, "", str(error)) from error


def set_managed_fields(obj: Object, managed: bytes) -> None:
    """Give `obj` these managers (JSON; empty: none), encoded as they are."""
    metadata = obj.setdefault("metadata", {})
    if managed:
        metadata["managedFields"] = orjson.Fragment(managed)
    else:
        metadata.pop("managedFields", None)


def sealed(body: bytes) -> Object:
    """Return the object in `body`, whose managers stay encoded: half of a stored object is about who owns what. Raises ValueError."""
    rest, managed = native.peel_managers(body)
    obj: Object = orjson.loads(rest)
    if managed:
        obj["metadata"]["managedFields"] = orjson.Fragment(managed)
    return obj


def managers_of(obj: Object) -> list[Object]:
    """Return the managers of an object, decoded if they are not."""
    found = obj["metadata"].get("managedFields")
    return orjson.loads(orjson.dumps(found)) if isinstance(found, orjson.Fragment) else found or []


def apply_conflict(disputed: list[tuple[str, str]]) -> Conflict:
    """Return upstream's refusal; `disputed` are (manager, path), ordered by manager."""
    if len(disputed) == 1:
        manager, path = disputed[0]
        message = f"Apply failed with 1 conflict: conflict with {manager}: {path}"
    else:
        lines: list[str] = []
        for manager in dict.fromkeys(manager for manager, _ in disputed):
            lines.append(f"conflicts with {manager}:")
            lines += [f"- {path}" for other, path in disputed if other == manager]
        message = f"Apply failed with {len(disputed)} conflicts: " + "\n".join(lines)
    causes = [{"reason": "FieldManagerConflict", "message": f"conflict with {manager}", "field": path} for manager, path in disputed]
    error = Conflict.__new__(Conflict)
    ApiError.__init__(error, 409, "Conflict", message, details={"causes": causes})
    return error


def unfit(kind: tuple[str, str, str], config: bytes, problems: str) -> ApiError:
    """Return upstream's refusal of a configuration that is no object of its kind; it has no reason there, and the code 500."""
    metadata = orjson.loads(config).get("metadata")
    if not isinstance(metadata, dict):
        metadata = {}
    where = f"{metadata.get('namespace') or ''}/{metadata.get('name') or ''}; {kind[0]}/{kind[1]}, Kind={kind[2]}"
    return ApiError(500, "", f"failed to create typed patch object ({where}): {problems}")


def check_configuration(config: object, group: str, version: str, kind: str) -> Object:
    """Return an applied configuration that names the right kind. Raises BadRequest."""
    if not isinstance(config, dict):
        raise BadRequest("error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}")
    given_version, given_kind = config.get("apiVersion"), config.get("kind")
    given_version = given_version if isinstance(given_version, str) else ""
    given_kind = given_kind if isinstance(given_kind, str) else ""
    if (given_version, given_kind) != (f"{group}/{version}" if group else version, kind):
        given_group, _, given_version = given_version.rpartition("/")
        raise BadRequest(f"invalid object type: {given_group}/{given_version}, Kind={given_kind}")
    metadata = config.get("metadata")
    if isinstance(metadata, dict) and metadata.get("managedFields") is not None:
        raise BadRequest("metadata.managedFields must be nil")
    return config


def _resets(resource: Resource, subresource: str) -> list[str]:
    key = (resource.group, resource.plural)
    if not subresource:
        has_status = resource.strategy.has_status or any(one.name == "status" for one in resource.subresources)
        return list(_MAIN_RESETS.get(key, ("status",) if has_status else ()))
    if subresource == "status":
        is_custom = resource.group not in _BUILT_IN_GROUPS and not resource.group.endswith("k8s.io")
        return list(_STATUS_RESETS.get(key, _SPEC_AND_METADATA if is_custom else ("spec",)))
    return list(_OTHER_RESETS.get((resource.plural, subresource), ()))
