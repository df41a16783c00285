"""Secret: keys and values that only those who need them should see."""

from __future__ import annotations

import base64

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


RESOURCE = Resource(
    group="",
    version="v1",
    kind="Secret",
    plural="secrets",
    singular="secret",
    schema="io.k8s.api.core.v1.Secret",
    strategy=Strategy(default=default),
    selectable_fields={"type": lambda secret: secret.get("type") or ""},
    columns=(
        NAME,
        text("Type", "type", description="What the secret is for."),
        Column("Data", lambda obj, _now: len(obj.get("data") or ()), type="string", description="Number of keys."),
        AGE,
    ),
)
