"""What every object's `metadata` must satisfy, on create and on update. Mirrors apimachinery's api/validation/objectmeta.go."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from korch.api.errors import Cause, forbidden_field, invalid, required
from korch.resources.resource import Resource

Object = dict[str, Any]

_LABEL_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_ANNOTATIONS_BYTES_MAX = 256 * 1024

_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_DNS_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an "
    "alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_QUALIFIED_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_LABEL_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
    "alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


def dns_subdomain_errors(name: str) -> list[str]:
    """Return what keeps `name` from being a DNS-1123 subdomain."""
    found: list[str] = []
    if len(name) > 253:
        found.append("must be no more than 253 characters")
    if not _DNS_SUBDOMAIN.fullmatch(name):
        found.append(_SUBDOMAIN_TEXT)
    return found


def dns_label_errors(name: str) -> list[str]:
    """Return what keeps `name` from being a DNS-1123 label."""
    found: list[str] = []
    if len(name) > 63:
        found.append("must be no more than 63 characters")
    if not _DNS_LABEL.fullmatch(name):
        found.append(_DNS_LABEL_TEXT)
    return found


def qualified_name_errors(name: str) -> list[str]:
    """Return what keeps `name` from being a label or annotation key: an optional DNS prefix, a slash, and a name of at most 63."""
    prefix, slash, last = name.rpartition("/")
    found: list[str] = []
    if slash:
        if not prefix:
            found.append("prefix part must be non-empty")
        else:
            found.extend(f"prefix part {text}" for text in dns_subdomain_errors(prefix))
    if not last:
        found.append("name part must be non-empty")
    elif len(last) > 63:
        found.append("name part must be no more than 63 characters")
    if not _LABEL_NAME.fullmatch(last):
        found.append(_QUALIFIED_TEXT)
    return found


def label_value_errors(value: str) -> list[str]:
    """Return what keeps `value` from being a label's value."""
    found: list[str] = []
    if len(value) > 63:
        found.append("must be no more than 63 characters")
    if value and not _LABEL_NAME.fullmatch(value):
        found.append(_LABEL_VALUE_TEXT)
    return found


def metadata_causes(resource: Resource, metadata: Object) -> list[Cause]:
    """Return what is wrong with the metadata of an object about to be stored."""
    causes: list[Cause] = []
    check_name: Callable[[str], list[str]] = resource.strategy.validate_name or dns_subdomain_errors
    name = metadata.get("name") or ""
    generate_name = metadata.get("generateName") or ""
    if generate_name:
        # The random tail may cut a trailing dash's problem: upstream checks the prefix with its last dash masked.
        masked = generate_name[:-1] + "a" if generate_name.endswith("-") and len(generate_name) > 1 else generate_name
        causes += [invalid("metadata.generateName", generate_name, text) for text in check_name(masked)]
    if not name:
        causes.append(required("metadata.name", "name or generateName is required"))
    elif not generate_name or not causes:
        causes += [invalid("metadata.name", name, text) for text in check_name(name)]
    namespace = metadata.get("namespace") or ""
    if resource.namespaced:
        if not namespace:
            causes.append(required("metadata.namespace"))
        else:
            causes += [invalid("metadata.namespace", namespace, text) for text in dns_label_errors(namespace)]
    elif namespace:
        causes.append(forbidden_field("metadata.namespace", "not allowed on this type"))
    causes += _label_causes(metadata.get("labels") or {})
    causes += _annotation_causes(metadata.get("annotations") or {})
    causes += _owner_causes(metadata.get("ownerReferences") or [])
    causes += _finalizer_causes(metadata.get("finalizers") or [])
    return causes


def metadata_update_causes(new: Object, old: Object) -> list[Cause]:
    """Return what is wrong with the change from `old` to `new` metadata."""
    causes: list[Cause] = []
    for field in ("name", "namespace"):
        if (new.get(field) or "") != (old.get(field) or ""):
            causes.append(invalid(f"metadata.{field}", new.get(field) or "", "field is immutable"))
    if old.get("deletionTimestamp"):
        added = [one for one in new.get("finalizers") or [] if one not in (old.get("finalizers") or [])]
        if added:
            listed = ", ".join(f'"{one}"' for one in added)
            detail = f"no new finalizers can be added if the object is being deleted, found new finalizers []string{{{listed}}}"
            causes.append(forbidden_field("metadata.finalizers", detail))
    return causes


def _label_causes(labels: dict[str, str]) -> list[Cause]:
    causes: list[Cause] = []
    for key, value in labels.items():
        causes += [invalid("metadata.labels", key, text) for text in qualified_name_errors(key)]
        causes += [invalid("metadata.labels", value, text) for text in label_value_errors(value or "")]
    return causes


def _annotation_causes(annotations: dict[str, str]) -> list[Cause]:
    causes: list[Cause] = []
    size = 0
    for key, value in annotations.items():
        causes += [invalid("metadata.annotations", key, text) for text in qualified_name_errors(key.lower())]
        size += len(key.encode()) + len((value or "").encode())
    if size > _ANNOTATIONS_BYTES_MAX:
        causes.append(Cause("FieldValueTooLong", f"Too long: may not be more than {_ANNOTATIONS_BYTES_MAX} bytes", "metadata.annotations"))
    return causes


def _owner_causes(owners: list[Object]) -> list[Cause]:
    causes: list[Cause] = []
    controllers: list[Object] = []
    for index, owner in enumerate(owners):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                detail = "must not be empty"
                path = "version" if field == "apiVersion" else field
                causes.append(invalid(f"metadata.ownerReferences[{index}].{path}", "", detail))
        if owner.get("controller"):
            controllers.append(owner)
    if len(controllers) > 1:
        named = " and ".join(f"{one.get('kind')}/{one.get('name')}" for one in controllers[:2])
        detail = f'Only one reference can have Controller set to true. Found "true" in references for {named}'
        causes.append(invalid("metadata.ownerReferences", owners, detail))
    return causes


def _finalizer_causes(finalizers: list[str]) -> list[Cause]:
    causes: list[Cause] = []
    for one in finalizers:
        causes += [invalid("metadata.finalizers", one, text) for text in qualified_name_errors(one)]
        if not causes and "/" not in one and one not in ("orphan", "foregroundDeletion", "kubernetes"):
            detail = "name is neither a standard finalizer name nor is it fully qualified"
            causes.append(invalid("metadata.finalizers", one, detail))
    if "orphan" in finalizers and "foregroundDeletion" in finalizers:
        causes.append(invalid("metadata.finalizers", finalizers, "finalizer orphan and foregroundDeletion cannot be both set"))
    return causes
