"""From one version of a CustomResourceDefinition to the `Resource(...)` that is served.

Mirrors apiextensions-apiserver's registry/customresource (strategy.go, status_strategy.go, etcd.go) and the serving half of
pkg/apiserver/customresource_handler.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from korch.api.errors import Cause
from korch.api.meta import at
from korch.apiserver.crd.columns import custom_columns, text
from korch.apiserver.crd.published import definition_name, definitions
from korch.apiserver.crd.schemas import LazySchema
from korch.resources.apiextensions.customresourcedefinition import storage_version
from korch.resources.resource import Context, Object, Resource, Scale, Strategy
from korch.resources.subresources import SCALE, STATUS

_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")
# While the declaration is being deleted, its objects may still be changed (their finalizers must), but no more are made.
_TERMINATING_VERBS = tuple(verb for verb in _VERBS if verb != "create")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """How stored objects come into the form of a version, and back. The first two are None when they are always in it already."""

    present: Callable[[bytes], bytes] | None
    is_outdated: Callable[[bytes], bool] | None
    to_storage: Callable[[Object], None]


def resource_of(crd: Object, version: Object, schema: LazySchema, shown: Shown, is_current: Callable[[], bool]) -> Resource:
    """Return what is served for one version. `crd` must have its names accepted."""
    spec: Object = crd["spec"]
    names: Object = at(crd, "status", "acceptedNames") or spec["names"]
    group, name, kind = spec["group"], version["name"], names["kind"]
    list_kind = names.get("listKind") or f"{kind}List"
    has_status = at(version, "subresources", "status") is not None
    scale = at(version, "subresources", "scale")
    subresources = [one for one, is_there in ((SCALE, scale is not None), (STATUS, has_status)) if is_there]
    return Resource(
        group=group,
        version=name,
        kind=kind,
        plural=names["plural"],
        singular=names.get("singular") or kind.lower(),
        schema=definition_name(group, name, kind),
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        namespaced=spec.get("scope") == "Namespaced",
        verbs=_TERMINATING_VERBS if crd["metadata"].get("deletionTimestamp") else _VERBS,
        strategy=_strategy(schema, has_status=has_status),
        subresources=tuple(subresources),
        scale=_scale(scale) if scale is not None else None,
        selectable_fields=_selectable(version),
        columns=custom_columns(version.get("additionalPrinterColumns")),
        storage=(group, names["plural"]) if shown.present is not None or storage_version(crd) != name else None,
        to_storage=shown.to_storage,
        present=shown.present,
        is_outdated=shown.is_outdated,
        list_kind=list_kind,
        warning=_warning(group, kind, version),
        definitions=lambda is_v3: definitions(group, name, kind, list_kind, schema.document(), is_v3=is_v3),
        is_current=is_current,
        fingerprint=f"{crd['metadata'].get('uid')}/{crd['metadata'].get('generation')}",
    )


def _warning(group: str, kind: str, version: Object) -> str:
    if not version.get("deprecated"):
        return ""
    return version.get("deprecationWarning") or f"{group}/{version['name']} {kind} is deprecated"


def _scale(declared: Object) -> Scale:
    return Scale(
        spec_replicas=(declared.get("specReplicasPath") or "").lstrip("."),
        status_replicas=(declared.get("statusReplicasPath") or "").lstrip("."),
        label_selector=(declared.get("labelSelectorPath") or "").lstrip("."),
    )


def _selectable(version: Object) -> Mapping[str, Callable[[Object], str]]:
    found: dict[str, Callable[[Object], str]] = {}
    for one in version.get("selectableFields") or ():
        path = (one.get("jsonPath") or "").lstrip(".")
        steps = path.split(".")
        found[path] = lambda obj, steps=steps: text(at(obj, *steps))
    return found


def _strategy(schema: LazySchema, *, has_status: bool) -> Strategy:
    def prepare_create(obj: Object, _context: Context) -> None:
        if has_status:
            obj.pop("status", None)

    def prepare_update(new: Object, old: Object, _context: Context) -> None:
        if has_status:
            _keep(new, old, "status")
        ignored = ("metadata", "status") if has_status else ("metadata",)
        if _without(new, ignored) != _without(old, ignored):
            new["metadata"]["generation"] = (old["metadata"].get("generation") or 0) + 1

    def prepare_status_update(new: Object, old: Object, _context: Context) -> None:
        new["metadata"] = {**old["metadata"], "managedFields": new["metadata"].get("managedFields")}
        if new["metadata"]["managedFields"] is None:
            del new["metadata"]["managedFields"]

    def validate_update(new: Object, old: Object) -> list[Cause]:
        return schema.validate(new, old)

    return Strategy(
        prepare_create=prepare_create,
        prepare_update=prepare_update,
        prepare_status_update=prepare_status_update,
        validate=schema.validate,
        validate_update=validate_update,
        validate_status_update=validate_update,
        validates_update_alone=True,
        has_generation=True,
        allows_unconditional_update=False,
        allows_create_on_update=False,
    )


def _keep(new: Object, old: Object, field: str) -> None:
    if field in old:
        new[field] = old[field]
    else:
        new.pop(field, None)


def _without(obj: Mapping[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in obj.items() if key not in fields}
