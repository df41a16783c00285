"""Who may do what: roles and bindings from the moment they are written to the moment they are taken away."""

from __future__ import annotations

from typing import Any

import pytest
from access import RBAC, Access, with_access
from api_exchange import config_map

from korch.apiserver.authz.policy import default_policy
from korch.apiserver.authz.rules import Rule, uncovered

Object = dict[str, Any]


def rule(verbs: str, resources: str, group: str = "", **more: Any) -> Object:
    return {"verbs": verbs.split(","), "apiGroups": [group], "resources": resources.split(","), **more}


@with_access
async def test_a_user_without_a_role_is_told_what_he_may_not_do(access: Access) -> None:
    path = await access.namespace()
    jane = access.user("jane")
    why = 'pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "d"'
    assert (await jane.get(f"{path}/pods")).says == (403, "Forbidden", why)
    assert (await jane.get(f"{path}/pods/p/log")).says[2] == (
        'pods "p" is forbidden: User "jane" cannot get resource "pods/log" in API group "" in the namespace "d"'
    )
    assert (await jane.get("/apis/apps/v1/deployments")).says[2] == (
        'deployments.apps is forbidden: User "jane" cannot list resource "deployments" in API group "apps" at the cluster scope'
    )
    assert (await jane.get("/metrics")).says[2] == 'forbidden: User "jane" cannot get path "/metrics"'


@with_access
async def test_the_anonymous_see_health_and_version_and_nothing_else(access: Access) -> None:
    nobody = access.user("")
    assert [(await nobody.get(path)).code for path in ("/healthz", "/readyz", "/livez", "/version")] == [200] * 4
    for path in ("/api", "/apis", "/openapi/v2", "/metrics", "/api/v1/pods", f"{RBAC}/clusterroles", "/livez/ping"):
        answer = await nobody.get(path)
        assert answer.code == 403, path
        assert 'User "system:anonymous" cannot' in answer.says[2]
    assert (await access.user("jane").get("/apis")).code == 200


@with_access
async def test_a_grant_holds_in_its_namespace_for_its_verbs_and_names_only(access: Access) -> None:
    path, other = await access.namespace(), await access.namespace("other")
    only_one = rule("get,list,watch,update", "configmaps", resourceNames=["one"])
    await access.admin.grant("jane", "reader", only_one, rule("create", "configmaps"), namespace="d")
    jane = access.user("jane")
    await jane.made(f"{path}/configmaps", config_map("one"))
    await jane.made(f"{path}/configmaps", config_map("two"))
    assert (await jane.get(f"{path}/configmaps/one")).code == 200
    assert (await jane.get(f"{path}/configmaps/two")).code == 403
    assert (await jane.get(f"{path}/configmaps")).code == 403
    assert (await jane.get(f"{path}/configmaps", fieldSelector="metadata.name=one")).code == 200
    assert (await jane.get(f"{other}/configmaps/one")).code == 403
    assert (await jane.call("DELETE", f"{path}/configmaps/one")).code == 403


@with_access
async def test_a_revocation_that_was_acknowledged_holds_for_the_next_request(access: Access) -> None:
    path = await access.namespace()
    await access.admin.grant("jane", "reader", rule("list", "pods"), namespace="d")
    jane, bindings = access.user("jane"), f"{RBAC}/namespaces/d/rolebindings"
    for _ in range(3):
        assert (await jane.get(f"{path}/pods")).code == 200
    assert (await access.admin.call("DELETE", f"{bindings}/reader-jane")).code == 200
    assert (await jane.get(f"{path}/pods")).code == 403
    await access.admin.grant("jane", "reader2", rule("list", "pods"), namespace="d")
    assert (await jane.get(f"{path}/pods")).code == 200
    assert (
        await access.admin.call("PUT", f"{RBAC}/namespaces/d/roles/reader2", {"metadata": {"name": "reader2"}, "rules": []})
    ).code == 200
    assert (await jane.get(f"{path}/pods")).code == 403


@with_access
async def test_groups_and_service_accounts_are_subjects_too(access: Access) -> None:
    path = await access.namespace()
    await access.admin.grant("team", "view", namespace="d", kind="Group")
    assert (await access.user("jane|team").get(f"{path}/pods")).code == 200
    assert (await access.user("jane|team").get(f"{path}/secrets")).code == 403
    account = {"kind": "ServiceAccount", "name": "robot", "namespace": "d"}
    reference = {"kind": "ClusterRole", "name": "edit"}
    await access.admin.made(f"{RBAC}/clusterrolebindings", {"metadata": {"name": "r"}, "subjects": [account], "roleRef": reference})
    assert (await access.user("system:serviceaccount:d:robot").get("/api/v1/secrets")).code == 200
    assert (await access.user("robot").get("/api/v1/secrets")).code == 403


@with_access
async def test_nobody_grants_what_he_does_not_have(access: Access) -> None:
    await access.namespace()
    await access.admin.grant("jane", "granter", rule("*", "roles,rolebindings", "rbac.authorization.k8s.io"), namespace="d")
    await access.admin.grant("jane", "podder", rule("get,list", "pods"), namespace="d")
    jane, where = access.user("jane"), f"{RBAC}/namespaces/d"
    await jane.made(f"{where}/roles", {"metadata": {"name": "fine"}, "rules": [rule("get", "pods")]})
    beyond = {"metadata": {"name": "beyond"}, "rules": [rule("get,delete", "pods,secrets")]}
    # `*` on roles holds `escalate`, so a narrower granter is needed to be refused.
    assert (await jane.post(f"{where}/roles", beyond)).code == 201
    await access.admin.grant("tom", "narrow", rule("create,update", "roles,rolebindings", "rbac.authorization.k8s.io"), namespace="d")
    await access.admin.grant("tom", "tompods", rule("get", "pods"), namespace="d")
    tom = access.user("tom")
    assert (await tom.post(f"{where}/roles", {**beyond, "metadata": {"name": "b2"}})).says == (
        403,
        "Forbidden",
        'roles.rbac.authorization.k8s.io "b2" is forbidden: user "tom" (groups=["system:authenticated"]) is attempting to grant RBAC '
        'permissions not currently held:\n{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}\n'
        '{APIGroups:[""], Resources:["secrets"], Verbs:["delete" "get"]}',
    )
    binding: Object = {
        "metadata": {"name": "b"},
        "subjects": [{"kind": "User", "name": "tom"}],
        "roleRef": {"kind": "Role", "name": "beyond"},
    }
    assert (await tom.post(f"{where}/rolebindings", binding)).code == 403
    assert (await tom.post(f"{where}/rolebindings", binding | {"roleRef": {"kind": "Role", "name": "fine"}})).code == 201
    missing = binding | {"metadata": {"name": "m"}, "roleRef": {"kind": "Role", "name": "nope"}}
    assert (await tom.post(f"{where}/rolebindings", missing)).says[2] == 'roles.rbac.authorization.k8s.io "nope" not found'
    await access.admin.grant("tom", "binder", rule("bind", "roles", "rbac.authorization.k8s.io", resourceNames=["beyond"]), namespace="d")
    assert (await tom.post(f"{where}/rolebindings", binding | {"metadata": {"name": "b2"}})).code == 201


@with_access
async def test_a_missing_role_is_named_in_the_refusal(access: Access) -> None:
    await access.namespace()
    await access.admin.grant("jane", "ghost", namespace="d")
    assert (
        (await access.user("jane").get("/api/v1/namespaces/d/pods"))
        .says[2]
        .endswith('in the namespace "d": RBAC: clusterrole.rbac.authorization.k8s.io "ghost" not found')
    )


@with_access
async def test_roles_and_bindings_that_make_no_sense_are_refused(access: Access) -> None:
    await access.namespace()
    where = f"{RBAC}/namespaces/d"
    bad_role = {"metadata": {"name": "r"}, "rules": [{"verbs": []}, {"verbs": ["get"], "nonResourceURLs": ["/x"]}]}
    causes = (await access.admin.post(f"{where}/roles", bad_role)).json["details"]["causes"]
    assert [(one["field"], one["message"]) for one in causes] == [
        ("rules[0].verbs", "Required value: verbs must contain at least one value"),
        ("rules[0].apiGroups", "Required value: resource rules must supply at least one api group"),
        ("rules[0].resources", "Required value: resource rules must supply at least one resource"),
        ("rules[1].nonResourceURLs", 'Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs'),
    ]
    bad_binding = {"metadata": {"name": "b"}, "subjects": [{"kind": "Robot", "name": "x"}], "roleRef": {"kind": "Job", "name": "x"}}
    causes = (await access.admin.post(f"{where}/rolebindings", bad_binding)).json["details"]["causes"]
    assert [one["field"] for one in causes] == ["roleRef.kind", "subjects[0].kind"]
    good = {"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "view"}}
    stored = await access.admin.made(f"{where}/rolebindings", good)
    assert stored["roleRef"]["apiGroup"] == "rbac.authorization.k8s.io"
    changed = {**stored, "roleRef": {**stored["roleRef"], "name": "edit"}}
    assert "cannot change roleRef" in (await access.admin.call("PUT", f"{where}/rolebindings/b", changed)).says[2]


@with_access
async def test_reviews_answer_from_the_same_rules(access: Access) -> None:
    await access.namespace()
    await access.admin.grant("jane", "view", namespace="d")
    reviews = "/apis/authorization.k8s.io/v1"

    async def can(user: str, verb: str, resource: str, namespace: str = "d") -> Object:
        spec = {"resourceAttributes": {"verb": verb, "resource": resource, "namespace": namespace}}
        return (await access.user(user).post(f"{reviews}/selfsubjectaccessreviews", {"spec": spec})).json["status"]

    assert await can("jane", "list", "pods") == {
        "allowed": True,
        "reason": 'RBAC: allowed by RoleBinding "view-jane/d" of ClusterRole "view" to User "jane"',
    }
    assert await can("jane", "delete", "pods") == {"allowed": False}
    assert (await can("jane", "list", "pods", ""))["allowed"] is False
    spec = {"user": "jane", "resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "d"}}
    assert (await access.user("tom").post(f"{reviews}/subjectaccessreviews", {"spec": spec})).code == 403
    assert (await access.admin.post(f"{reviews}/subjectaccessreviews", {"spec": spec})).json["status"]["allowed"] is True
    rules = (await access.user("jane").post(f"{reviews}/selfsubjectrulesreviews", {"spec": {"namespace": "d"}})).json["status"]
    assert rules["incomplete"] is False
    assert any("pods/log" in one["resources"] and one["verbs"] == ["get", "list", "watch"] for one in rules["resourceRules"])
    assert any("/healthz" in one["nonResourceURLs"] for one in rules["nonResourceRules"])


@with_access
async def test_impersonation_needs_its_own_verb_and_then_holds(access: Access) -> None:
    path = await access.namespace()
    await access.admin.grant("jane", "view", namespace="d")
    as_jane = {"impersonate-user": "jane"}
    assert (await access.user("tom").get(f"{path}/pods", headers=as_jane)).says[2] == (
        'users "jane" is forbidden: User "tom" cannot impersonate resource "users" in API group "" at the cluster scope'
    )
    assert (await access.admin.get(f"{path}/pods", headers=as_jane)).code == 200
    assert (await access.admin.get(f"{path}/secrets", headers=as_jane)).code == 403
    who = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    headers = {"impersonate-user": "jane", "impersonate-group": "team", "impersonate-extra-scopes": "a", "impersonate-uid": "u1"}
    shown = (await access.admin.post(who, {}, headers=headers)).json["status"]["userInfo"]
    assert shown == {"username": "jane", "uid": "u1", "groups": ["team", "system:authenticated"], "extra": {"scopes": ["a"]}}
    robot = {"impersonate-user": "system:serviceaccount:d:robot"}
    shown = (await access.admin.post(who, {}, headers=robot)).json["status"]["userInfo"]
    assert shown["groups"] == ["system:serviceaccounts", "system:serviceaccounts:d", "system:authenticated"]
    assert (await access.admin.get(f"{path}/pods", headers={"impersonate-group": "team"})).code == 400


@with_access
async def test_default_roles_are_there_and_mended(access: Access) -> None:
    names = {one["metadata"]["name"] for one in (await access.admin.get(f"{RBAC}/clusterroles")).json["items"]}
    assert {"cluster-admin", "admin", "edit", "view", "system:discovery", "system:node", "system:controller:job-controller"} <= names
    admin = (await access.admin.get(f"{RBAC}/clusterroles/admin")).json
    assert admin["aggregationRule"]["clusterRoleSelectors"][0]["matchLabels"] == {"rbac.authorization.k8s.io/aggregate-to-admin": "true"}
    granted = [Rule.of(one) for one in admin["rules"]]
    assert uncovered(granted, [Rule.of(rule("create", "pods/eviction")), Rule.of(rule("get", "pods/log"))]) == []
    assert uncovered(granted, [Rule.of(rule("create", "nodes"))]) != []


def test_every_default_binding_names_a_default_role() -> None:
    objects = [obj for _, obj in default_policy()]
    addresses = [(obj["kind"], obj["metadata"].get("namespace"), obj["metadata"]["name"]) for obj in objects]
    assert len(set(addresses)) == len(addresses)
    roles = {(kind, namespace, name) for kind, namespace, name in addresses if kind.endswith("Role")}
    for obj in objects:
        if reference := obj.get("roleRef"):
            namespace = obj["metadata"].get("namespace") if reference["kind"] == "Role" else None
            assert (reference["kind"], namespace, reference["name"]) in roles


@pytest.mark.parametrize(
    ("owned", "wanted", "is_covered"),
    [
        (rule("*", "*", "*"), rule("get", "pods"), True),
        (rule("get", "pods"), rule("get", "pods/log"), False),
        (rule("get", "*/log"), rule("get", "pods/log"), True),
        (rule("get", "pods", resourceNames=["a"]), rule("get", "pods"), False),
        (rule("get", "pods"), rule("get", "pods", resourceNames=["a"]), True),
        ({"verbs": ["get"], "nonResourceURLs": ["/api/*"]}, {"verbs": ["get"], "nonResourceURLs": ["/api/v1"]}, True),
        ({"verbs": ["get"], "nonResourceURLs": ["/api"]}, {"verbs": ["get"], "nonResourceURLs": ["/api/*"]}, False),
    ],
)
def test_a_rule_covers_what_it_allows(owned: Object, wanted: Object, is_covered: bool) -> None:
    assert (uncovered([Rule.of(owned)], [Rule.of(wanted)]) == []) is is_covered
