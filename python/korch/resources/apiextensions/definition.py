"""What a CustomResourceDefinition may say: names, versions, conversion, subresources and columns, in upstream's words.

Paths follow upstream's internal form, which holds a schema, subresources and columns that all versions share once, above the
versions: `spec.validation.openAPIV3Schema`. Mirrors apiextensions-apiserver's apis/apiextensions/validation/validation.go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from korch.api.errors import Cause, duplicate, forbidden_field, invalid, not_supported, required
from korch.api.meta import at
from korch.api.names import is_dns_1035_label, is_dns_subdomain
from korch.api.validation import check_immutable
from korch.resources.apiextensions.jsonpath import JsonPathError, parse
from korch.resources.apiextensions.structure import check_schema

Object = dict[str, Any]

_PROTECTED = ("k8s.io", "kubernetes.io")
_APPROVAL = "api-approved.kubernetes.io"
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_REVIEW_VERSIONS = ("v1", "v1beta1")
_SELECTABLE_MAX = 8
_STILL_STORED = (
    "missing from spec.versions; {version} was previously a storage version, and must remain in spec.versions until a storage migration "
    "ensures no data remains persisted in {version} and removes {version} from status.storedVersions"
)
_UNAPPROVED = (
    'protected groups must have approval annotation "api-approved.kubernetes.io"{more}, '
    "see https://github.com/kubernetes/enhancements/pull/1111"
)
_KIND_NOTE = "may have mixed case, but should otherwise match: "


def validate(crd: Object) -> list[Cause]:
    """Return what is wrong with a declaration. Mirrors ValidateCustomResourceDefinition."""
    causes: list[Cause] = []
    spec: Object = crd.get("spec") or {}
    name, names = at(crd, "metadata", "name") or "", spec.get("names") or {}
    if name != f"{names.get('plural') or ''}.{spec.get('group') or ''}":
        causes.append(invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    _check_group(causes, crd, spec)
    _check_scope(causes, spec.get("scope") or "")
    versions: list[Object] = spec.get("versions") or []
    _check_versions(causes, spec, versions)
    _check_names(causes, names, "spec.names", is_spec=True)
    _check_conversion(causes, spec.get("conversion") or {}, len(versions) > 1)
    _check_contents(causes, versions)
    if spec.get("preserveUnknownFields"):
        causes.append(invalid("spec.preserveUnknownFields", True, "must be false"))
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return what an update may not change. Mirrors ValidateCustomResourceDefinitionUpdate."""
    causes: list[Cause] = []
    new_spec, old_spec = new.get("spec") or {}, old.get("spec") or {}
    if any(one.get("type") == "Established" and one.get("status") == "True" for one in at(old, "status", "conditions") or ()):
        check_immutable(causes, new_spec.get("scope"), old_spec.get("scope"), "spec.scope")
        check_immutable(causes, at(new_spec, "names", "kind"), at(old_spec, "names", "kind"), "spec.names.kind")
    check_immutable(causes, new_spec.get("group"), old_spec.get("group"), "spec.group")
    check_immutable(causes, at(new_spec, "names", "plural"), at(old_spec, "names", "plural"), "spec.names.plural")
    return causes + _stored_versions(new)


def validate_status_update(new: Object, _old: Object) -> list[Cause]:
    """Return what is wrong with a new status."""
    causes: list[Cause] = []
    _check_names(causes, at(new, "status", "acceptedNames") or {}, "status.acceptedNames", is_spec=False)
    return causes + _stored_versions(new)


def _stored_versions(crd: Object) -> list[Cause]:
    known = [one.get("name") for one in at(crd, "spec", "versions") or ()]
    stored = at(crd, "status", "storedVersions") or ()
    return [
        invalid(f"status.storedVersions[{index}]", one, _STILL_STORED.format(version=one))
        for index, one in enumerate(stored)
        if one not in known
    ]


def _check_group(causes: list[Cause], crd: Object, spec: Object) -> None:
    group = spec.get("group") or ""
    if not group:
        causes.append(required("spec.group"))
    elif reasons := is_dns_subdomain(group):
        causes.append(invalid("spec.group", group, ",".join(reasons)))
    elif "." not in group:
        causes.append(invalid("spec.group", group, "should be a domain with at least one dot"))
    if any(group == one or group.endswith(f".{one}") for one in _PROTECTED):
        approval = (at(crd, "metadata", "annotations") or {}).get(_APPROVAL)
        where = f"metadata.annotations[{_APPROVAL}]"
        if not approval:
            causes.append(required(where, _UNAPPROVED.format(more="")))
        elif not approval.startswith("unapproved") and "://" not in approval:
            more = ' with either a URL or a reason starting with "unapproved"'
            causes.append(invalid(where, approval, _UNAPPROVED.format(more=more)))


def _check_scope(causes: list[Cause], scope: str) -> None:
    if not scope:
        causes.append(required("spec.scope"))
    elif scope not in ("Cluster", "Namespaced"):
        causes.append(not_supported("spec.scope", scope, ("Cluster", "Namespaced")))


def _check_versions(causes: list[Cause], spec: Object, versions: Sequence[Object]) -> None:
    names = [one.get("name") or "" for one in versions]
    for index, (name, version) in enumerate(zip(names, versions, strict=True)):
        if reasons := is_dns_1035_label(name):
            causes.append(invalid(f"spec.versions[{index}].name", name, ",".join(reasons)))
        warning = version.get("deprecationWarning")
        if warning is not None:
            where = f"spec.versions[{index}].deprecationWarning"
            if not version.get("deprecated"):
                causes.append(invalid(where, warning, "can only be set for deprecated versions"))
            elif not warning:
                causes.append(invalid(where, warning, "must not be empty"))
            elif len(warning.encode()) > 256:
                causes.append(invalid(where, warning, "must be <= 256 characters long"))
    if len(set(names)) != len(names):
        causes.append(invalid("spec.versions", spec.get("versions"), "must contain unique version names"))
    if sum(bool(one.get("storage")) for one in versions) != 1:
        causes.append(invalid("spec.versions", spec.get("versions"), "must have exactly one version marked as storage version"))


def _check_names(causes: list[Cause], names: Mapping[str, Any], path: str, *, is_spec: bool) -> None:
    if is_spec:
        causes += [required(f"{path}.{one}") for one in ("plural", "singular", "kind", "listKind") if not names.get(one)]
    for one in ("plural", "singular"):
        value = names.get(one) or ""
        if value and (reasons := is_dns_1035_label(value)):
            causes.append(invalid(f"{path}.{one}", value, ",".join(reasons)))
    for one in ("kind", "listKind"):
        value = names.get(one) or ""
        if value and (reasons := is_dns_1035_label(value.lower())):
            causes.append(invalid(f"{path}.{one}", value, _KIND_NOTE + ",".join(reasons)))
    for index, value in enumerate(names.get("shortNames") or ()):
        if reasons := is_dns_1035_label(value):
            causes.append(invalid(f"{path}.shortNames[{index}]", value, ",".join(reasons)))
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        causes.append(invalid(f"{path}.listKind", names["listKind"], "kind and listKind may not be the same"))
    for index, value in enumerate(names.get("categories") or ()):
        if reasons := is_dns_1035_label(value):
            causes.append(invalid(f"{path}.categories[{index}]", value, ",".join(reasons)))


def _check_conversion(causes: list[Cause], conversion: Object, has_many: bool) -> None:
    strategy: str = conversion.get("strategy") or ""
    webhook: Object = conversion.get("webhook") or {}
    path = "spec.conversion"
    if not strategy:
        causes.append(required(f"{path}.strategy"))
    elif strategy not in ("None", "Webhook"):
        causes.append(not_supported(f"{path}.strategy", strategy, ("None", "Webhook")))
    if strategy == "Webhook":
        config = webhook.get("clientConfig")
        if config is None:
            causes.append(required(f"{path}.webhookClientConfig", "required when strategy is set to Webhook"))
        else:
            check_client_config(causes, config, f"{path}.webhookClientConfig")
        versions = webhook.get("conversionReviewVersions") or ()
        if not versions:
            causes.append(required(f"{path}.conversionReviewVersions"))
        elif not any(one in _REVIEW_VERSIONS for one in versions):
            causes.append(
                invalid(f"{path}.conversionReviewVersions", list(versions), f"must include at least one of {', '.join(_REVIEW_VERSIONS)}")
            )
    elif webhook:
        if webhook.get("clientConfig") is not None:
            causes.append(forbidden_field(f"{path}.webhookClientConfig", "should not be set when strategy is not set to Webhook"))
        if webhook.get("conversionReviewVersions"):
            causes.append(forbidden_field(f"{path}.conversionReviewVersions", "should not be set when strategy is not set to Webhook"))


def check_client_config(causes: list[Cause], config: Mapping[str, Any], path: str) -> None:
    """Check where a webhook is: exactly one of url and service. Mirrors apiserver's util/webhook/validation.go."""
    url: str | None = config.get("url")
    service: Object = config.get("service") or {}
    if (url is None) == (config.get("service") is None):
        causes.append(required(path, "exactly one of url or service is required"))
        return
    if url is not None:
        if not url.startswith("https://"):
            scheme = url.partition("://")[0] if "://" in url else ""
            causes.append(invalid(f"{path}.url", scheme, "'https' is the only allowed URL scheme; desired format: https://host[/path]"))
        elif not re.match(r"https://[^/?#]+", url):
            causes.append(invalid(f"{path}.url", "", "host must be specified; desired format: https://host[/path]"))
        return
    for one in ("name", "namespace"):
        if not service.get(one):
            causes.append(required(f"{path}.service.{one}", f"service {one} is required"))
    port = service.get("port")
    if port is not None and not 1 <= port <= 65535:
        causes.append(invalid(f"{path}.service.port", port, "port is not valid: must be between 1 and 65535, inclusive"))
    where = service.get("path")
    if where is not None and not where.startswith("/"):
        causes.append(invalid(f"{path}.service.path", where, "must start with a '/'"))


def _check_contents(causes: list[Cause], versions: Sequence[Object]) -> None:
    """Check schema, subresources, columns and selectable fields, at upstream's paths: once when all versions have the same."""
    for field, internal, check in (
        ("schema", "validation", _check_validation),
        ("subresources", "subresources", _check_subresources),
        ("additionalPrinterColumns", "additionalPrinterColumns", _check_columns),
        ("selectableFields", "selectableFields", _check_selectable),
    ):
        values = [one.get(field) for one in versions]
        if values and all(value == values[0] for value in values):
            check(causes, versions[0], f"spec.{internal}")
            continue
        for index, version in enumerate(versions):
            check(causes, version, f"spec.versions[{index}].{field}")


def _check_validation(causes: list[Cause], version: Object, path: str) -> None:
    schema = at(version, "schema", "openAPIV3Schema")
    if not schema:
        where = path if path.endswith(".schema") else "spec.versions[0].schema.openAPIV3Schema"
        causes.append(required(where if not where.endswith(".schema") else f"{where}.openAPIV3Schema", "schemas are required"))
        return
    has_status = at(version, "subresources", "status") is not None
    check_schema(causes, schema, f"{path}.openAPIV3Schema", has_status=has_status)


def _check_subresources(causes: list[Cause], version: Object, path: str) -> None:
    scale = at(version, "subresources", "scale")
    if scale is None:
        return
    for name, root in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status."), ("labelSelectorPath", "")):
        where, value = f"{path}.scale.{name}", scale.get(name) or ""
        if not value:
            if root:
                causes.append(required(where))
            continue
        if not value.startswith("."):
            causes.append(invalid(where, value, "must be a simple json path starting with ."))
        elif "[" in value:
            causes.append(invalid(where, value, "must be a simple json path with only .children, not array notation"))
        elif root and not value.startswith(root):
            causes.append(invalid(where, value, f"should be a json path under {root[:-1]}"))
        elif not root and not value.startswith((".spec.", ".status.")):
            causes.append(invalid(where, value, "should be a json path under either .spec or .status"))


def _check_columns(causes: list[Cause], version: Object, path: str) -> None:
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        where = f"{path}[{index}]"
        if not column.get("name"):
            causes.append(required(f"{where}.name"))
        kind = column.get("type") or ""
        if not kind:
            causes.append(required(f"{where}.type", f"must be one of {','.join(_COLUMN_TYPES)}"))
        elif kind not in _COLUMN_TYPES:
            causes.append(invalid(f"{where}.type", kind, f"must be one of {','.join(_COLUMN_TYPES)}"))
        form = column.get("format") or ""
        if form and form not in _COLUMN_FORMATS:
            causes.append(invalid(f"{where}.format", form, f"must be one of {','.join(_COLUMN_FORMATS)}"))
        expression = column.get("jsonPath") or ""
        if not expression:
            causes.append(required(f"{where}.JSONPath"))
        elif not expression.startswith("."):
            causes.append(invalid(f"{where}.JSONPath", expression, "must be a simple json path starting with ."))
        else:
            try:
                parse(expression)
            except JsonPathError as error:
                causes.append(invalid(f"{where}.JSONPath", expression, str(error)))


def _check_selectable(causes: list[Cause], version: Object, path: str) -> None:
    fields: list[Object] = version.get("selectableFields") or []
    if len(fields) > _SELECTABLE_MAX:
        causes.append(Cause("FieldValueTooMany", f"Too many: {len(fields)}: must have at most {_SELECTABLE_MAX} items", path))
    seen: set[str] = set()
    schema = at(version, "schema", "openAPIV3Schema") or {}
    for index, field in enumerate(fields):
        where, value = f"{path}[{index}].jsonPath", field.get("jsonPath") or ""
        if not value:
            causes.append(required(where))
            continue
        if "[" in value:
            causes.append(invalid(where, value, "must be a simple json path with only .children, not array notation"))
            continue
        found = schema if value.startswith(".") else None
        for step in value.split(".")[1:]:
            found = ((found or {}).get("properties") or {}).get(step) if found else None
        if value.startswith(".metadata"):
            causes.append(invalid(where, value, "must not point to fields in metadata"))
        elif not found:
            causes.append(invalid(where, value, "is an invalid path: does not refer to a valid field"))
        elif found.get("type") not in ("string", "boolean", "integer"):
            why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed."
            causes.append(invalid(where, value, why))
        if value in seen:
            causes.append(duplicate(where, value))
        seen.add(value)
