"""MutatingWebhookConfiguration: who may change objects on their way into the store."""

from __future__ import annotations

from korch.resources.admissionregistration.webhooks import COLUMNS, default_mutating, prepare_update, validate
from korch.resources.resource import Resource, Strategy

RESOURCE = Resource(
    group="admissionregistration.k8s.io",
    version="v1",
    kind="MutatingWebhookConfiguration",
    plural="mutatingwebhookconfigurations",
    singular="mutatingwebhookconfiguration",
    schema="io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration",
    categories=("api-extensions",),
    namespaced=False,
    strategy=Strategy(default=default_mutating, prepare_update=prepare_update, validate=validate, has_generation=True),
    columns=COLUMNS,
)
