"""VolumeAttachment: the wish that a volume be attached to a node, and what became of it."""

from __future__ import annotations

from korch.api.errors import Cause, invalid, required
from korch.api.meta import at
from korch.api.validation import too_long
from korch.resources.columns import AGE, NAME, text
from korch.resources.resource import Column, Object, Resource, Strategy
from korch.resources.storage.csinode import check_driver_name
from korch.resources.subresources import STATUS

_MESSAGE_MAX = 262144


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a VolumeAttachment. Mirrors ValidateVolumeAttachment."""
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    check_driver_name(causes, spec.get("attacher") or "", "spec.attacher")
    source = spec.get("source") or {}
    named, inline = source.get("persistentVolumeName"), source.get("inlineVolumeSpec")
    if inline is None and named is None:
        causes.append(required("spec.source", "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
    if inline is not None and named is not None:
        causes.append(
            Cause("FieldValueForbidden", "Forbidden: must specify exactly one of inlineVolumeSpec and persistentVolumeName", "spec.source")
        )
    if named == "":
        causes.append(required("spec.source.persistentVolumeName"))
    if not spec.get("nodeName"):
        causes.append(required("spec.nodeName"))
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update changes the spec."""
    return [invalid("spec", new.get("spec"), "field is immutable")] if new.get("spec") != old.get("spec") else []


def validate_status_update(new: Object, _old: Object) -> list[Cause]:
    """Return whether an error of the status is too long."""
    return [
        too_long(f"status.{field}.message", _MESSAGE_MAX)
        for field in ("attachError", "detachError")
        if len(at(new, "status", field, "message") or "") > _MESSAGE_MAX
    ]


def prepare_create(obj: Object, _context: object) -> None:
    """Start unattached."""
    obj["status"] = {"attached": False}


RESOURCE = Resource(
    group="storage.k8s.io",
    version="v1",
    kind="VolumeAttachment",
    plural="volumeattachments",
    singular="volumeattachment",
    schema="io.k8s.api.storage.v1.VolumeAttachment",
    namespaced=False,
    strategy=Strategy(
        prepare_create=prepare_create,
        validate=validate,
        validate_update=validate_update,
        validate_status_update=validate_status_update,
        has_status=True,
        keeps_status_on_create=True,
    ),
    subresources=(STATUS,),
    columns=(
        NAME,
        text("Attacher", "spec", "attacher", description="The driver that attaches it."),
        text("PV", "spec", "source", "persistentVolumeName", description="The volume."),
        text("Node", "spec", "nodeName", description="The node."),
        Column("Attached", lambda obj, _now: bool(at(obj, "status", "attached")), type="boolean", description="Whether it is."),
        AGE,
    ),
)
