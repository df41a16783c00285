"""x-kubernetes-validations: CEL rules hold for every object, in the words of v1.37."""

from __future__ import annotations

from typing import Any

import pytest
from api_exchange import Api, on_server
from test_custom_kinds import declaration, declared, widget

from korch._core import native

Object = dict[str, Any]


def ruled(*rules: Object, **properties: Any) -> Object:
    own = {"image": {"type": "string"}, "replicas": {"type": "integer"}, "limit": {"type": "integer"}}
    return {"type": "object", "properties": own | properties, "x-kubernetes-validations": list(rules)}


@on_server
async def test_a_rule_that_does_not_hold_is_told_with_its_message(api: Api) -> None:
    spec = ruled(
        {"rule": "self.replicas <= self.limit", "message": "too many"},
        {
            "rule": "self.image != 'bad'",
            "messageExpression": "'image ' + self.image + ' is bad'",
            "reason": "FieldValueForbidden",
            "fieldPath": ".image",
        },
        {"rule": "self.replicas != 3"},
    )
    path = await declared(api, declaration(spec))
    assert (await api.post(path, widget(replicas=5, limit=1, image="bad"))).says[2] == (
        'Widget.example.com "w" is invalid: [spec: Invalid value: too many, spec.image: Forbidden: image bad is bad]'
    )
    assert (await api.post(path, widget(replicas=3, limit=4))).says[2].endswith("spec: Invalid value: failed rule: self.replicas != 3")
    assert (
        (await api.post(path, widget(limit=4)))
        .says[2]
        .endswith(
            'spec: Invalid value: "object": no such key: replicas evaluating rule: too many, '
            'spec: Invalid value: "object": no such key: replicas evaluating rule: self.replicas != 3]'
        )
    )
    await api.made(path, widget(replicas=2, limit=4))


@on_server
async def test_a_scalar_is_shown_in_the_refusal(api: Api) -> None:
    small = {"type": "integer", "x-kubernetes-validations": [{"rule": "self < 5", "message": "must be small"}]}
    path = await declared(api, declaration(ruled(small=small)))
    assert (await api.post(path, widget(small=7))).says[2].endswith("spec.small: Invalid value: 7: must be small")


@on_server
async def test_a_transition_rule_compares_with_what_was(api: Api) -> None:
    image = {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "image is immutable"}]}
    path = await declared(api, declaration(ruled(image=image)))
    await api.made(path, widget())
    assert (await api.patch(f"{path}/w", {"spec": {"image": "b"}})).says[2].endswith('spec.image: Invalid value: "b": image is immutable')
    assert (await api.patch(f"{path}/w", {"spec": {"replicas": 1}})).code == 200


@on_server
async def test_a_rule_with_an_optional_past_runs_on_creation_too(api: Api) -> None:
    rule = {"rule": "oldSelf.hasValue() || self.replicas == 1", "optionalOldSelf": True, "message": "start with one"}
    path = await declared(api, declaration(ruled(rule)))
    assert (await api.post(path, widget(replicas=2))).says[2].endswith("spec: Invalid value: start with one")
    await api.made(path, widget(replicas=1))
    assert (await api.patch(f"{path}/w", {"spec": {"replicas": 2}})).code == 200


@on_server
async def test_what_an_update_left_alone_may_stay_wrong(api: Api) -> None:
    path = await declared(api, declaration(ruled(part={"type": "object", "properties": {"n": {"type": "integer"}}})))
    await api.made(path, widget(part={"n": 9}))
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com"
    crd = (await api.get(crds)).json
    part = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["part"]
    part["x-kubernetes-validations"] = [{"rule": "self.n < 5"}]
    part["properties"]["n"]["maximum"] = 6
    assert (await api.put(crds, crd)).code == 200
    assert (await api.patch(f"{path}/w", {"spec": {"replicas": 2}})).code == 200
    assert (await api.patch(f"{path}/w", {"spec": {"part": {"n": 8}}})).code == 422


@on_server
async def test_rules_wait_until_the_types_are_right(api: Api) -> None:
    path = await declared(api, declaration(ruled({"rule": "self.replicas > 1"})))
    assert (await api.post(path, widget(replicas="x"))).says[2] == (
        'Widget.example.com "w" is invalid: [spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: '
        '"string", <nil>: Invalid value: "null": some validation rules were not checked because the object was invalid; '
        "correct the existing errors to complete validation]"
    )


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("'Hello'.lowerAscii() == 'hello' && 'a,b'.split(',') == ['a', 'b'] && ' x '.trim() == 'x'", b"true"),
        ("[3, 1, 2].sum() == 6 && [1, 2].max() == 2 && [1, 2, 2].distinct().size() == 2 && [1, 2].isSorted()", b"true"),
        ("'abc 123'.find('[0-9]+') == '123' && 'a1b2'.findAll('[0-9]') == ['1', '2']", b"true"),
        ("url('https://a.example:8080/p?q=1').getHostname() == 'a.example' && isURL('/p')", b"true"),
        ("ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.2.3') && !isIP('x')", b"true"),
        ("quantity('1Gi').isGreaterThan(quantity('500Mi')) && quantity('2').add(quantity('1')).asInteger() == 3", b"true"),
        ("'%s has %d'.format(['a', 2]) == 'a has 2'", b"true"),
        ("duration('1h') > duration('59m') && timestamp('2026-01-02T00:00:00Z') < timestamp('2026-01-03T00:00:00Z')", b"true"),
        ("cel.bind(x, o.a + 1, x * x) == 4", b"true"),
        ("o.?b.orValue(7) == 7 && o.?a.hasValue() && !o.?b.?c.hasValue() && o.?list[?0].orValue(0) == 5", b"true"),
        ("o.?a.optMap(x, x + 1).orValue(0) == 2", b"true"),
        ("type(o.a) == int && type('') == string && type([]) == list", b"true"),
        ("JSONPatch{op: 'add', path: '/x', value: {'k': o.a}}", b'{"op":"add","path":"/x","value":{"k":1}}'),
        ("o.list.exists(x, x > 4) && o.list.map(x, x * 2) == [10] && {'a': 1}.all(k, k == 'a')", b"true"),
    ],
)
def test_kubernetes_functions(expression: str, expected: bytes) -> None:
    value = native.CelValue(b'{"a":1,"list":[5]}')
    assert native.CelExpression(expression, ["o"]).evaluate([("o", value)]) == expected


def test_an_endless_loop_ends() -> None:
    loop = native.CelExpression("o.all(a, o.all(b, o.all(c, true)))", ["o"])
    with pytest.raises(ValueError, match="operation cancelled: actual cost limit exceeded"):
        loop.evaluate([("o", native.CelValue(b"[" + b",".join([b"1"] * 200) + b"]"))])


@on_server
async def test_the_time_zone_of_a_cron_job_must_be_one(api: Api) -> None:
    path = await api.namespace()
    template = {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}

    def job(zone: str) -> dict[str, Any]:
        return {"metadata": {"name": "c"}, "spec": {"schedule": "* * * * *", "timeZone": zone, "jobTemplate": template}}

    where = path.replace("/api/v1", "/apis/batch/v1") + "/cronjobs"
    for zone, why in (("Mars/Olympus", "unknown time zone Mars/Olympus"), ("", "non-empty string"), ("Local", "explicit time zone")):
        assert why in (await api.post(where, job(zone))).says[2]
    assert (await api.post(where, job("Europe/Berlin"))).code == 201
