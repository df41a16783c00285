"""Secret: keys and values that only those who need them should see."""

from __future__ import annotations

from korch.resources.columns import AGE, NAME, text
from korch.resources.resource import Column, Resource, Strategy

RESOURCE = Resource(
    group="",
    version="v1",
    kind="Secret",
    plural="secrets",
    singular="secret",
    schema="io.k8s.api.core.v1.Secret",
    strategy=Strategy(),
    selectable_fields={"type": lambda secret: secret.get("type") or ""},
    columns=(
        NAME,
        text("Type", "type", description="What the secret is for."),
        Column("Data", lambda obj, _now: len(obj.get("data") or ()), type="string", description="Number of keys."),
        AGE,
    ),
)
