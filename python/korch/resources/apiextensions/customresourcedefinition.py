"""CustomResourceDefinition: a kind that a client declares; the server serves it while the declaration stands.

Names are accepted and the kind is served by `korch.apiserver.crd`; here stand the rules of the declaration itself.
Mirrors apiextensions-apiserver's registry/customresourcedefinition/strategy.go and apis/apiextensions/v1/defaults.go.
"""

from __future__ import annotations

from typing import Any

from korch.api.meta import at
from korch.resources.apiextensions import definition
from korch.resources.columns import NAME
from korch.resources.podspec.defaults import fill
from korch.resources.resource import Column, Context, Object, Resource, Strategy
from korch.resources.subresources import STATUS

CLEANUP_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
GROUP = "apiextensions.k8s.io"


def default(crd: Object) -> None:
    """Fill in a CustomResourceDefinition, in place. Mirrors SetDefaults_CustomResourceDefinitionSpec of v1."""
    spec = fill(crd, "spec", {})
    names = fill(spec, "names", {})
    if names.get("kind"):
        if not names.get("singular"):
            names["singular"] = names["kind"].lower()
        if not names.get("listKind"):
            names["listKind"] = names["kind"] + "List"
    conversion = fill(spec, "conversion", {})
    if not conversion.get("strategy"):
        conversion["strategy"] = "None"
    service = at(conversion, "webhook", "clientConfig", "service")
    if isinstance(service, dict) and not service.get("port"):
        service["port"] = 443


def storage_version(crd: Object) -> str:
    """Return the name of the version that is stored, "" when there is none."""
    return next((one.get("name", "") for one in at(crd, "spec", "versions") or () if one.get("storage")), "")


def prepare_create(crd: Object, _context: Context) -> None:
    """Begin with nothing accepted and one stored version."""
    crd["status"] = {"conditions": None, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": [storage_version(crd)]}
    if not crd["spec"].get("preserveUnknownFields"):
        crd["spec"].pop("preserveUnknownFields", None)


def prepare_update(new: Object, old: Object, _context: Context) -> None:
    """Remember every version that objects may be stored in."""
    if not new["spec"].get("preserveUnknownFields"):
        new["spec"].pop("preserveUnknownFields", None)
    stored = storage_version(new)
    status: Object = dict(old.get("status") or {})
    versions: list[str] = list(status.get("storedVersions") or [])
    if stored and stored not in versions:
        status["storedVersions"] = [*versions, stored]
    new["status"] = status


def prepare_delete(crd: Object, _context: Context) -> None:
    """Keep the declaration until its objects are gone."""
    finalizers: list[Any] = fill(crd["metadata"], "finalizers", [])
    if not crd["metadata"].get("deletionTimestamp") and CLEANUP_FINALIZER not in finalizers:
        finalizers.append(CLEANUP_FINALIZER)


def has_condition(crd: Object, kind: str) -> bool:
    """Whether the condition `kind` is True."""
    return any(one.get("type") == kind and one.get("status") == "True" for one in at(crd, "status", "conditions") or ())


RESOURCE = Resource(
    group=GROUP,
    version="v1",
    kind="CustomResourceDefinition",
    plural="customresourcedefinitions",
    singular="customresourcedefinition",
    schema="io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
    short_names=("crd", "crds"),
    categories=("api-extensions",),
    namespaced=False,
    strategy=Strategy(
        default=default,
        prepare_create=prepare_create,
        prepare_update=prepare_update,
        prepare_delete=prepare_delete,
        validate=definition.validate,
        validate_update=definition.validate_update,
        validate_status_update=definition.validate_status_update,
        has_status=True,
        keeps_status_on_create=True,
        has_generation=True,
    ),
    subresources=(STATUS,),
    columns=(
        NAME,
        Column(
            "Created At",
            lambda obj, _now: at(obj, "metadata", "creationTimestamp") or "",
            type="date",
            description="When the object was created.",
        ),
    ),
)
