"""A write as webhooks and expressions see it: the request of an AdmissionReview, and the variables of CEL.

Mirrors apiserver's admission.Attributes and plugin/webhook/request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from korch._core import native
from korch.apiserver.admission import AdmissionRequest
from korch.apiserver.identity import Authorizer, User
from korch.apiserver.request_info import RequestInfo
from korch.resources.admissionregistration.authorizer import AskingExpression, Question
from korch.resources.resource import Resource

Object = dict[str, Any]

_OPTIONS = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}
# Bodies of subresources that are not of the parent's kind.
_BODY_KINDS = {
    "scale": ("autoscaling", "v1", "Scale"),
    "eviction": ("policy", "v1", "Eviction"),
    "binding": ("", "v1", "Binding"),
    "token": ("authentication.k8s.io", "v1", "TokenRequest"),
    "exec": ("", "v1", "PodExecOptions"),
    "attach": ("", "v1", "PodAttachOptions"),
    "portforward": ("", "v1", "PodPortForwardOptions"),
}


def kind_of(request: AdmissionRequest, resource: Resource) -> Object:
    """Return group, version and kind of the request's body when it is about `resource`."""
    if request.subresource == "proxy":
        return {"group": "", "version": "v1", "kind": f"{resource.kind}ProxyOptions"}
    group, version, kind = _BODY_KINDS.get(request.subresource, (resource.group, resource.version, resource.kind))
    return {"group": group, "version": version, "kind": kind}


def resource_of(resource: Resource) -> Object:
    """Return group, version and plural."""
    return {"group": resource.group, "version": resource.version, "resource": resource.plural}


def described(request: AdmissionRequest, resource: Resource, uid: str = "") -> Object:
    """Return the request of an AdmissionReview v1 without its objects. `resource` is the one in whose version they are sent."""
    user: Object = {"username": request.user.name}
    if request.user.uid:
        user["uid"] = request.user.uid
    if request.user.groups:
        user["groups"] = list(request.user.groups)
    if extra := getattr(request.user, "extra", None):
        user["extra"] = {key: list(values) for key, values in dict(extra).items()}
    found: Object = {
        "uid": uid,
        "kind": kind_of(request, resource),
        "resource": resource_of(resource),
        "requestKind": kind_of(request, request.resource),
        "requestResource": resource_of(request.resource),
        "name": request.name,
        "namespace": request.namespace,
        "operation": request.operation,
        "userInfo": user,
        "dryRun": request.is_dry_run,
        # A connection's parameters are its object, and there are no others.
        "options": {"kind": _OPTIONS[request.operation], "apiVersion": "meta.k8s.io/v1"} if request.operation in _OPTIONS else None,
    }
    if request.subresource:
        found |= {"subResource": request.subresource, "requestSubResource": request.subresource}
    return {key: value for key, value in found.items() if value != "" or key in ("uid", "operation")}


class Variables:
    """The CEL variables of one request, each made when an expression first names it."""

    def __init__(
        self,
        request: AdmissionRequest,
        resource: Resource,
        namespace_object: Callable[[], Object | None],
        authorizer: Authorizer | None = None,
    ) -> None:
        self._request = request
        self._authorizer = authorizer
        self._makers: dict[str, Callable[[], Any]] = {
            "object": lambda: request.obj,
            "oldObject": lambda: request.old,
            "request": lambda: described(request, resource),
            "namespaceObject": namespace_object,
            "params": lambda: None,
            "authorizer": dict,
            "variables": dict,
        }
        self._made: dict[str, native.CelValue] = {}

    def value(self, name: str) -> native.CelValue:
        """Return one variable."""
        found = self._made.get(name)
        if found is None:
            found = self._made[name] = native.CelValue(orjson.dumps(self._makers[name]()))
        return found

    def set(self, name: str, value: Any) -> None:
        """Give a variable another value from now on."""
        self._made[name] = native.CelValue(orjson.dumps(value))

    def forget(self, *names: str) -> None:
        """Make variables anew when they are next named, since what they show has changed."""
        for name in names:
            self._made.pop(name, None)

    def evaluate(self, expression: native.CelExpression | AskingExpression) -> Any:
        """Return the result as plain values. Raises ValueError with the reason."""
        if isinstance(expression, AskingExpression):
            self.set("authorizer", {f"c{index}": self._answer(one) for index, one in enumerate(expression.questions)})
            expression = expression.rest
        used = [(name, self.value(name)) for name in self._makers if expression.mentions(name)]
        return orjson.loads(expression.evaluate(used))

    def _answer(self, question: Question) -> Object:
        """Ask the authorizer what a policy asks, for the user of the request or for a service account."""
        user, given = self._request.user, self._own() if question.is_own else {}
        is_path = False
        for name, arguments in question.steps:
            values = [str(self.evaluate(one)) for one in arguments]
            if name == "serviceAccount":
                namespace, account = values
                groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
                user = User(f"system:serviceaccount:{namespace}:{account}", groups=groups)
            elif name == "path":
                is_path, given["path"] = True, values[0]
            elif name in ("group", "resource", "subresource", "namespace", "name"):
                given[name] = values[0]
            elif name == "fieldSelector":
                given["field_selector"] = values[0]
        verb = str(self.evaluate(question.verb))
        info = RequestInfo(verb=verb, is_resource=not is_path, **({"path": ""} | given))
        if self._authorizer is None:
            return {"allowed": False, "reason": "", "errored": True, "error": "no authorizer"}
        verdict = self._authorizer.authorize(user, info)
        return {"allowed": verdict.is_allowed, "reason": verdict.reason, "errored": False, "error": ""}

    def _own(self) -> dict[str, str]:
        request = self._request
        return {
            "group": request.resource.group,
            "version": request.resource.version,
            "resource": request.resource.plural,
            "subresource": request.subresource,
            "namespace": request.namespace,
            "name": request.name,
        }
