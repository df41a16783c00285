"""ConfigMap: configuration as keys and values, text or bytes."""

from __future__ import annotations

from korch.api.errors import Cause, invalid, too_long
from korch.api.names import is_config_key
from korch.api.validation import check_sealed
from korch.resources.columns import AGE, NAME
from korch.resources.resource import Column, Object, Resource, Strategy

_SIZE_MAX = 1024 * 1024


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a ConfigMap. Mirrors ValidateConfigMap."""
    causes: list[Cause] = []
    data, binary_data = obj.get("data") or {}, obj.get("binaryData") or {}
    for key in data:
        causes += [invalid(f"data[{key}]", key, why) for why in is_config_key(key)]
        if key in binary_data:
            causes.append(invalid(f"data[{key}]", key, "duplicate of key present in binaryData"))
    for key in binary_data:
        causes += [invalid(f"binaryData[{key}]", key, why) for why in is_config_key(key)]
    total = sum(len((value or "").encode()) for value in data.values())
    # Four characters of base64 are three bytes.
    total += sum(len(value or "") // 4 * 3 for value in binary_data.values())
    if total > _SIZE_MAX:
        causes.append(too_long("", _SIZE_MAX))
    return causes


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update changes an immutable ConfigMap."""
    return check_sealed(new, old, ("data", "binaryData"))


RESOURCE = Resource(
    group="",
    version="v1",
    kind="ConfigMap",
    plural="configmaps",
    singular="configmap",
    schema="io.k8s.api.core.v1.ConfigMap",
    short_names=("cm",),
    strategy=Strategy(validate=validate, validate_update=validate_update),
    columns=(
        NAME,
        Column(
            "Data",
            lambda obj, _now: len(obj.get("data") or ()) + len(obj.get("binaryData") or ()),
            type="string",
            description="Number of keys.",
        ),
        AGE,
    ),
)
