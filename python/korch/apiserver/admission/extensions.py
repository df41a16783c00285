"""Admission by configuration, in upstream's order: mutating policies, mutating webhooks, then validating policies and webhooks.

Without configurations this costs a few comparisons a write. Mirrors the order of kube-apiserver's default plugins.
"""

from __future__ import annotations

from typing import Any

import orjson

from korch.api.errors import BadRequest
from korch.apiserver.admission import AdmissionRequest
from korch.apiserver.admission.attributes import Variables
from korch.apiserver.admission.configurations import Configurations
from korch.apiserver.admission.matching import is_exempt
from korch.apiserver.admission.policies import Policies
from korch.apiserver.admission.webhooks import Webhooks
from korch.apiserver.codec import Codec, normal
from korch.apiserver.field_managers import FieldManagers
from korch.apiserver.identity import Authorizer
from korch.apiserver.records import Records
from korch.apiserver.webhook_client import WebhookClient
from korch.resources.resource import Catalogue
from korch.runtime.rng import Rng

Object = dict[str, Any]
_GROUP = "admissionregistration.k8s.io"


class ConfiguredAdmission:
    """Policies and webhooks as one step of the pipeline; see `pipeline.Extensions`."""

    def __init__(
        self,
        records: Records,
        catalogue: Catalogue,
        codec: Codec,
        managers: FieldManagers,
        client: WebhookClient,
        rng: Rng,
        authorizer: Authorizer,
    ) -> None:
        self._authorizer = authorizer

        def of(plural: str) -> Configurations:
            return Configurations(records.storage, catalogue, _GROUP, plural)

        self._records = records
        self._catalogue = catalogue
        self._codec = codec
        self._mutating, self._validating = of("mutatingwebhookconfigurations"), of("validatingwebhookconfigurations")
        self._webhooks = Webhooks(
            mutating=self._mutating, validating=self._validating, catalogue=catalogue, client=client, rng=rng, replace=self._replace
        )

        def policies(word: str, plural: str, bindings: str) -> Policies:
            return Policies(word=word, policies=of(plural), bindings=of(bindings), catalogue=catalogue, records=records, managers=managers)

        self._checks = policies("ValidatingAdmissionPolicy", "validatingadmissionpolicies", "validatingadmissionpolicybindings")
        self._changes = policies("MutatingAdmissionPolicy", "mutatingadmissionpolicies", "mutatingadmissionpolicybindings")

    def is_idle(self) -> bool:
        """Return whether no policy and no webhook is configured, so that nothing will be asked."""
        are_policies_idle = self._changes.is_idle() and self._checks.is_idle()
        return are_policies_idle and not self._mutating.all() and not self._validating.all()

    async def mutate(self, request: AdmissionRequest) -> None:
        """Let mutating policies and webhooks change the object. Raises ApiError."""
        has_policies, has_webhooks = not self._changes.is_idle(), bool(self._mutating.all())
        if is_exempt(request) or not (has_policies or has_webhooks):
            return
        variables = self._variables(request)
        if has_policies and request.obj is not None:
            self._changes.mutate(request, variables, self._namespace_of(request), self._replace)
        if has_webhooks:
            await self._webhooks.mutate(request, variables, self._namespace_of(request))

    async def validate(self, request: AdmissionRequest) -> None:
        """Let validating policies and webhooks refuse. Raises ApiError."""
        has_policies, has_webhooks = not self._checks.is_idle(), bool(self._validating.all())
        if is_exempt(request) or not (has_policies or has_webhooks):
            return
        variables = self._variables(request)
        if has_policies:
            self._checks.validate(request, variables, self._namespace_of(request))
        if has_webhooks:
            await self._webhooks.validate(request, variables, self._namespace_of(request))

    def _variables(self, request: AdmissionRequest) -> Variables:
        return Variables(request, request.resource, self._namespace_of(request), self._authorizer)

    def _namespace_of(self, request: AdmissionRequest) -> Any:
        """Return the function that reads the request's namespace, at most once; None for cluster-scoped objects."""
        read: list[Object | None] = []

        def namespace() -> Object | None:
            if not read:
                namespaces = self._catalogue.get("", "v1", "namespaces")
                name = request.namespace if request.resource.namespaced else ""
                record = self._records.storage.get(namespaces.key("", name)) if namespaces is not None and name else None
                read.append(orjson.loads(record.value) if record is not None else None)
            return read[0]

        return namespace

    def _replace(self, request: AdmissionRequest, body: bytes) -> None:
        """Put a changed object in place of the request's: checked, pruned, and with defaults. Raises BadRequest."""
        resource, obj = request.resource, request.obj
        assert obj is not None, "only an object that is there is changed"
        if request.subresource and obj.get("kind") != resource.kind:
            changed: Object = orjson.loads(body)
        else:
            try:
                checked = self._codec.check(resource.schema, body)
            except ValueError as error:
                raise BadRequest(str(error)) from error
            if checked.error:
                raise BadRequest(checked.error)
            changed = normal(orjson.loads(checked.body), resource.kind, resource.api_version)
            resource.strategy.default(changed)
        for field in ("uid", "name", "namespace"):
            if (obj.get("metadata") or {}).get(field):
                changed["metadata"][field] = obj["metadata"][field]
        obj.clear()
        obj.update(changed)
