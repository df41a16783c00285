"""Checks that many kinds share: metadata, labels, selectors, numbers, enums, immutable fields.

A check appends to `causes` what it finds wrong and returns nothing; paths are upstream's (`spec.ports[0].name`). A missing
part (None) is valid unless the check says otherwise. Mirrors apimachinery's api/validation and kubernetes' pkg/apis/core/validation.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from korch.api import names
from korch.api.errors import Cause, duplicate, forbidden_field, invalid, not_supported, required, too_long

Object = dict[str, Any]

IMMUTABLE = "field is immutable"
UNQUALIFIED_FINALIZER = "name is neither a standard finalizer name nor is it fully qualified"
NOT_NEGATIVE = "must be greater than or equal to 0"
POSITIVE = "must be greater than 0"
SELECTOR_MISMATCH = "`selector` does not match template `labels`"
_ANNOTATIONS_BYTES_MAX = 256 * 1024
_STANDARD_FINALIZERS = frozenset({"kubernetes", "orphan", "foregroundDeletion", "customresourcecleanup.apiextensions.k8s.io"})
_META_UNCHANGED = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")

__all__ = ["Cause", "duplicate", "forbidden_field", "invalid", "not_supported", "required", "too_long"]


def not_found(field: str, value: object) -> Cause:
    return Cause("FieldValueNotFound", f'Not found: "{value}"', field)


def too_many(field: str, count: int, limit: int) -> Cause:
    return Cause("FieldValueTooMany", f"Too many: {count}: must have at most {limit} items", field)


def validate_object_meta(
    obj: Mapping[str, Any], *, namespaced: bool, validate_name: Callable[[str], list[str]] | None = None
) -> list[Cause]:
    """Return what is wrong with `metadata` of a new or updated object. Mirrors ValidateObjectMeta.

    `validate_name` returns the reasons against a name; without it a name is a DNS-1123 subdomain.
    """
    causes: list[Cause] = []
    meta = obj.get("metadata") or {}
    check = validate_name or names.is_dns_subdomain
    prefix, name = meta.get("generateName"), meta.get("name")
    if prefix:
        causes += [invalid("metadata.generateName", prefix, why) for why in names.of_prefix(check, prefix)]
    if not name:
        causes.append(required("metadata.name", "name or generateName is required"))
    else:
        causes += [invalid("metadata.name", name, why) for why in check(name)]
    _check_namespace(causes, meta.get("namespace"), namespaced=namespaced)
    check_not_negative(causes, meta.get("generation"), "metadata.generation")
    check_labels(causes, meta.get("labels"), "metadata.labels")
    check_annotations(causes, meta.get("annotations"), "metadata.annotations")
    _check_owner_references(causes, meta.get("ownerReferences"))
    _check_finalizers(causes, meta.get("finalizers"))
    return causes


def validate_object_meta_update(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[Cause]:
    """Return what an update may not change in `metadata`. Mirrors ValidateObjectMetaUpdate."""
    causes: list[Cause] = []
    new_meta, old_meta = new.get("metadata") or {}, old.get("metadata") or {}
    for field in _META_UNCHANGED:
        check_immutable(causes, new_meta.get(field), old_meta.get(field), f"metadata.{field}")
    if (new_meta.get("generation") or 0) < (old_meta.get("generation") or 0):
        causes.append(invalid("metadata.generation", new_meta.get("generation"), "must not be decremented"))
    if old_meta.get("deletionTimestamp"):
        added = [one for one in new_meta.get("finalizers") or () if one not in (old_meta.get("finalizers") or ())]
        if added:
            shown = "[]string{" + ", ".join(f'"{one}"' for one in added) + "}"
            detail = f"no new finalizers can be added if the object is being deleted, found new finalizers {shown}"
            causes.append(forbidden_field("metadata.finalizers", detail))
    return causes


def check_labels(causes: list[Cause], labels: Mapping[str, str] | None, path: str) -> None:
    for key, value in (labels or {}).items():
        causes += [invalid(path, key, why) for why in names.is_qualified_name(key)]
        causes += [invalid(path, value, why) for why in names.is_label_value(value or "")]


def check_annotations(causes: list[Cause], annotations: Mapping[str, str] | None, path: str) -> None:
    total = 0
    for key, value in (annotations or {}).items():
        causes += [invalid(path, key, why) for why in names.is_qualified_name(key.lower())]
        total += len(key.encode()) + len((value or "").encode())
    if total > _ANNOTATIONS_BYTES_MAX:
        causes.append(too_long(path, _ANNOTATIONS_BYTES_MAX))


def check_label_selector(causes: list[Cause], selector: Mapping[str, Any] | None, path: str) -> None:
    """Check a metav1.LabelSelector."""
    if selector is None:
        return
    check_labels(causes, selector.get("matchLabels"), f"{path}.matchLabels")
    for position, requirement in enumerate(selector.get("matchExpressions") or ()):
        where = f"{path}.matchExpressions[{position}]"
        operator, values = requirement.get("operator") or "", requirement.get("values") or ()
        if operator in ("In", "NotIn"):
            if not values:
                causes.append(required(f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                causes.append(forbidden_field(f"{where}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"))
        else:
            causes.append(invalid(f"{where}.operator", operator, "not a valid selector operator"))
        key = requirement.get("key") or ""
        causes += [invalid(f"{where}.key", key, why) for why in names.is_qualified_name(key)]
        for index, value in enumerate(values):
            causes += [invalid(f"{where}.values[{index}]", value, why) for why in names.is_label_value(value)]


def is_empty_selector(selector: Mapping[str, Any] | None) -> bool:
    """Whether a LabelSelector is missing or selects everything."""
    return not selector or not (selector.get("matchLabels") or selector.get("matchExpressions"))


def selector_matches(selector: Mapping[str, Any], labels: Mapping[str, str] | None) -> bool:
    """Whether a LabelSelector selects these labels; unknown operators match nothing."""
    have = labels or {}
    if any(have.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_holds(requirement, have) for requirement in selector.get("matchExpressions") or ())


def check_not_negative(causes: list[Cause], value: int | None, path: str) -> None:
    if value is not None and value < 0:
        causes.append(invalid(path, value, NOT_NEGATIVE))


def check_enum(causes: list[Cause], value: str | None, path: str, allowed: Sequence[str], *, is_required: bool = True) -> None:
    """Check that `value` is one of `allowed`; a missing one is an error when `is_required`."""
    if not value:
        if is_required:
            causes.append(required(path))
    elif value not in allowed:
        causes.append(not_supported(path, value, allowed))


def check_immutable(causes: list[Cause], new: object, old: object, path: str) -> None:
    """Check that a field did not change; missing, null and empty are the same."""
    if (new or None) != (old or None):
        causes.append(invalid(path, new, IMMUTABLE))


def check_port(causes: list[Cause], value: int | None, path: str) -> None:
    causes += [invalid(path, value, why) for why in names.is_port_number(value or 0)]


def check_port_or_name(causes: list[Cause], value: int | str | None, path: str) -> None:
    """Check an IntOrString that names a port."""
    reasons = names.is_port_name(value) if isinstance(value, str) else names.is_port_number(value or 0)
    causes += [invalid(path, value, why) for why in reasons]


def check_int_or_percent(causes: list[Cause], value: int | str | None, path: str) -> None:
    """Check an IntOrString that is a count or a percentage, neither negative."""
    if isinstance(value, str):
        causes += [invalid(path, value, why) for why in names.is_percent(value)]
    else:
        check_not_negative(causes, value, path)


def percent_of(value: int | str | None) -> int | None:
    """Return 25 for `25%`, None for a plain number or for what is no percentage."""
    if not isinstance(value, str) or names.is_percent(value):
        return None
    return int(value[:-1])


def is_zero(value: int | str | None) -> bool:
    """Whether an IntOrString is 0 or 0%."""
    return percent_of(value) == 0 if isinstance(value, str) else not value


def is_api_service(obj: Mapping[str, Any]) -> bool:
    """Whether an Endpoints or EndpointSlice is the API server's own, default/kubernetes."""
    metadata = obj.get("metadata") or {}
    return metadata.get("name") == "kubernetes" and metadata.get("namespace") == "default"


def check_endpoint_ip(causes: list[Cause], value: str, path: str, *, allows_loopback: bool) -> None:
    """Check an address that traffic is sent to: no loopback, link-local, multicast or empty one. Mirrors ValidateEndpointIP.

    Loopback is refused because it would open a node's private ports to the cluster. The API server itself may stand there:
    a cluster on one machine need not listen anywhere else.
    """
    reasons = names.is_ip(value)
    causes += [invalid(path, value, why) for why in reasons]
    if reasons:
        return
    address = ipaddress.ip_address(value)
    if address.is_unspecified:
        causes.append(invalid(path, value, f"may not be unspecified ({value})"))
    if address.is_loopback and not allows_loopback:
        causes.append(invalid(path, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)"))
    if address.is_link_local:
        causes.append(invalid(path, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"))
    if address.is_multicast:
        causes.append(invalid(path, value, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"))


def check_sealed(new: Mapping[str, Any], old: Mapping[str, Any], fields: tuple[str, ...]) -> list[Cause]:
    """Return whether `fields` of an object change that has once been declared immutable; it stays so for ever."""
    if not old.get("immutable"):
        return []
    detail = "field is immutable when `immutable` is set"
    causes = [forbidden_field("immutable", detail)] if not new.get("immutable") else []
    return causes + [forbidden_field(one, detail) for one in fields if (new.get(one) or {}) != (old.get(one) or {})]


def _holds(requirement: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = requirement.get("key", ""), requirement.get("values") or ()
    match requirement.get("operator"):
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":
            return key not in labels or labels[key] not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case _:
            return False


def _check_namespace(causes: list[Cause], namespace: str | None, *, namespaced: bool) -> None:
    if not namespaced:
        if namespace:
            causes.append(forbidden_field("metadata.namespace", "not allowed on this type"))
    elif not namespace:
        causes.append(required("metadata.namespace"))
    else:
        causes += [invalid("metadata.namespace", namespace, why) for why in names.is_dns_label(namespace)]


def _check_owner_references(causes: list[Cause], references: Sequence[Object] | None) -> None:
    path = "metadata.ownerReferences"
    controller = ""
    for position, reference in enumerate(references or ()):
        where, version = f"{path}[{position}]", reference.get("apiVersion") or ""
        if version and (version.count("/") > 1 or not version.rpartition("/")[2]):
            causes.append(invalid(f"{where}.apiVersion", version, "must be <group>/<version> or <version>"))
        missing = [field for field in ("apiVersion", "kind", "name", "uid") if not reference.get(field)]
        causes += [required(f"{where}.{field}", "must not be empty") for field in missing]
        if reference.get("kind") == "Event" and version == "v1":
            causes.append(invalid(where, reference, "/v1, Kind=Event is disallowed from being an owner"))
        if reference.get("controller"):
            name = f"{reference.get('kind') or ''}/{reference.get('name') or ''}"
            if controller:
                detail = f'Only one reference can have Controller set to true. Found "true" in references for {controller} and {name}'
                causes.append(invalid(path, references, detail))
            controller = controller or name


def _check_finalizers(causes: list[Cause], finalizers: Sequence[str] | None) -> None:
    for position, finalizer in enumerate(finalizers or ()):
        where = f"metadata.finalizers[{position}]"
        reasons = names.is_qualified_name(finalizer)
        if not reasons and "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
            reasons = [UNQUALIFIED_FINALIZER]
        causes += [invalid(where, finalizer, why) for why in reasons]
    if finalizers and "orphan" in finalizers and "foregroundDeletion" in finalizers:
        causes.append(invalid("metadata.finalizers", list(finalizers), "finalizer orphan and foregroundDeletion cannot be both set"))
