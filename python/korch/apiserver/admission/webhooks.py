"""MutatingAdmissionWebhook and ValidatingAdmissionWebhook: others are asked before something is written.

Mutating webhooks are asked one after the other, in the order of their configurations' names, each seeing what the others made of the
object; those that want it are asked once more when somebody changed it after them. Validating webhooks are asked all at once.
Mirrors apiserver's plugin/webhook/mutating/dispatcher.go and validating/dispatcher.go.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from korch.api import patch as patches
from korch.api.errors import ApiError, BadRequest, Forbidden, InternalError
from korch.apiserver.admission import AdmissionRequest
from korch.apiserver.admission.attributes import Variables, described
from korch.apiserver.admission.configurations import Configurations
from korch.apiserver.admission.matching import ConditionFailed, conditions_hold, matched, selected
from korch.apiserver.audit.policy import Level
from korch.apiserver.audit.record import annotate
from korch.apiserver.webhook_client import WebhookClient, WebhookFailed
from korch.resources.admissionregistration.matching import CONDITION_VARIABLES
from korch.resources.resource import Catalogue, Resource
from korch.runtime.log import get_logger
from korch.runtime.rng import Rng

Object = dict[str, Any]
log = get_logger("webhooks")

# Puts a changed object in place of the request's, pruned and with defaults. Raises ApiError.
Replace = Callable[[AdmissionRequest, bytes], None]


@dataclass(frozen=True, slots=True)
class _Due:
    """A webhook that is about the request, and the resource in whose version it wants the object."""

    webhook: Mapping[str, Any]
    resource: Resource
    # The name of its configuration.
    configuration: str


class Webhooks:
    """Asks the webhooks of both kinds of configurations."""

    def __init__(
        self,
        *,
        mutating: Configurations,
        validating: Configurations,
        catalogue: Catalogue,
        client: WebhookClient,
        rng: Rng,
        replace: Replace,
    ) -> None:
        self._mutating = mutating
        self._validating = validating
        self._catalogue = catalogue
        self._client = client
        self._rng = rng
        self._replace = replace

    async def mutate(self, request: AdmissionRequest, variables: Variables, namespace_object: Callable[[], Object | None]) -> None:
        """Let mutating webhooks change the object. Raises ApiError."""
        asked: list[tuple[_Due, int, int]] = []
        changes = index = 0
        for configuration in self._mutating.all():
            for webhook in configuration.get("webhooks") or ():
                index += 1
                due = self._due(configuration, webhook, request, variables, namespace_object)
                if due is None:
                    continue
                changed = await self._mutate_by(due, request, f"round_0_index_{index - 1}")
                changes += changed
                asked.append((due, changes, index - 1))
                if changed:
                    variables.forget("object")
        for due, seen, position in asked:
            if seen < changes and due.webhook.get("reinvocationPolicy") == "IfNeeded":
                await self._mutate_by(due, request, f"round_1_index_{position}")
                variables.forget("object")

    async def validate(self, request: AdmissionRequest, variables: Variables, namespace_object: Callable[[], Object | None]) -> None:
        """Let validating webhooks refuse. Raises ApiError: the first refusal in the order of names."""
        due: list[_Due] = []
        for configuration in self._validating.all():
            for webhook in configuration.get("webhooks") or ():
                found = self._due(configuration, webhook, request, variables, namespace_object)
                due += [found] if found is not None else []
        if not due:
            return
        results = await asyncio.gather(*(self._ask(one, request) for one in due), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _due(
        self,
        configuration: Object,
        webhook: Mapping[str, Any],
        request: AdmissionRequest,
        variables: Variables,
        namespace_object: Callable[[], Object | None],
    ) -> _Due | None:
        resource = matched(webhook.get("rules") or (), webhook.get("matchPolicy") or "Equivalent", request, self._catalogue)
        if resource is None or not selected(webhook, request, namespace_object):
            return None
        try:
            holds = conditions_hold(webhook.get("matchConditions"), variables, CONDITION_VARIABLES)
        except ConditionFailed as error:
            if webhook.get("failurePolicy") == "Ignore":
                return None
            name = request.name or "Unknown"
            raise Forbidden(request.resource.group, request.resource.plural, name, str(error)) from error
        return _Due(webhook, resource, configuration["metadata"]["name"]) if holds else None

    async def _mutate_by(self, due: _Due, request: AdmissionRequest, turn: str) -> bool:
        """Ask one mutating webhook; return whether it changed the object. `turn` tells its place, for the audit."""
        response = await self._ask(due, request)
        if response is None:
            return False
        changed = self._change(due, request, response)
        told: Object = {"configuration": due.configuration, "webhook": due.webhook["name"]}
        annotate(f"mutation.webhook.admission.k8s.io/{turn}", orjson.dumps(told | {"mutated": changed}).decode())
        if changed:
            told |= {"patch": orjson.loads(base64.b64decode(response["patch"])), "patchType": "JSONPatch"}
            annotate(f"patch.webhook.admission.k8s.io/{turn}", orjson.dumps(told).decode(), at_least=Level.REQUEST)
        return changed

    def _change(self, due: _Due, request: AdmissionRequest, response: Object) -> bool:
        if not response.get("patch") or request.obj is None:
            return False
        name = due.webhook["name"]
        if response.get("patchType") != "JSONPatch":
            raise InternalError(f'failed calling webhook "{name}": unsupported patch type "{response.get("patchType") or ""}"')
        try:
            patch = base64.b64decode(response["patch"])
            before = orjson.dumps(in_version(request.obj, due.resource))
            after = patches.json_patch(before, patch)
        except (binascii.Error, patches.MalformedPatch, patches.UnprocessablePatch) as error:
            raise InternalError(str(error)) from error
        if after == before:
            return False
        back: Object = orjson.loads(after)
        if due.resource is not request.resource:
            back = in_version(back, request.resource)
        self._replace(request, orjson.dumps(back))
        return True

    async def _ask(self, due: _Due, request: AdmissionRequest) -> Object | None:
        """Return the response of one webhook that allows the request, None when it failed and may. Raises ApiError otherwise."""
        webhook, name = due.webhook, due.webhook["name"]
        if request.is_dry_run and webhook.get("sideEffects") not in ("None", "NoneOnDryRun"):
            raise BadRequest(f'admission webhook "{name}" does not support dry run')
        uid = self._rng.uid()
        body = described(request, due.resource, uid)
        for field, obj in (("object", request.obj), ("oldObject", request.old)):
            body[field] = None if obj is None else in_version(obj, due.resource)
        review = {"kind": "AdmissionReview", "apiVersion": f"admission.k8s.io/{_review_version(webhook)}", "request": body}
        try:
            timeout_s = float(webhook.get("timeoutSeconds") or 10)
            answer = await self._client.call(webhook.get("clientConfig") or {}, orjson.dumps(review), timeout_s=timeout_s)
            response = _response(answer, uid)
        except WebhookFailed as error:
            if webhook.get("failurePolicy") == "Ignore":
                told = {"configuration": due.configuration, "webhook": name}
                annotate(f"failed-open.webhook.admission.k8s.io/{name}", orjson.dumps(told).decode())
                log.info("webhook failed, and is ignored", webhook=name, error=str(error))
                return None
            raise InternalError(f'failed calling webhook "{name}": failed to call webhook: {error}') from error
        request.warnings += [str(one) for one in response.get("warnings") or ()]
        for key, value in (response.get("auditAnnotations") or {}).items():
            annotate(f"{name}/{key}", str(value))
        if not response.get("allowed"):
            raise denied(name, response.get("status"))
        return response


def in_version(obj: Object, resource: Resource) -> Object:
    """Return an object as `resource` shows it. Versions of one kind that are converted by nobody differ in their name."""
    if obj.get("apiVersion") == resource.api_version or obj.get("kind") != resource.kind:
        return obj
    return {**obj, "apiVersion": resource.api_version}


def denied(name: str, result: Mapping[str, Any] | None) -> ApiError:
    """Return the refusal of a webhook as its client sees it. Mirrors webhook/errors.ToStatusErr."""
    result = result or {}
    by = f'admission webhook "{name}" denied the request'
    reason = result.get("reason") or ""
    message = f"{by}: {result['message']}" if result.get("message") else f"{by}: {reason}" if reason else f"{by} without explanation"
    code = result.get("code") or 0
    return ApiError(code if code >= 400 else 400, reason or "", message, details=result.get("details"))


def _review_version(webhook: Mapping[str, Any]) -> str:
    return next((one for one in webhook.get("admissionReviewVersions") or () if one in ("v1", "v1beta1")), "v1")


def _response(answer: bytes, uid: str) -> Object:
    try:
        review = orjson.loads(answer)
    except orjson.JSONDecodeError as error:
        raise WebhookFailed(f"received invalid webhook response: {error}") from error
    if not isinstance(review, dict) or review.get("kind") != "AdmissionReview":
        found = f"{review.get('apiVersion')}, Kind={review.get('kind')}" if isinstance(review, dict) else "no object"
        raise WebhookFailed(
            f"received invalid webhook response: expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {found}"
        )
    response = review.get("response")
    if not isinstance(response, dict):
        raise WebhookFailed("received invalid webhook response: webhook response was absent")
    if response.get("uid") != uid:
        raise WebhookFailed(f'received invalid webhook response: expected response.uid="{uid}", got "{response.get("uid")}"')
    return response
