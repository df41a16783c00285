"""What a declaration of a custom kind may say, and upstream's words for what it may not."""

from __future__ import annotations

from typing import Any

import pytest

from korch.resources.apiextensions.customresourcedefinition import RESOURCE

Object = dict[str, Any]


def crd(schema: Object | None = None, **version: Any) -> Object:
    one: Object = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema or {"type": "object"}}} | version
    names = {"plural": "things", "kind": "Thing"}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [one]}
    found: Object = {"metadata": {"name": "things.example.com"}, "spec": spec}
    RESOURCE.strategy.default(found)
    return found


def problems(obj: Object) -> list[str]:
    return [cause.line() for cause in RESOURCE.strategy.validate(obj)]


def with_spec(**properties: Any) -> Object:
    return {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}


ROOT = "spec.validation.openAPIV3Schema"
SPEC = f"{ROOT}.properties[spec].properties"


def test_defaults_follow_the_kind() -> None:
    spec = crd()["spec"]
    assert (spec["names"]["singular"], spec["names"]["listKind"], spec["conversion"]) == ("thing", "ThingList", {"strategy": "None"})
    assert problems(crd()) == []


def test_names_and_versions() -> None:
    wrong = crd()
    wrong["metadata"]["name"] = "other"
    wrong["spec"] |= {"scope": "World", "group": "nodots"}
    wrong["spec"]["versions"].append({"name": "V2", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}})
    found = problems(wrong)
    assert 'metadata.name: Invalid value: "other": must be spec.names.plural+"."+spec.group' in found
    assert 'spec.group: Invalid value: "nodots": should be a domain with at least one dot' in found
    assert 'spec.scope: Unsupported value: "World": supported values: "Cluster", "Namespaced"' in found
    assert any(one.startswith('spec.versions[1].name: Invalid value: "V2": a DNS-1035 label') for one in found)
    assert any(one.endswith("must have exactly one version marked as storage version") for one in found)


def test_a_protected_group_needs_approval() -> None:
    wrong = crd()
    wrong["metadata"]["name"] = "things.x.k8s.io"
    wrong["spec"]["group"] = "x.k8s.io"
    assert problems(wrong) == [
        "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation "
        '"api-approved.kubernetes.io", see https://github.com/kubernetes/enhancements/pull/1111'
    ]


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, [f'{ROOT}.type: Invalid value: "string": must be object at the root']),
        ({"properties": {}}, [f"{ROOT}.type: Required value: must not be empty at the root"]),
        (with_spec(a={"description": "x"}), [f"{SPEC}[a].type: Required value: must not be empty for specified object fields"]),
        (with_spec(a={"type": "array"}), [f"{SPEC}[a].items: Required value: must be specified"]),
        (
            with_spec(a={"type": "odd"}),
            [f'{SPEC}[a].type: Unsupported value: "odd": supported values: "array", "boolean", "integer", "number", "object", "string"'],
        ),
        (with_spec(a={"type": "string", "$ref": "#/x"}), [f"{SPEC}[a].$ref: Forbidden: $ref is not supported"]),
        (
            with_spec(a={"type": "array", "uniqueItems": True, "items": {"type": "string"}}),
            [f"{SPEC}[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic"],
        ),
        (
            with_spec(a={"type": "object", "anyOf": [{"type": "object", "properties": {"b": {"minimum": 1}}}]}),
            [f"{SPEC}[a].anyOf[0].type: Forbidden: must be empty to be structural"],
        ),
        (
            with_spec(a={"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object", "properties": {}}}),
            [f"{SPEC}[a].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"],
        ),
        (
            with_spec(a={"type": "integer", "default": "x"}),
            [f'{SPEC}[a].default: Invalid value: "string":  in body must be of type integer: "string"'],
        ),
        (
            {"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}},
            [
                f"{ROOT}.properties[metadata]: Forbidden: must not specify anything other than name and generateName, "
                "but metadata is implicitly specified"
            ],
        ),
    ],
)  # fmt: skip
def test_a_schema_is_structural(schema: Object, expected: list[str]) -> None:
    assert problems(crd(schema)) == expected


def test_int_or_string_may_say_so_twice() -> None:
    one = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
    assert problems(crd(with_spec(a=one))) == []


def test_a_webhook_conversion_says_where_and_in_which_versions() -> None:
    wrong = crd()
    wrong["spec"]["conversion"] = {"strategy": "Webhook"}
    assert problems(wrong) == [
        "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
        "spec.conversion.conversionReviewVersions: Required value",
    ]
    wrong["spec"]["conversion"]["webhook"] = {"clientConfig": {"url": "http://x"}, "conversionReviewVersions": ["v9"]}
    assert problems(wrong) == [
        "spec.conversion.webhookClientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; "
        "desired format: https://host[/path]",
        'spec.conversion.conversionReviewVersions: Invalid value: ["v9"]: must include at least one of v1, v1beta1',
    ]


def test_subresources_columns_and_fields_name_paths() -> None:
    scale = {"specReplicasPath": "spec.replicas", "statusReplicasPath": ".spec.replicas"}
    columns = [{"name": "A", "type": "odd", "jsonPath": "spec"}, {"name": "B", "type": "string", "jsonPath": ".spec[?(@.x)"}]
    found = problems(crd(subresources={"scale": scale}, additionalPrinterColumns=columns, selectableFields=[{"jsonPath": ".spec.a"}]))
    assert found == [
        'spec.subresources.scale.specReplicasPath: Invalid value: "spec.replicas": must be a simple json path starting with .',
        'spec.subresources.scale.statusReplicasPath: Invalid value: ".spec.replicas": should be a json path under .status',
        'spec.additionalPrinterColumns[0].type: Invalid value: "odd": must be one of boolean,date,integer,number,string',
        'spec.additionalPrinterColumns[0].JSONPath: Invalid value: "spec": must be a simple json path starting with .',
        'spec.additionalPrinterColumns[1].JSONPath: Invalid value: ".spec[?(@.x)": unterminated array',
        'spec.selectableFields[0].jsonPath: Invalid value: ".spec.a": is an invalid path: does not refer to a valid field',
    ]


def test_rules_that_cannot_be_compiled_are_refused() -> None:
    def rules(*given: Object) -> list[str]:
        spec = {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
            "x-kubernetes-validations": list(given),
        }
        return problems(crd({"type": "object", "properties": {"spec": spec}}))

    path = f"{ROOT}.properties[spec].x-kubernetes-validations[0]"
    (undefined,) = rules({"rule": "has(self.c)"})
    assert undefined.startswith(f'{path}.rule: Invalid value: apiextensions.ValidationRule{{Rule:"has(self.c)"')
    assert undefined.endswith("compilation failed: ERROR: <input>:1:4: undefined field 'c'\n | has(self.c)\n | ...^")
    (unknown,) = rules({"rule": "size(odd) > 1"})
    assert unknown.endswith(
        "compilation failed: ERROR: <input>:1:6: undeclared reference to 'odd' (in container '')\n | size(odd) > 1\n | .....^"
    )
    (mixed,) = rules({"rule": "self.a == self.b"})
    assert mixed.endswith("found no matching overload for '_==_' applied to '(int, string)'\n | self.a == self.b\n | .......^")
    (number,) = rules({"rule": "self.a + 1"})
    assert number.endswith("cel expression must evaluate to a bool")
    (syntax,) = rules({"rule": "self.a >"})
    assert "compilation failed: ERROR: <input>:1:" in syntax and "Syntax error" in syntax
    assert rules({"rule": " "}) == [f"{path}.rule: Required value: rule is not specified"]
    (message,) = rules({"rule": "self.a > 1", "messageExpression": "self.a"})
    assert message.startswith(f"{path}.messageExpression") and message.endswith("messageExpression must evaluate to a string")
    assert rules({"rule": "self.a > 1 && self.b.startsWith('x')", "fieldPath": ".a", "reason": "FieldValueRequired"}) == []
    assert rules({"rule": "oldSelf == self"}) == []


def test_rules_that_could_run_for_ever_are_refused() -> None:
    item = {"type": "object", "properties": {"b": {"type": "array", "items": {"type": "integer"}}}}
    spec = {"type": "object", "properties": {"a": {"type": "array", "items": item}}}
    spec["x-kubernetes-validations"] = [{"rule": "self.a.all(x, x.b.all(y, y > 0))"}]
    found, total = problems(crd({"type": "object", "properties": {"spec": spec}}))
    assert total.startswith(f"{ROOT}: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds")
    assert found.endswith(
        "Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding "
        "maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
    spec["properties"]["a"] |= {"maxItems": 10}
    item["properties"]["b"]["maxItems"] = 10
    assert problems(crd({"type": "object", "properties": {"spec": spec}})) == []
