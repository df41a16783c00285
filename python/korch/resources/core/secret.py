"""Secret: keys and values that only those who need them should see."""

from __future__ import annotations

import base64

import orjson

from korch.api.errors import Cause, invalid, required, too_long
from korch.api.meta import annotations_of
from korch.api.names import is_config_key
from korch.api.validation import check_immutable, check_sealed
from korch.resources.columns import AGE, NAME, text
from korch.resources.podspec.defaults import fill
from korch.resources.resource import Column, Object, Resource, Strategy


def default(secret: Object) -> None:
    """Fill in a Secret, in place: `stringData` is written into `data` and vanishes."""
    fill(secret, "type", "Opaque")
    texts = secret.pop("stringData", None)
    if texts:
        data = fill(secret, "data", {})
        for key, value in texts.items():
            data[key] = base64.b64encode((value or "").encode()).decode()


_SIZE_MAX = 1024 * 1024
_ACCOUNT_ANNOTATION = "kubernetes.io/service-account.name"
# type -> keys that must be there
_REQUIRED_KEYS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}
_REDACTED = "<secret contents redacted>"


def validate(secret: Object) -> list[Cause]:
    """Return what is wrong with a Secret. Mirrors ValidateSecret."""
    causes: list[Cause] = []
    data = secret.get("data") or {}
    for key in data:
        causes += [invalid(f"data[{key}]", key, why) for why in is_config_key(key)]
    if sum(len(value or "") // 4 * 3 for value in data.values()) > _SIZE_MAX:
        causes.append(too_long("data", _SIZE_MAX))
    kind = secret.get("type") or ""
    if kind == "kubernetes.io/service-account-token" and not annotations_of(secret).get(_ACCOUNT_ANNOTATION):
        causes.append(required(f"metadata.annotations[{_ACCOUNT_ANNOTATION}]"))
    if kind == "kubernetes.io/basic-auth" and not data.keys() & {"username", "password"}:
        causes += [required("data[username]"), required("data[password]")]
    for key in _REQUIRED_KEYS.get(kind, ()):
        if key not in data:
            causes.append(required(f"data[{key}]"))
        elif key.startswith(".docker"):
            _check_json(causes, data[key] or "", f"data[{key}]")
    return causes


def _check_json(causes: list[Cause], value: str, path: str) -> None:
    try:
        orjson.loads(base64.b64decode(value))
    except ValueError as error:
        causes.append(invalid(path, _REDACTED, str(error)))


def validate_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update changes the type, or an immutable Secret."""
    causes: list[Cause] = []
    check_immutable(causes, new.get("type"), old.get("type"), "type")
    return causes + check_sealed(new, old, ("data",))


RESOURCE = Resource(
    group="",
    version="v1",
    kind="Secret",
    plural="secrets",
    singular="secret",
    schema="io.k8s.api.core.v1.Secret",
    strategy=Strategy(default=default, validate=validate, validate_update=validate_update),
    selectable_fields={"type": lambda secret: secret.get("type") or ""},
    columns=(
        NAME,
        text("Type", "type", description="What the secret is for."),
        Column("Data", lambda obj, _now: len(obj.get("data") or ()), type="string", description="Number of keys."),
        AGE,
    ),
)
