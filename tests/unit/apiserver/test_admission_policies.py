"""Policies in CEL: what bindings put to work refuses, warns or changes."""

from __future__ import annotations

from typing import Any

from api_exchange import Api, config_map, deployment, on_server
from webhook_world import GROUP

Object = dict[str, Any]
DEPLOYMENTS = "/apis/apps/v1/namespaces/d/deployments"


def constraints(plural: str = "deployments", group: str = "apps") -> Object:
    rule = {"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [plural]}
    return {"resourceRules": [rule]}


async def bound(api: Api, spec: Object, *, kind: str = "validating", **binding: Any) -> None:
    """Make a policy with its binding."""
    given = {"matchConstraints": constraints()} | spec
    await api.made(f"{GROUP}/{kind}admissionpolicies", {"metadata": {"name": "limits"}, "spec": given})
    own = {"policyName": "limits"} | ({"validationActions": ["Deny"]} if kind == "validating" else {}) | binding
    await api.made(f"{GROUP}/{kind}admissionpolicybindings", {"metadata": {"name": "here"}, "spec": own})


@on_server
async def test_a_deployment_that_breaks_a_policy_is_refused(api: Api) -> None:
    await api.namespace()
    await bound(
        api,
        {"validations": [{"expression": "object.spec.replicas <= 5"}, {"expression": "object.metadata.name != 'x'", "message": "no x"}]},
    )
    await api.made(DEPLOYMENTS, deployment("ok", 5))
    why = "ValidatingAdmissionPolicy 'limits' with binding 'here' denied request: "
    assert (await api.post(DEPLOYMENTS, deployment("big", 6))).says == (
        422,
        "Invalid",
        f'deployments.apps "big" is forbidden: {why}failed expression: object.spec.replicas <= 5',
    )
    assert (await api.post(DEPLOYMENTS, deployment("x"))).says[2].endswith(f"{why}no x")
    assert (await api.patch(f"{DEPLOYMENTS}/ok", {"spec": {"replicas": 7}})).code == 422


@on_server
async def test_messages_reasons_and_variables(api: Api) -> None:
    await api.namespace()
    variables = [
        {"name": "replicas", "expression": "object.spec.replicas"},
        {"name": "limit", "expression": "namespaceObject.metadata.name == 'd' ? 2 : 9"},
        {"name": "odd", "expression": "object.nothing"},
    ]
    check = {
        "expression": "variables.replicas <= variables.limit",
        "messageExpression": "'at most ' + string(variables.limit)",
        "reason": "Forbidden",
    }
    await bound(api, {"variables": variables, "validations": [check]})
    answer = await api.post(DEPLOYMENTS, deployment("big", 3))
    assert answer.says[:2] == (403, "Forbidden") and answer.says[2].endswith("denied request: at most 2")
    await api.made(DEPLOYMENTS, deployment("ok", 2))


@on_server
async def test_parameters_come_from_the_object_that_the_binding_names(api: Api) -> None:
    path = await api.namespace()
    spec = {
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{"expression": "object.spec.replicas <= int(params.data.max)"}],
    }
    await bound(api, spec, paramRef={"name": "limits", "parameterNotFoundAction": "Deny"})
    assert (
        (await api.post(DEPLOYMENTS, deployment("a", 1)))
        .says[2]
        .endswith("failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction")
    )
    await api.made(f"{path}/configmaps", config_map("limits", max="3"))
    await api.made(DEPLOYMENTS, deployment("a", 3))
    assert (await api.post(DEPLOYMENTS, deployment("b", 4))).code == 422


@on_server
async def test_a_binding_may_only_warn(api: Api) -> None:
    await api.namespace()
    await bound(api, {"validations": [{"expression": "object.spec.replicas <= 5"}]}, validationActions=["Warn"])
    answer = await api.post(DEPLOYMENTS, deployment("big", 6))
    assert answer.code == 201
    (warning,) = answer.warnings
    assert "Validation failed for ValidatingAdmissionPolicy 'limits' with binding 'here': failed expression:" in warning


@on_server
async def test_an_expression_that_fails_follows_the_failure_policy(api: Api) -> None:
    await api.namespace()
    await bound(api, {"validations": [{"expression": "object.odd == 1"}]})
    assert (
        (await api.post(DEPLOYMENTS, deployment("a"))).says[2].endswith("expression 'object.odd == 1' resulted in error: no such key: odd")
    )
    await api.patch(f"{GROUP}/validatingadmissionpolicies/limits", {"spec": {"failurePolicy": "Ignore"}})
    await api.made(DEPLOYMENTS, deployment("a"))


@on_server
async def test_a_policy_changes_objects_by_json_patch_and_by_applying(api: Api) -> None:
    await api.namespace()
    mutations = [
        {
            "patchType": "JSONPatch",
            "jsonPatch": {"expression": "[JSONPatch{op: 'add', path: '/metadata/annotations', value: {'seen': object.metadata.name}}]"},
        },
        {
            "patchType": "ApplyConfiguration",
            "applyConfiguration": {
                "expression": "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{"
                "containers: [Object.spec.template.spec.containers{name: 'c', image: 'registry.test/other:2'}]}}}}"
            },
        },
    ]
    await bound(api, {"mutations": mutations, "reinvocationPolicy": "Never"}, kind="mutating")
    made = await api.made(DEPLOYMENTS, deployment("a"))
    assert made["metadata"]["annotations"] == {"seen": "a"}
    containers = made["spec"]["template"]["spec"]["containers"]
    assert [(one["name"], one["image"]) for one in containers] == [("c", "registry.test/other:2")]


@on_server
async def test_a_policy_that_applies_merges_lists_by_their_keys_and_replaces_nothing_as_a_whole(api: Api) -> None:
    await api.namespace()
    pod = "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{"
    tolerations = pod + "tolerations: [Object.spec.template.spec.tolerations{key: 'a', operator: 'Exists'}]}}}}"
    sidecar = pod + "containers: [Object.spec.template.spec.containers{name: 'side', image: 'side:1'}]}}}}"
    mutations = [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": sidecar}}]
    await bound(api, {"mutations": mutations, "reinvocationPolicy": "Never"}, kind="mutating")
    made = await api.made(DEPLOYMENTS, deployment("a"))
    assert [one["name"] for one in made["spec"]["template"]["spec"]["containers"]] == ["c", "side"]
    mutations = [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": tolerations}}]
    await api.patch(f"{GROUP}/mutatingadmissionpolicies/limits", {"spec": {"mutations": mutations}})
    refused = (await api.post(DEPLOYMENTS, deployment("b"))).says
    why = "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.template.spec.tolerations"
    assert refused[0] == 422 and refused[2].endswith(f"denied request: {why}")


@on_server
async def test_policies_are_checked_when_they_are_written(api: Api) -> None:
    spec = {
        "matchConstraints": constraints(),
        "validations": [{"expression": "object.x +"}, {"expression": "params.x"}],
        "variables": [{"name": "1x", "expression": "1"}],
    }
    answer = await api.post(f"{GROUP}/validatingadmissionpolicies", {"metadata": {"name": "p"}, "spec": spec})
    causes = {one["field"]: one["message"] for one in answer.json["details"]["causes"]}
    assert "Syntax error" in causes["spec.validations[0].expression"]
    assert "undeclared reference to 'params'" in causes["spec.validations[1].expression"]
    assert causes["spec.variables[0].name"] == 'Invalid value: "1x": name is not a valid CEL identifier'
    binding = {"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny", "Warn"]}}
    assert (await api.post(f"{GROUP}/validatingadmissionpolicybindings", binding)).code == 422
