"""MutatingWebhookConfiguration: webhooks that may change what is about to be stored."""

from __future__ import annotations

from korch.api.errors import Cause
from korch.resources.admissionregistration.webhooks import default_webhooks, validate_webhooks
from korch.resources.columns import AGE, NAME
from korch.resources.resource import Column, Object, Resource, Strategy


def default(obj: Object) -> None:
    """Fill in the webhooks, in place."""
    default_webhooks(obj, is_mutating=True)


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with the webhooks."""
    return validate_webhooks(obj, is_mutating=True)


RESOURCE = Resource(
    group="admissionregistration.k8s.io",
    version="v1",
    kind="MutatingWebhookConfiguration",
    plural="mutatingwebhookconfigurations",
    singular="mutatingwebhookconfiguration",
    schema="io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration",
    categories=("api-extensions",),
    namespaced=False,
    strategy=Strategy(default=default, validate=validate, has_generation=True),
    columns=(
        NAME,
        Column("Webhooks", lambda obj, _now: len(obj.get("webhooks") or ()), type="integer", description="How many webhooks it has."),
        AGE,
    ),
)
