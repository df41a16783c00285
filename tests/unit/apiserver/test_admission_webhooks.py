"""Whoever is named by a webhook configuration is asked before something is written, and what he says counts."""

from __future__ import annotations

from typing import Any

from api_exchange import Api, config_map, on_server, service
from webhook_world import GROUP, FakeWebhooks, allow, configure, deny, patching, webhook

Object = dict[str, Any]


def refuse_connection(_request: Object) -> Object:
    raise ConnectionRefusedError


def hang(_request: Object) -> Object:
    raise TimeoutError


@on_server
async def test_a_validating_webhook_refuses_in_its_own_words(api: Api) -> None:
    path = await api.namespace()
    hooks = FakeWebhooks(api, gate=deny("not today"))
    await configure(api, "Validating", webhook("gate"))
    answer = await api.post(f"{path}/configmaps", config_map("a", x="1"))
    assert answer.code == 400
    assert answer.json["message"] == 'admission webhook "gate.example.com" denied the request: not today'
    hooks.answers["gate"] = deny("no", code=409, reason="Conflict")
    assert (await api.post(f"{path}/configmaps", config_map("a"))).says[:2] == (409, "Conflict")
    hooks.answers["gate"] = lambda _request: {"allowed": False}
    message = (await api.post(f"{path}/configmaps", config_map("a"))).json["message"]
    assert message == 'admission webhook "gate.example.com" denied the request without explanation'
    assert (await api.get(f"{path}/configmaps/a")).code == 404
    request = hooks.reviews[0][1]
    assert request["kind"] == {"group": "", "version": "v1", "kind": "ConfigMap"}
    assert request["resource"] == {"group": "", "version": "v1", "resource": "configmaps"}
    assert (request["operation"], request["namespace"], request["name"], request["oldObject"]) == ("CREATE", "d", "a", None)
    assert request["object"]["data"] == {"x": "1"}
    assert request["options"] == {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}
    assert hooks.places[0].url == "https://hooks.test/gate?timeout=10s"


@on_server
async def test_updates_and_deletions_show_what_was(api: Api) -> None:
    path = await api.namespace()
    await api.made(f"{path}/configmaps", config_map("a", x="1"))
    hooks = FakeWebhooks(api, gate=allow)
    await configure(api, "Validating", webhook("gate"))
    await api.patch(f"{path}/configmaps/a", {"data": {"x": "2"}})
    await api.delete(f"{path}/configmaps/a")
    update, delete = (request for _, request in hooks.reviews)
    assert (update["operation"], update["object"]["data"], update["oldObject"]["data"]) == ("UPDATE", {"x": "2"}, {"x": "1"})
    assert (delete["operation"], delete["object"], delete["oldObject"]["data"]) == ("DELETE", None, {"x": "2"})


@on_server
async def test_a_mutating_webhook_patches_and_the_next_one_sees_it(api: Api) -> None:
    path = await api.namespace()
    first = patching({"op": "add", "path": "/data/first", "value": "1"})
    second = patching({"op": "add", "path": "/data/second", "value": "2"}, {"op": "add", "path": "/metadata/odd", "value": 1})
    hooks = FakeWebhooks(api, first=first, second=second)
    await configure(api, "Mutating", webhook("first"), webhook("second"))
    made = await api.made(f"{path}/configmaps", config_map("a", x="0"))
    assert made["data"] == {"x": "0", "first": "1", "second": "2"} and "odd" not in made["metadata"]
    assert hooks.reviews[1][1]["object"]["data"] == {"x": "0", "first": "1"}


@on_server
async def test_who_wants_it_is_asked_again_after_a_change(api: Api) -> None:
    path = await api.namespace()
    hooks = FakeWebhooks(api, early=allow, never=allow, late=patching({"op": "add", "path": "/data/late", "value": "1"}))
    early = webhook("early", reinvocationPolicy="IfNeeded")
    await configure(api, "Mutating", early, webhook("never"), webhook("late"))
    await api.made(f"{path}/configmaps", config_map("a", x="0"))
    assert hooks.asked == ["early", "never", "late", "early"]
    assert hooks.reviews[-1][1]["object"]["data"] == {"x": "0", "late": "1"}


@on_server
async def test_a_webhook_that_fails_refuses_or_is_passed_over(api: Api) -> None:
    path = await api.namespace()
    hooks = FakeWebhooks(api, gate=refuse_connection)
    await configure(api, "Validating", webhook("gate"))
    answer = await api.post(f"{path}/configmaps", config_map("a"))
    assert answer.says == (
        500,
        "InternalError",
        'Internal error occurred: failed calling webhook "gate.example.com": failed to call webhook: '
        'Post "https://hooks.test/gate?timeout=10s": dial tcp hooks.test:443: connect: connection refused',
    )
    hooks.answers["gate"] = hang
    assert (await api.post(f"{path}/configmaps", config_map("a"))).says[2].endswith("context deadline exceeded")
    await api.patch(
        f"{GROUP}/validatingwebhookconfigurations/c",
        [{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}],
        "json-patch",
    )
    await api.made(f"{path}/configmaps", config_map("a"))


@on_server
async def test_a_service_is_reached_at_a_ready_endpoint_by_its_name(api: Api) -> None:
    path = await api.namespace()
    hooks = FakeWebhooks(api, gate=allow)
    config = {"service": {"namespace": "d", "name": "hooks", "path": "/gate"}}
    await configure(api, "Validating", webhook("gate", clientConfig=config))
    shown = 'failed calling webhook "gate.example.com": failed to call webhook: Post "https://hooks.d.svc:443/gate?timeout=10s": '
    assert (await api.post(f"{path}/configmaps", config_map("a"))).says[2].endswith(shown + 'service "hooks" not found')
    await api.made(f"{path}/services", service("hooks", ports=[{"port": 443, "targetPort": 8443}]))
    assert (await api.post(f"{path}/configmaps", config_map("a"))).says[2].endswith(shown + 'no endpoints available for service "hooks"')
    endpoints = [
        {"addresses": ["10.9.9.8"], "conditions": {"ready": False}},
        {"addresses": ["10.9.9.9"], "conditions": {"ready": True}},
    ]
    piece = {
        "metadata": {"name": "hooks-1", "labels": {"kubernetes.io/service-name": "hooks"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8443}],
        "endpoints": endpoints,
    }
    await api.made("/apis/discovery.k8s.io/v1/namespaces/d/endpointslices", piece)
    await api.made(f"{path}/configmaps", config_map("a"))
    place = hooks.places[-1]
    assert (place.host, place.port, place.server_name) == ("10.9.9.9", 8443, "hooks.d.svc")


@on_server
async def test_selectors_and_conditions_choose_the_requests(api: Api) -> None:
    path = await api.namespace()
    hooks = FakeWebhooks(api, space=allow, object=allow, condition=allow)
    await configure(
        api,
        "Validating",
        webhook("space", namespaceSelector={"matchLabels": {"watched": "yes"}}),
        webhook("object", objectSelector={"matchLabels": {"a": "b"}}),
        webhook(
            "condition",
            matchConditions=[{"name": "c", "expression": "object.metadata.name.startsWith('x') && request.userInfo.username != ''"}],
        ),
    )
    await api.made(f"{path}/configmaps", config_map("a"))
    assert hooks.asked == []
    await api.patch("/api/v1/namespaces/d", {"metadata": {"labels": {"watched": "yes"}}})
    labelled = config_map("x1")
    labelled["metadata"]["labels"] = {"a": "b"}
    await api.made(f"{path}/configmaps", labelled)
    assert sorted(hooks.asked) == ["condition", "object", "space"]


@on_server
async def test_a_condition_that_cannot_be_evaluated_is_a_failure(api: Api) -> None:
    path = await api.namespace()
    FakeWebhooks(api, gate=allow)
    await configure(api, "Validating", webhook("gate", matchConditions=[{"name": "c", "expression": "object.odd.thing == 1"}]))
    assert (await api.post(f"{path}/configmaps", config_map("a"))).says == (
        403,
        "Forbidden",
        "configmaps \"a\" is forbidden: expression 'object.odd.thing == 1' resulted in error: no such key: odd",
    )


@on_server
async def test_configurations_are_checked(api: Api) -> None:
    bad = webhook("gate", matchConditions=[{"name": "c", "expression": "object.x =="}], sideEffects="Some", timeoutSeconds=99, name="gate")
    answer = await api.post(f"{GROUP}/validatingwebhookconfigurations", {"metadata": {"name": "c"}, "webhooks": [bad]})
    causes = {one["field"]: one["message"] for one in answer.json["details"]["causes"]}
    assert causes["webhooks[0].name"] == 'Invalid value: "gate": should be a domain with at least three segments separated by dots'
    assert causes["webhooks[0].sideEffects"] == 'Unsupported value: "Some": supported values: "None", "NoneOnDryRun"'
    assert causes["webhooks[0].timeoutSeconds"] == "Invalid value: 99: the timeout value must be between 1 and 30 seconds"
    assert "compilation failed" in causes["webhooks[0].matchConditions[0].expression"]


@on_server
async def test_nobody_is_asked_about_webhook_configurations(api: Api) -> None:
    hooks = FakeWebhooks(api, all=deny("no"))
    rule = {"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "operations": ["*"]}
    await configure(api, "Validating", webhook("all", rules=[rule]))
    assert (await api.delete(f"{GROUP}/validatingwebhookconfigurations/c")).code == 200
    assert hooks.asked == []


@on_server
async def test_a_dry_run_is_for_webhooks_without_side_effects(api: Api) -> None:
    path = await api.namespace()
    hooks = FakeWebhooks(api, gate=allow)
    await configure(api, "Validating", webhook("gate"))
    assert (await api.post(f"{path}/configmaps", config_map("a"), dryRun="All")).code == 201
    assert hooks.reviews[0][1]["dryRun"] is True


@on_server
async def test_warnings_reach_the_client(api: Api) -> None:
    path = await api.namespace()
    FakeWebhooks(api, gate=lambda _request: {"allowed": True, "warnings": ["mind the gap"]})
    await configure(api, "Validating", webhook("gate"))
    assert (await api.post(f"{path}/configmaps", config_map("a"))).warnings == ['299 - "mind the gap"']


@on_server
async def test_a_webhook_gets_the_version_that_it_asked_for(api: Api) -> None:
    from test_custom_kinds import declaration, declared, widget

    crd = declaration()
    crd["spec"]["versions"].append(dict(crd["spec"]["versions"][0], name="v2", storage=False))
    path = await declared(api, crd)
    hooks = FakeWebhooks(api, gate=allow)
    rule = {"apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["widgets"], "operations": ["CREATE"]}
    await configure(api, "Validating", webhook("gate", rules=[rule]))
    await api.made(path.replace("v1", "v2", 1), widget() | {"apiVersion": "example.com/v2"})
    request = hooks.reviews[0][1]
    assert (request["object"]["apiVersion"], request["resource"]["version"], request["requestResource"]["version"]) == (
        "example.com/v1",
        "v1",
        "v2",
    )


@on_server
async def test_another_server_converts_between_versions(api: Api) -> None:
    from test_custom_kinds import declaration, declared, widget

    def convert(request: Object) -> Object:
        wanted = request["desiredAPIVersion"]
        converted = []
        for one in request["objects"]:
            spec = dict(one["spec"])
            spec["image"] = spec["image"].upper() if wanted.endswith("v2") else spec["image"].lower()
            converted.append(one | {"apiVersion": wanted, "spec": spec})
        return {"convertedObjects": converted, "result": {"status": "Success"}}

    crd = declaration({"type": "object", "properties": {"image": {"type": "string"}}})
    crd["spec"]["versions"].append(dict(crd["spec"]["versions"][0], name="v2", storage=False))
    client = {"url": "https://hooks.test/convert"}
    crd["spec"]["conversion"] = {"strategy": "Webhook", "webhook": {"clientConfig": client, "conversionReviewVersions": ["v1"]}}
    path = await declared(api, crd)
    v2 = path.replace("v1", "v2", 1)
    hooks = FakeWebhooks(api, convert=convert)
    await api.made(path, widget("a", image="a"))
    made = await api.made(v2, widget("b", image="B") | {"apiVersion": "example.com/v2"})
    assert (made["spec"]["image"], made["apiVersion"]) == ("B", "example.com/v2")
    assert [one["spec"]["image"] for one in (await api.get(path)).json["items"]] == ["a", "b"]
    before = len(hooks.reviews)
    assert [one["spec"]["image"] for one in (await api.get(v2)).json["items"]] == ["A", "B"]
    assert len(hooks.reviews) <= before + 1
    changed = await api.patch(f"{v2}/a", {"spec": {"image": "C"}})
    assert changed.json["spec"]["image"] == "C" and (await api.get(f"{path}/a")).json["spec"]["image"] == "c"
    watch = await api.watch(v2)
    assert {(await watch.next())[1]["spec"]["image"] for _ in range(2)} == {"B", "C"}
    await watch.leave()
    hooks.answers["convert"] = lambda _request: {"result": {"status": "Failure", "message": "out of order"}}
    await api.made(path, widget("z", image="z"))
    assert (await api.get(f"{v2}/z")).says == (
        500,
        "InternalError",
        "Internal error occurred: conversion webhook for example.com/v1, Kind=Widget failed: out of order",
    )
