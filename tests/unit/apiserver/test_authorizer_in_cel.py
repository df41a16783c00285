"""Policies and match conditions may ask the authorizer: who may do something else may do this too."""

from __future__ import annotations

from typing import Any

import pytest
from access import Access, with_access
from api_exchange import config_map
from webhook_world import FakeWebhooks, deny, webhook

from korch.resources.admissionregistration.matching import CONDITION_VARIABLES, compiled

Object = dict[str, Any]
GROUP = "/apis/admissionregistration.k8s.io/v1"
CONFIG_MAPS = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}


async def policy(access: Access, expression: str, **more: Any) -> None:
    spec = {"matchConstraints": {"resourceRules": [CONFIG_MAPS]}, "validations": [{"expression": expression}], **more}
    await access.admin.made(f"{GROUP}/validatingadmissionpolicies", {"metadata": {"name": "p"}, "spec": spec})
    binding = {"policyName": "p", "validationActions": ["Deny"]}
    await access.admin.made(f"{GROUP}/validatingadmissionpolicybindings", {"metadata": {"name": "b"}, "spec": binding})


def rule(verb: str, resource: str, group: str = "", **more: Any) -> Object:
    return {"verbs": [verb], "apiGroups": [group], "resources": [resource], **more}


@pytest.mark.parametrize(
    ("expression", "is_allowed"),
    [
        ("authorizer.group('apps').resource('deployments').namespace('d').check('create').allowed()", True),
        ("authorizer.group('apps').resource('deployments').namespace('d').check('delete').allowed()", False),
        ("authorizer.group('apps').resource('deployments').check('create').allowed()", False),
        ("authorizer.group('').resource('secrets').namespace('d').name(object.metadata.name).check('get').allowed()", True),
        ("authorizer.group('').resource('secrets').namespace('d').name('other').check('get').allowed()", False),
        ("authorizer.group('').resource('pods').subresource('exec').namespace(object.metadata.namespace).check('create').allowed()", True),
        ("authorizer.path('/metrics').check('get').allowed()", True),
        ("authorizer.path('/debug').check('get').allowed()", False),
        ("authorizer.requestResource.check('create').allowed() && !authorizer.requestResource.check('delete').allowed()", True),
        ("authorizer.serviceAccount('d', 'robot').group('').resource('nodes').check('list').allowed()", True),
        ("authorizer.serviceAccount('d', 'other').group('').resource('nodes').check('list').allowed()", False),
        ("authorizer.path('/metrics').check('get').reason().contains('RBAC: allowed by ClusterRoleBinding')", True),
        ("!authorizer.path('/metrics').check('get').errored() && authorizer.path('/x').check('get').error() == ''", True),
        ("'authorizer.path' != '' && variables.may && request.userInfo.username == 'jane'", True),
    ],
)
def test_a_policy_asks_for_the_user_of_the_request(expression: str, is_allowed: bool) -> None:
    async def story(access: Access) -> None:
        path = await access.namespace()
        secrets = rule("get", "secrets", resourceNames=["a"])
        more = [rule("create", "deployments", "apps"), secrets, rule("create", "pods/exec"), rule("create", "configmaps")]
        await access.admin.grant("jane", "maker", *more, namespace="d")
        await access.admin.grant("jane", "looker", {"verbs": ["get"], "nonResourceURLs": ["/metrics"]})
        await access.admin.grant("system:serviceaccount:d:robot", "lister", rule("list", "nodes"))
        may = {"name": "may", "expression": "authorizer.path('/metrics').check('get').allowed()"}
        await policy(access, expression, variables=[may])
        answer = await access.user("jane").post(f"{path}/configmaps", config_map("a"))
        assert answer.code == (201 if is_allowed else 422), answer.body

    with_access(story)()


@with_access
async def test_a_match_condition_exempts_who_may_do_more(access: Access) -> None:
    path = await access.namespace()
    FakeWebhooks(access.api, gate=deny("no"))
    condition = {
        "name": "strangers",
        "expression": "!authorizer.group('admissionregistration.k8s.io').resource('x').check('breakglass').allowed()",
    }
    hooks = [webhook("gate", matchConditions=[condition])]
    await access.admin.made(f"{GROUP}/validatingwebhookconfigurations", {"metadata": {"name": "c"}, "webhooks": hooks})
    for user in ("jane", "john"):
        await access.admin.grant(user, f"maker-{user}", rule("create", "configmaps"))
    await access.admin.grant("jane", "breaker", rule("breakglass", "x", "admissionregistration.k8s.io"))
    assert (await access.user("jane").post(f"{path}/configmaps", config_map("a"))).code == 201
    assert (await access.user("john").post(f"{path}/configmaps", config_map("b"))).code == 400


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("authorizer.grop('x').check('y').allowed()", "undeclared reference to 'grop' of authorizer"),
        ("authorizer.group('x').resource('r').check('y')", "authorizer is for questions that end in check(...).allowed()"),
        ("authorizer.path('/x').check('get').granted()", "undeclared reference to 'granted' of a decision"),
        ("authorizer.path('/x', 'y').check('get').allowed()", "found no matching overload for 'path' of authorizer with 2 arguments"),
        ("authorizer.path(unknown).check('get').allowed()", "undeclared reference to 'unknown'"),
        ("authorizer.path('/x').check('get'.allowed()", "parentheses of check do not end"),
    ],
)
def test_what_is_no_question_is_refused_where_it_is_written(expression: str, says: str) -> None:
    with pytest.raises(ValueError) as caught:
        compiled(expression, CONDITION_VARIABLES, "bool")
    assert says in str(caught.value)


def test_a_text_that_only_speaks_of_it_asks_nothing() -> None:
    assert not hasattr(
        compiled("object.authorizer == 'authorizer.path' || object.x == \"authorizer\"", CONDITION_VARIABLES, "bool"), "rest"
    )
