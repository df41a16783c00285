"""Two parts of a running pod that change through subresources of their own: debugging containers are added, resources are resized.

Everything else of the pod stays as it is, whatever the request holds. Mirrors podEphemeralContainersStrategy and podResizeStrategy of
kubernetes' pkg/registry/core/pod with ValidatePodEphemeralContainersUpdate and ValidatePodResize.
"""

from __future__ import annotations

from korch.api.errors import Cause, duplicate, forbidden_field, invalid, required
from korch.api.meta import at
from korch.api.names import is_dns_label
from korch.api.pods import qos_class
from korch.api.validation import check_immutable
from korch.resources.podspec.containers import check_resources
from korch.resources.resource import Context, Object

_RESIZED = ("containers", "initContainers")
_MUTABLE = ("cpu", "memory")
# What makes no sense in a container that comes late and never restarts.
_NOT_EPHEMERAL = ("ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources", "resizePolicy", "restartPolicy")


def _keep(new: Object, old: Object, spec: Object) -> None:
    """Make `new` the old pod with another spec."""
    metadata = {**old["metadata"], "resourceVersion": new["metadata"].get("resourceVersion") or ""}
    new.clear()
    new.update({**old, "metadata": metadata, "spec": spec})


def prepare_ephemeral(new: Object, old: Object, _context: Context) -> None:
    """Take the ephemeral containers and nothing else."""
    spec = dict(old.get("spec") or {})
    spec["ephemeralContainers"] = at(new, "spec", "ephemeralContainers") or []
    if not spec["ephemeralContainers"]:
        del spec["ephemeralContainers"]
    _keep(new, old, spec)


def validate_ephemeral(new: Object, old: Object) -> list[Cause]:
    """Return what is wrong with the ephemeral containers: those that are there stay as they are."""
    causes: list[Cause] = []
    spec, path = new.get("spec") or {}, "spec.ephemeralContainers"
    taken = {one.get("name") for kind in _RESIZED for one in spec.get(kind) or ()}
    now = {one.get("name"): one for one in spec.get("ephemeralContainers") or ()}
    for position, container in enumerate(spec.get("ephemeralContainers") or ()):
        where, name = f"{path}[{position}]", container.get("name") or ""
        if not name:
            causes.append(required(f"{where}.name"))
        causes += [invalid(f"{where}.name", name, why) for why in is_dns_label(name)] if name else []
        if name in taken:
            causes.append(duplicate(f"{where}.name", name))
        taken.add(name)
        if not container.get("image"):
            causes.append(required(f"{where}.image"))
        for field in _NOT_EPHEMERAL:
            if container.get(field):
                causes.append(forbidden_field(f"{where}.{field}", "cannot be set for an Ephemeral Container"))
        target = container.get("targetContainerName")
        if target and target not in {one.get("name") for kind in _RESIZED for one in spec.get(kind) or ()}:
            causes.append(Cause("FieldValueNotFound", f'Not found: "{target}"', f"{where}.targetContainerName"))
    for container in at(old, "spec", "ephemeralContainers") or ():
        name = container.get("name")
        if name not in now:
            causes.append(forbidden_field(path, f'existing ephemeral containers "{name}" may not be removed'))
        elif now[name] != container:
            causes.append(forbidden_field(path, f'existing ephemeral containers "{name}" may not be changed'))
    return causes


def prepare_resize(new: Object, old: Object, _context: Context) -> None:
    """Take the resources and resize policies of containers that are there, and nothing else."""
    spec = dict(old.get("spec") or {})
    for kind in _RESIZED:
        wanted = {one.get("name"): one for one in at(new, "spec", kind) or ()}
        containers: list[Object] = []
        for container in spec.get(kind) or ():
            changed = dict(container)
            for field in ("resources", "resizePolicy"):
                source = wanted.get(container.get("name"), container)
                if field in source:
                    changed[field] = source[field]
                else:
                    changed.pop(field, None)
            containers.append(changed)
        if containers:
            spec[kind] = containers
    _keep(new, old, spec)


def validate_resize(new: Object, old: Object) -> list[Cause]:
    """Return what is wrong with a resize: other resources than processor and memory, another quality of service."""
    causes: list[Cause] = []
    for kind in _RESIZED:
        before = {one.get("name"): one for one in at(old, "spec", kind) or ()}
        for position, container in enumerate(at(new, "spec", kind) or ()):
            path = f"spec.{kind}[{position}]"
            check_resources(causes, container.get("resources"), f"{path}.resources")
            earlier = before.get(container.get("name")) or {}
            check_immutable(causes, container.get("resizePolicy"), earlier.get("resizePolicy"), f"{path}.resizePolicy")
            for field in ("limits", "requests"):
                had, has = at(earlier, "resources", field) or {}, at(container, "resources", field) or {}
                if any(had.get(name) != has.get(name) for name in {*had, *has} if name not in _MUTABLE):
                    causes.append(forbidden_field("spec", "only cpu and memory resources are mutable"))
                if set(had) - set(has):
                    causes.append(forbidden_field(f"{path}.resources.{field}", f"resource {field} cannot be removed"))
    if qos_class(new) != (at(old, "status", "qosClass") or qos_class(old)):
        causes.append(invalid("spec", qos_class(new), "Pod QOS Class may not change as a result of resizing"))
    return causes
