"""Answers to TokenReview, SelfSubjectReview and the SubjectAccessReview family, and tokens by TokenRequest.

Virtual kinds: the answer is the request with its status filled in; nothing is stored. Mirrors upstream's
pkg/registry/{authentication,authorization} and registry/core/serviceaccount/storage/token.go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from korch.api.errors import BadRequest, Conflict, Invalid, NotFound, invalid, required
from korch.apiserver.authn.bearer import BearerTokens, TokenRejected
from korch.apiserver.authn.service_account_tokens import Bound, Lookup, ServiceAccountTokens
from korch.apiserver.authz.rules import Rule
from korch.apiserver.identity import Authorizer, User, user_info
from korch.apiserver.request_info import RequestInfo
from korch.runtime.clock import rfc3339
from korch.runtime.rng import Rng

_EXPIRATION_S_MIN = 600
_EXPIRATION_S_MAX = 1 << 32
_EXPIRATION_S_DEFAULT = 3600
# Kinds a token can be bound to -> their plural.
_BINDABLE = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}


async def review_token(review: dict[str, Any], bearer: BearerTokens) -> dict[str, Any]:
    """Return the TokenReview with its status. Raises Invalid when spec.token is missing."""
    spec = review.get("spec") or {}
    token = str(spec.get("token") or "")
    if not token:
        raise Invalid("authentication.k8s.io", "TokenReview", "", [required("spec.token", "a token must be specified")])
    await bearer.resolve(token)
    try:
        found = bearer.identify(token, spec.get("audiences") or [])
    except TokenRejected as error:
        status: dict[str, Any] = {"user": {}, "error": str(error)}
    else:
        status = {"authenticated": True, "user": user_info(found.user), "audiences": list(found.audiences)}
    return {**review, "status": status}


def review_self(review: dict[str, Any], user: User) -> dict[str, Any]:
    """Return the SelfSubjectReview with who asked."""
    return {**review, "status": {"userInfo": user_info(user)}}


def review_access(review: dict[str, Any], authorizer: Authorizer, asking: User, *, kind: str, namespace: str) -> dict[str, Any]:
    """Return a SubjectAccessReview, LocalSubjectAccessReview or SelfSubjectAccessReview with its verdict. Raises Invalid."""
    spec = review.get("spec") or {}
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    group = "authorization.k8s.io"
    if (resource is None) == (path is None):
        why = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        raise Invalid(group, kind, "", [invalid("spec.resourceAttributes", resource, why)])
    subject = asking
    if kind != "SelfSubjectAccessReview":
        if not spec.get("user") and not spec.get("groups"):
            raise Invalid(group, kind, "", [invalid("spec.user", spec.get("user", ""), "at least one of user or group must be specified")])
        subject = User(str(spec.get("user", "")), str(spec.get("uid", "")), tuple(spec.get("groups") or ()), spec.get("extra") or {})
    if kind == "LocalSubjectAccessReview" and (resource or {}).get("namespace", "") != namespace:
        field = "spec.resourceAttributes.namespace"
        raise Invalid(
            group, kind, "", [invalid(field, (resource or {}).get("namespace", ""), f"must match metadata.namespace: {namespace}")]
        )
    verdict = authorizer.authorize(subject, _as_request(resource, path))
    status: dict[str, Any] = {"allowed": verdict.is_allowed}
    if verdict.reason:
        status["reason"] = verdict.reason
    return {**review, "status": status}


def review_rules(review: dict[str, Any], rules: Sequence[Rule], *, is_complete: bool) -> dict[str, Any]:
    """Return a SelfSubjectRulesReview: `rules` are what the asker may do in spec.namespace. Raises BadRequest without a namespace."""
    if not (review.get("spec") or {}).get("namespace"):
        raise BadRequest("no namespace on request")
    resource_rules: list[dict[str, Any]] = []
    path_rules: list[dict[str, Any]] = []
    for rule in rules:
        (path_rules if rule.urls else resource_rules).append(rule.as_object())
    status: dict[str, Any] = {"resourceRules": resource_rules, "nonResourceRules": path_rules, "incomplete": not is_complete}
    if not is_complete:
        status["evaluationError"] = "node authorizer doesn't support user rule resolution"
    return {**review, "status": status}


def request_token(
    request: dict[str, Any],
    namespace: str,
    name: str,
    *,
    tokens: ServiceAccountTokens,
    lookup: Lookup,
    node_of: Callable[[str, str], str],
    rng: Rng,
) -> dict[str, Any]:
    """Return the TokenRequest with status.token. Raises NotFound (account, bound object), Conflict (uid), Invalid.

    `node_of(namespace, pod name)` returns the name of the node that a pod is bound to, or "".
    """
    spec = request.get("spec") or {}
    uid = lookup("serviceaccounts", namespace, name)
    if not uid:
        raise NotFound("", "serviceaccounts", name)
    expiration_s = spec.get("expirationSeconds")
    expiration_s = _EXPIRATION_S_DEFAULT if expiration_s is None else int(expiration_s)
    if expiration_s < _EXPIRATION_S_MIN:
        causes = [invalid("spec.expirationSeconds", expiration_s, "may not specify a duration less than 10 minutes")]
        raise Invalid("authentication.k8s.io", "TokenRequest", name, causes)
    if expiration_s > _EXPIRATION_S_MAX:
        causes = [invalid("spec.expirationSeconds", expiration_s, "may not specify a duration larger than 2^32 seconds")]
        raise Invalid("authentication.k8s.io", "TokenRequest", name, causes)
    bound = _bound(spec.get("boundObjectRef"), namespace, name, lookup, node_of)
    audiences = list(spec.get("audiences") or tokens.audiences)
    issued = tokens.issue(namespace, name, uid, audiences=audiences, expiration_s=expiration_s, bound=bound, token_id=rng.uid())
    answer = {**request, "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
    answer["metadata"] = {"name": name, "namespace": namespace, **(request.get("metadata") or {})}
    answer["spec"] = {**spec, "audiences": audiences, "expirationSeconds": expiration_s, "boundObjectRef": spec.get("boundObjectRef")}
    answer["status"] = {"token": issued.token, "expirationTimestamp": rfc3339(issued.expires_at)}
    return answer


def _bound(
    reference: dict[str, Any] | None, namespace: str, account: str, lookup: Lookup, node_of: Callable[[str, str], str]
) -> Bound | None:
    if not reference:
        return None
    kind, name = str(reference.get("kind", "")), str(reference.get("name", ""))
    plural = _BINDABLE.get(kind)
    if plural is None or reference.get("apiVersion", "v1") != "v1":
        why = f"cannot bind token for serviceaccount to object {reference.get('apiVersion', '')}, Kind={kind}"
        raise Invalid("authentication.k8s.io", "TokenRequest", account, [invalid("spec.boundObjectRef", kind, why)])
    uid = lookup(plural, "" if kind == "Node" else namespace, name)
    if not uid:
        raise NotFound("", plural, name)
    if reference.get("uid") and reference["uid"] != uid:
        why = (
            f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record. "
            "The object might have been deleted and then recreated"
        )
        raise Conflict("", plural, name, why)
    node = node_of(namespace, name) if kind == "Pod" else ""
    return Bound(kind, name, uid, node=(node, lookup("nodes", "", node)) if node else None)


def _as_request(resource: dict[str, Any] | None, path: dict[str, Any] | None) -> RequestInfo:
    if path is not None:
        return RequestInfo(verb=str(path.get("verb", "")), path=str(path.get("path", "")))
    given = resource or {}
    return RequestInfo(
        verb=str(given.get("verb", "")),
        path="",
        is_resource=True,
        group=str(given.get("group", "")),
        version=str(given.get("version", "")),
        namespace=str(given.get("namespace", "")),
        resource=str(given.get("resource", "")),
        subresource=str(given.get("subresource", "")),
        name=str(given.get("name", "")),
    )
