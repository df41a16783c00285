"""Makes resource claims from the templates that pods name, and frees claims that no pod uses any more.

Watches pods, claims and templates; writes claims and status.resourceClaimStatuses of pods. Invariants: a pod that needs a claim of its own
has exactly one, named in its status; a claim is reserved only for pods that exist and have not ended; without users it has no devices and
may be deleted; one that was made for a pod is deleted when that pod has ended. Mirrors upstream pkg/controller/resourceclaim.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from korch.api.errors import ApiError, NotFound
from korch.api.gvk import PODS, ResourceRef
from korch.api.meta import at, controller_of, is_deleting, key_of, name_of, namespace_of, uid_of
from korch.api.pods import is_terminal
from korch.client.controller import Controller, Requeue, Watch
from korch.client.projections import object_key
from korch.controllers.workload.pods import decode_pod

Object = dict[str, Any]

RESOURCE_CLAIMS = ResourceRef("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim")
RESOURCE_CLAIM_TEMPLATES = ResourceRef("resource.k8s.io", "v1", "resourceclaimtemplates", "ResourceClaimTemplate")
FINALIZER = "resource.kubernetes.io/delete-protection"
# Which of the pod's claims it is that was made from a template.
POD_CLAIM_ANNOTATION = "resource.kubernetes.io/pod-claim-name"

_POD, _CLAIM = "pod:", "claim:"
# Of a name of 63 letters a hyphen and five random ones take the rest.
_BASE_MAX = 57


def _pod_key(pod: Object) -> Iterable[str]:
    return (_POD + key_of(pod),) if at(pod, "spec", "resourceClaims") else ()


def _claim_key(claim: Object) -> Iterable[str]:
    owner = controller_of(claim)
    keys = [_CLAIM + key_of(claim)]
    if owner is not None and owner.get("kind") == "Pod":
        keys.append(_POD + object_key(namespace_of(claim), owner["name"]))
    return keys


def _templates(pod: Object) -> Iterable[str]:
    for one in at(pod, "spec", "resourceClaims") or ():
        if name := one.get("resourceClaimTemplateName"):
            yield object_key(namespace_of(pod), name)


def _owner_uid(claim: Object) -> Iterable[str]:
    return ((controller_of(claim) or {}).get("uid", ""),)


class ResourceClaimController(Controller):
    """Reconciles pods (`pod:namespace/name`) and claims (`claim:namespace/name`)."""

    name = "resource-claim-controller"
    watches = (
        Watch(PODS, keys="keys_of_pod", decode=decode_pod, indexes={"templates": _templates}),
        Watch(RESOURCE_CLAIMS, keys=_claim_key, decode=orjson.loads, indexes={"owner": _owner_uid}),
        Watch(RESOURCE_CLAIM_TEMPLATES, keys="keys_of_template", decode=orjson.loads),
    )

    def keys_of_pod(self, pod: Object) -> Iterable[str]:
        """Map a pod to itself and to the claims that it uses."""
        yield from _pod_key(pod)
        for name in _claim_names(pod).values():
            if name:
                yield _CLAIM + object_key(namespace_of(pod), name)

    def keys_of_template(self, template: Object) -> Iterable[str]:
        """Map a template to the pods that may wait for it."""
        return [_POD + key_of(pod) for pod in self.informer(PODS).by_index("templates", key_of(template))]

    async def reconcile(self, key: str) -> Requeue | None:
        if key.startswith(_POD):
            pod = self.informer(PODS).get_by_key(key.removeprefix(_POD))
            if pod is not None and not is_deleting(pod) and not is_terminal(pod):
                await self._make_claims(key, pod)
        else:
            claim = self.informer(RESOURCE_CLAIMS).get_by_key(key.removeprefix(_CLAIM))
            if claim is not None:
                await self._tidy(key, claim)
        return None

    async def _make_claims(self, key: str, pod: Object) -> None:
        names = _claim_names(pod)
        made: dict[str, str] = {}
        for wanted in at(pod, "spec", "resourceClaims") or ():
            if not wanted.get("resourceClaimTemplateName"):
                continue
            name = wanted["name"]
            if name in names and (names[name] is None or self._is_made_for(pod, names[name] or "")):
                continue
            found = self._claim_of(pod, name)
            try:
                made[name] = name_of(found) if found is not None else await self._make_claim(key, pod, wanted)
            except ApiError as error:
                self.recorder.event(pod, "Warning", "FailedResourceClaimCreation", f"PodResourceClaim {name}: {error}")
                raise
        if made:
            statuses = [{"name": name, "resourceClaimName": made.get(name, names.get(name))} for name in (names | made)]
            patch = {"metadata": {"uid": uid_of(pod)}, "status": {"resourceClaimStatuses": statuses}}
            namespace = namespace_of(pod)
            written = await self.client.patch(PODS, name_of(pod), patch, namespace=namespace, subresource="status", patch_type="strategic")
            self.wrote(key, PODS, written)
        elif at(pod, "spec", "nodeName"):
            await self._reserve(key, pod, names)

    async def _make_claim(self, key: str, pod: Object, wanted: Object) -> str:
        template_key = object_key(namespace_of(pod), wanted["resourceClaimTemplateName"])
        template = self.informer(RESOURCE_CLAIM_TEMPLATES).get_by_key(template_key)
        if template is None:
            raise NotFound(RESOURCE_CLAIM_TEMPLATES.group, RESOURCE_CLAIM_TEMPLATES.plural, wanted["resourceClaimTemplateName"])
        meta = at(template, "spec", "metadata") or {}
        owner = {"apiVersion": "v1", "kind": "Pod", "name": name_of(pod), "uid": uid_of(pod), "controller": True}
        claim = {
            "metadata": {
                "generateName": _base_name(name_of(pod), wanted["name"]),
                "labels": meta.get("labels") or {},
                "annotations": {**(meta.get("annotations") or {}), POD_CLAIM_ANNOTATION: wanted["name"]},
                "ownerReferences": [owner],
            },
            "spec": at(template, "spec", "spec") or {},
        }
        written = await self.client.create(RESOURCE_CLAIMS, claim, namespace=namespace_of(pod))
        self.wrote(key, RESOURCE_CLAIMS, written)
        return orjson.loads(written)["metadata"]["name"]

    async def _reserve(self, key: str, pod: Object, names: dict[str, str | None]) -> None:
        """Reserve claims for a pod that got its node otherwise than by a scheduler that does this."""
        user = {"resource": "pods", "name": name_of(pod), "uid": uid_of(pod)}
        for name in names.values():
            claim = self.informer(RESOURCE_CLAIMS).get_by_key(object_key(namespace_of(pod), name or ""))
            if claim is None or not at(claim, "status", "allocation"):
                continue
            users = at(claim, "status", "reservedFor") or []
            if all(one.get("uid") != user["uid"] for one in users):
                await self._update(key, {**claim, "status": {**claim["status"], "reservedFor": [*users, user]}}, "status")

    async def _tidy(self, key: str, claim: Object) -> None:
        """Take away users that are no more; free a claim without users, and delete it when it was made for a pod that has ended."""
        users = at(claim, "status", "reservedFor") or []
        left = [one for one in users if await self._is_in_use(claim, one)]
        is_guarded = FINALIZER in (at(claim, "metadata", "finalizers") or ())
        is_to_be_freed = not left and is_guarded and (len(left) < len(users) or is_deleting(claim))
        if len(left) < len(users) or (is_to_be_freed and at(claim, "status", "allocation")):
            status = {name: value for name, value in (claim.get("status") or {}).items() if name not in ("allocation", "reservedFor")}
            if not is_to_be_freed and at(claim, "status", "allocation"):
                status["allocation"] = claim["status"]["allocation"]
            if left:
                status["reservedFor"] = left
            claim = await self._update(key, {**claim, "status": status}, "status")
        if is_to_be_freed:
            kept = [one for one in at(claim, "metadata", "finalizers") or () if one != FINALIZER]
            claim = await self._update(key, {**claim, "metadata": {**claim["metadata"], "finalizers": kept}}, "")
        if not left and not is_deleting(claim) and self._is_left_over(claim):
            await self.client.delete(RESOURCE_CLAIMS, name_of(claim), namespace=namespace_of(claim))

    async def _update(self, key: str, claim: Object, subresource: str) -> Object:
        written = await self.client.update(
            RESOURCE_CLAIMS, claim, name=name_of(claim), namespace=namespace_of(claim), subresource=subresource
        )
        self.wrote(key, RESOURCE_CLAIMS, written)
        return orjson.loads(written)

    async def _is_in_use(self, claim: Object, user: Object) -> bool:
        if user.get("apiGroup") or user.get("resource") != "pods":
            return True
        pod = self.informer(PODS).get_by_key(object_key(namespace_of(claim), user.get("name", "")))
        if pod is None:
            # The cache may be behind whoever reserved it.
            try:
                pod = orjson.loads(await self.client.get(PODS, user.get("name", ""), namespace=namespace_of(claim)))
            except NotFound:
                return False
        return uid_of(pod) == user.get("uid") and not _is_done(pod)

    def _is_left_over(self, claim: Object) -> bool:
        """Return whether the claim was made for a pod that has ended or been replaced; one that is gone is the garbage collector's."""
        owner = controller_of(claim)
        if owner is None or owner.get("kind") != "Pod":
            return False
        pod = self.informer(PODS).get_by_key(object_key(namespace_of(claim), owner["name"]))
        return pod is not None and (uid_of(pod) != owner.get("uid") or _is_done(pod))

    def _is_made_for(self, pod: Object, name: str) -> bool:
        claim = self.informer(RESOURCE_CLAIMS).get_by_key(object_key(namespace_of(pod), name))
        return claim is not None and (controller_of(claim) or {}).get("uid") == uid_of(pod)

    def _claim_of(self, pod: Object, name: str) -> Object | None:
        """Return the claim that was made for the pod already, though its status does not say so."""
        for claim in self.informer(RESOURCE_CLAIMS).by_index("owner", uid_of(pod)):
            if (at(claim, "metadata", "annotations") or {}).get(POD_CLAIM_ANNOTATION) == name and not is_deleting(claim):
                return claim
        return None


def _claim_names(pod: Object) -> dict[str, str | None]:
    """Return the claim's name for each of the pod's claims that has one, or None where it was found to need none."""
    made = {one["name"]: one.get("resourceClaimName") for one in at(pod, "status", "resourceClaimStatuses") or ()}
    named = {one["name"]: one["resourceClaimName"] for one in at(pod, "spec", "resourceClaims") or () if one.get("resourceClaimName")}
    return made | named


def _is_done(pod: Object) -> bool:
    return is_terminal(pod) or (is_deleting(pod) and not at(pod, "spec", "nodeName"))


def _base_name(pod: str, claim: str) -> str:
    base = f"{pod}-{claim}-"
    if len(base) <= _BASE_MAX:
        return base
    # Both give up an equal share.
    return f"{pod[: len(pod) * _BASE_MAX // len(base)]}-{claim[: len(claim) * _BASE_MAX // len(base)]}"
