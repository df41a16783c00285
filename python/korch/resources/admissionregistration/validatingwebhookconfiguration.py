"""ValidatingWebhookConfiguration: who may refuse writes."""

from __future__ import annotations

from korch.resources.admissionregistration.webhooks import COLUMNS, default_validating, prepare_update, validate
from korch.resources.resource import Resource, Strategy

RESOURCE = Resource(
    group="admissionregistration.k8s.io",
    version="v1",
    kind="ValidatingWebhookConfiguration",
    plural="validatingwebhookconfigurations",
    singular="validatingwebhookconfiguration",
    schema="io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration",
    categories=("api-extensions",),
    namespaced=False,
    strategy=Strategy(default=default_validating, prepare_update=prepare_update, validate=validate, has_generation=True),
    columns=COLUMNS,
)
