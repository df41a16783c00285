"""Nobody grants what he does not have: writes of roles and bindings are held against the writer's own rules.

The way around is the verb `escalate` on a role, or `bind` on the role that a binding names. Admission in form, because it needs
object and user; mirrors kubernetes' pkg/registry/rbac/{role,clusterrole,rolebinding,clusterrolebinding}/policybased.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from korch.api.errors import ApiError, Forbidden, NotFound
from korch.apiserver.admission import AdmissionRequest
from korch.apiserver.authz.rbac import Rbac, RoleNotFound
from korch.apiserver.authz.rules import EVERYTHING, Rule, quoted, uncovered
from korch.apiserver.identity import User
from korch.apiserver.request_info import RequestInfo
from korch.resources.rbac.rules import GROUP
from korch.resources.resource import Object

_PRIVILEGED = "system:masters"


class EscalationCheck:
    """Sees every write of a role or binding."""

    def __init__(self, rbac: Rbac) -> None:
        self._rbac = rbac

    def admit(self, request: AdmissionRequest) -> None:
        """Raise Forbidden for a grant beyond the writer's own rules, NotFound for a binding of a role that is missing."""
        resource, obj = request.resource, request.obj
        if resource.group != GROUP or obj is None or request.operation == "DELETE" or _PRIVILEGED in request.user.groups:
            return
        if resource.plural in ("roles", "clusterroles"):
            self._check_role(request, obj)
        elif resource.plural in ("rolebindings", "clusterrolebindings"):
            self._check_binding(request, obj)

    def _check_role(self, request: AdmissionRequest, obj: Object) -> None:
        old, name = request.old or {}, obj["metadata"].get("name") or ""
        if old and all((old.get(field) or None) == (obj.get(field) or None) for field in ("rules", "aggregationRule")):
            return
        if self._may(request.user, "escalate", request.resource.plural, request.namespace, name):
            return
        wanted = [Rule.of(rule) for rule in obj.get("rules") or ()]
        if obj.get("aggregationRule") and self._lacks(request.user, "", EVERYTHING):
            raise Forbidden(GROUP, request.resource.plural, name, "must have cluster-admin privileges to use an aggregationRule")
        self._require(request, name, wanted)

    def _check_binding(self, request: AdmissionRequest, obj: Object) -> None:
        name, role = obj["metadata"].get("name") or "", obj.get("roleRef") or {}
        old = request.old or {}
        if old and all((old.get(field) or None) == (obj.get(field) or None) for field in ("roleRef", "subjects")):
            return
        kind, role_name = role.get("kind") or "", role.get("name") or ""
        if self._may(request.user, "bind", f"{kind.lower()}s", request.namespace, role_name):
            return
        try:
            wanted = self._rbac.rules_of_role(kind, request.namespace, role_name)
        except RoleNotFound as error:
            raise NotFound(GROUP, f"{error.kind.lower()}s", error.name) from error
        self._require(request, name, wanted)

    def _require(self, request: AdmissionRequest, name: str, wanted: Iterable[Rule]) -> None:
        missing = self._lacks(request.user, request.namespace, wanted)
        if missing:
            shown = "\n".join(sorted(rule.show() for rule in missing))
            user = request.user
            why = f'user "{user.name}" (groups={quoted(user.groups)}) is attempting to grant RBAC permissions not currently held:\n{shown}'
            raise _refusal(request, name, why)

    def _lacks(self, user: User, namespace: str, wanted: Iterable[Rule]) -> Sequence[Rule]:
        return uncovered(self._rbac.rules_for(user, namespace), wanted)

    def _may(self, user: User, verb: str, plural: str, namespace: str, name: str) -> bool:
        asked = RequestInfo(
            verb=verb, path="", is_resource=True, group=GROUP, version="v1", resource=plural, namespace=namespace, name=name
        )
        return self._rbac.authorize(user, asked).is_allowed


def _refusal(request: AdmissionRequest, name: str, why: str) -> ApiError:
    return Forbidden(GROUP, request.resource.plural, name, why)
