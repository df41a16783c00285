"""A declaration makes a kind, and the kind behaves as its schema says."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from api_exchange import Api, on_server

Object = dict[str, Any]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

SPEC: Object = {
    "type": "object",
    "required": ["image"],
    "properties": {
        "image": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 10},
        "replicas": {"type": "integer", "minimum": 1, "maximum": 5, "default": 1},
        "mode": {"type": "string", "enum": ["fast", "slow"]},
        "port": {"x-kubernetes-int-or-string": True},
        "ratio": {"type": "number"},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "parts": {
            "type": "array",
            "maxItems": 3,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "size": {"type": "integer"}}},
        },
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "note": {"type": "string", "nullable": True, "default": "none"},
    },
}
STATUS: Object = {
    "type": "object",
    "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}, "phase": {"type": "string"}},
}


def declaration(spec: Object | None = None, **version: Any) -> Object:
    schema = {"type": "object", "properties": {"spec": spec or SPEC, "status": STATUS}}
    one = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}}} | version
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [one]},
    }


def widget(name: str = "w", **spec: Any) -> Object:
    return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"image": "a"} | spec}


async def declared(api: Api, crd: Object | None = None) -> str:
    """Declare the kind; return the path of its objects in namespace d, once they are served."""
    await api.namespace()
    await api.made(CRDS, crd or declaration())
    await asyncio.sleep(0.05)
    return "/apis/example.com/v1/namespaces/d/widgets"


@on_server
async def test_a_declared_kind_is_served_within_milliseconds_and_says_so(api: Api) -> None:
    path = await declared(api)
    crd = (await api.get(f"{CRDS}/widgets.example.com")).json
    conditions = {one["type"]: (one["status"], one["reason"], one["message"]) for one in crd["status"]["conditions"]}
    assert conditions == {
        "NamesAccepted": ("True", "NoConflicts", "no conflicts found"),
        "Established": ("True", "InitialNamesAccepted", "the initial names have been accepted"),
    }
    assert crd["status"]["storedVersions"] == ["v1"]
    assert crd["status"]["acceptedNames"]["listKind"] == "WidgetList"
    assert (await api.get(path)).json == {
        "kind": "WidgetList",
        "apiVersion": "example.com/v1",
        "metadata": {"resourceVersion": str(api.storage.revision())},
        "items": [],
    }
    listed = (await api.get("/apis/example.com/v1")).json["resources"]
    assert [one["name"] for one in listed] == ["widgets", "widgets/status"]
    assert (listed[0]["shortNames"], listed[0]["categories"], listed[0]["kind"]) == (["wd"], ["all"], "Widget")


@on_server
async def test_objects_are_pruned_and_defaulted(api: Api) -> None:
    path = await declared(api)
    made = await api.made(path, widget(unknown=1, raw={"any": {"thing": [1]}}, parts=[{"name": "p", "x": 1}], note=None))
    assert made["spec"] == {"image": "a", "raw": {"any": {"thing": [1]}}, "parts": [{"name": "p"}], "note": None, "replicas": 1}
    assert made["metadata"]["generation"] == 1
    assert (await api.get(f"{path}/w")).json == made


@on_server
async def test_what_the_schema_forbids_is_refused_in_the_words_of_upstream(api: Api) -> None:
    path = await declared(api)
    wrong = {
        'spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string"': {"replicas": "x"},
        "spec.replicas: Invalid value: 9: spec.replicas in body should be less than or equal to 5": {"replicas": 9},
        "spec.image: Invalid value: \"A1\": spec.image in body should match '^[a-z]+$'": {"image": "A1"},
        "spec.image: Too long: may not be more than 10 bytes": {"image": "abcdefghijk"},
        'spec.mode: Unsupported value: "odd": supported values: "fast", "slow"': {"mode": "odd"},
        'spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean"': {"port": True},
        'spec.tags[1]: Duplicate value: "a"': {"tags": ["a", "a"]},
        'spec.parts[1]: Duplicate value: {"name":"p"}': {"parts": [{"name": "p"}, {"name": "p"}]},
        "spec.parts[0].name: Required value": {"parts": [{"size": 1}]},
        'spec.labels.a: Invalid value: "integer": spec.labels.a in body must be of type string: "integer"': {"labels": {"a": 1}},
    }
    for message, spec in wrong.items():
        code, reason, said = (await api.post(path, widget(**spec))).says
        assert (code, reason, said) == (422, "Invalid", f'Widget.example.com "w" is invalid: {message}')
    bare = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {}}
    assert (await api.post(path, bare)).says[2] == 'Widget.example.com "w" is invalid: spec.image: Required value'


@on_server
async def test_field_validation_names_unknown_and_duplicate_fields(api: Api) -> None:
    path = await declared(api)
    body = b'{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"w","odd":1},"spec":{"image":"a","image":"b","extra":1}}'
    answer = await api.post(path, body, fieldValidation="Strict")
    assert answer.says == (
        400,
        "BadRequest",
        'Widget in version "v1" cannot be handled as a Widget: strict decoding error: unknown field "metadata.odd", '
        'unknown field "spec.extra", duplicate field "spec.image"',
    )
    warned = await api.post(path, body)
    assert warned.code == 201 and warned.json["spec"] == {"image": "b", "replicas": 1, "note": "none"}
    assert warned.warnings == [
        '299 - "unknown field \\"metadata.odd\\""',
        '299 - "unknown field \\"spec.extra\\""',
        '299 - "duplicate field \\"spec.image\\""',
    ]


@on_server
async def test_status_is_a_part_of_its_own_and_generation_follows_the_rest(api: Api) -> None:
    path = await declared(api)
    made = await api.made(path, widget() | {"status": {"phase": "early"}})
    assert "status" not in made
    told = await api.put(f"{path}/w/status", made | {"spec": {"image": "z"}, "status": {"phase": "Ready"}})
    assert (told.json["status"], told.json["spec"]["image"], told.json["metadata"]["generation"]) == ({"phase": "Ready"}, "a", 1)
    changed = await api.patch(f"{path}/w", {"spec": {"replicas": 2}, "status": {"phase": "odd"}})
    assert (changed.json["status"], changed.json["metadata"]["generation"]) == ({"phase": "Ready"}, 2)
    labelled = await api.patch(f"{path}/w", {"metadata": {"labels": {"a": "b"}}})
    assert labelled.json["metadata"]["generation"] == 2
    bad = await api.patch(f"{path}/w/status", {"status": {"replicas": "many"}})
    assert bad.says[2].endswith('status.replicas: Invalid value: "string": status.replicas in body must be of type integer: "string"')


@on_server
async def test_a_strategic_merge_patch_is_not_for_custom_kinds(api: Api) -> None:
    path = await declared(api)
    await api.made(path, widget())
    code, reason, _ = (await api.patch(f"{path}/w", {"spec": {}}, kind="strategic-merge-patch")).says
    assert (code, reason) == (415, "UnsupportedMediaType")


@on_server
async def test_scale_reads_and_writes_the_declared_paths(api: Api) -> None:
    scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}
    path = await declared(api, declaration(subresources={"status": {}, "scale": scale}))
    await api.made(path, widget(replicas=3))
    await api.patch(f"{path}/w/status", {"status": {"replicas": 2, "selector": "app=w"}})
    found = (await api.get(f"{path}/w/scale")).json
    assert (found["spec"], found["status"]) == ({"replicas": 3}, {"replicas": 2, "selector": "app=w"})
    assert (await api.patch(f"{path}/w/scale", {"spec": {"replicas": 4}})).json["spec"] == {"replicas": 4}
    assert (await api.get(f"{path}/w")).json["spec"]["replicas"] == 4


@on_server
async def test_columns_are_what_the_declaration_says(api: Api) -> None:
    columns = [
        {"name": "Image", "type": "string", "jsonPath": ".spec.image", "description": "what runs"},
        {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1},
        {"name": "First", "type": "string", "jsonPath": ".spec.parts[?(@.size>1)].name"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]
    path = await declared(api, declaration(additionalPrinterColumns=columns))
    await api.made(path, widget(parts=[{"name": "s", "size": 1}, {"name": "l", "size": 2}]))
    table = (await api.get(path, accept="application/json;as=Table;v=v1;g=meta.k8s.io")).json
    assert [(one["name"], one["type"], one["priority"]) for one in table["columnDefinitions"]] == [
        ("Name", "string", 0),
        ("Image", "string", 0),
        ("Replicas", "integer", 1),
        ("First", "string", 0),
        ("Age", "date", 0),
    ]
    assert table["rows"][0]["cells"] == ["w", "a", 1, "l", "0s"]


@on_server
async def test_objects_are_selected_by_declared_fields(api: Api) -> None:
    path = await declared(api, declaration(selectableFields=[{"jsonPath": ".spec.mode"}, {"jsonPath": ".spec.replicas"}]))
    await api.made(path, widget("a", mode="fast"))
    await api.made(path, widget("b", mode="slow", replicas=2))
    found = await api.get(path, fieldSelector="spec.mode=slow,spec.replicas=2")
    assert [one["metadata"]["name"] for one in found.json["items"]] == ["b"]
    assert (await api.get(path, fieldSelector="spec.image=a")).says[2] == "field label not supported: spec.image"


@on_server
async def test_the_kind_is_published(api: Api) -> None:
    await declared(api)
    name = "com.example.v1.Widget"
    v2 = (await api.get("/openapi/v2")).json
    assert v2["definitions"][name]["properties"]["spec"]["properties"]["mode"] == {"type": "string", "enum": ["fast", "slow"]}
    assert "x-kubernetes-group-version-kind" in v2["definitions"][name]
    assert "/apis/example.com/v1/namespaces/{namespace}/widgets/{name}/status" in v2["paths"]
    root = (await api.get("/openapi/v3")).json["paths"]
    document = (await api.get("/openapi/v3/apis/example.com/v1")).json
    schema = document["components"]["schemas"][name]["properties"]["spec"]["properties"]
    assert schema["replicas"]["default"] == 1 and schema["note"]["nullable"] is True
    assert "apis/example.com/v1" in root
    patch = document["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}"]["patch"]["requestBody"]["content"]
    assert "application/strategic-merge-patch+json" not in patch


@on_server
async def test_the_end_of_a_declaration_is_the_end_of_its_objects(api: Api) -> None:
    path = await declared(api)
    await api.made(path, widget("a"))
    held = widget("b")
    held["metadata"]["finalizers"] = ["example.com/hold"]
    await api.made(path, held)
    gone = await api.delete(f"{CRDS}/widgets.example.com")
    assert gone.json["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    await asyncio.sleep(1)
    assert [one["metadata"]["name"] for one in (await api.get(path)).json["items"]] == ["b"]
    assert (await api.post(path, widget("c"))).code == 405
    await api.patch(f"{path}/b", {"metadata": {"finalizers": None}})
    assert (await api.delete(f"{path}/b")).code in (200, 404)
    await asyncio.sleep(2)
    assert (await api.get(f"{CRDS}/widgets.example.com")).code == 404
    assert (await api.get(path)).code == 404
    assert (await api.get("/apis/example.com/v1")).code == 404


@on_server
async def test_a_name_that_is_taken_is_not_accepted(api: Api) -> None:
    await declared(api)
    second = declaration()
    second["metadata"]["name"] = "gadgets.example.com"
    second["spec"]["names"] = {"plural": "gadgets", "kind": "Widget", "shortNames": ["wd"]}
    await api.made(CRDS, second)
    await asyncio.sleep(0.1)
    status = (await api.get(f"{CRDS}/gadgets.example.com")).json["status"]
    shown = {one["type"]: (one["status"], one["reason"], one["message"]) for one in status["conditions"]}
    assert shown["NamesAccepted"] == ("False", "ListKindConflict", '"WidgetList" is already in use')
    assert shown["Established"] == ("False", "NotAccepted", "not all names are accepted")
    assert (await api.get("/apis/example.com/v1/gadgets")).code == 404
    await api.delete(f"{CRDS}/widgets.example.com")
    await asyncio.sleep(2)
    assert (await api.get("/apis/example.com/v1/gadgets")).code == 200


@on_server
async def test_what_was_stored_before_gets_the_defaults_of_today(api: Api) -> None:
    path = await declared(api)
    await api.made(path, widget())
    crd = (await api.get(f"{CRDS}/widgets.example.com")).json
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["mode"]["default"] = "slow"
    assert (await api.put(f"{CRDS}/widgets.example.com", crd)).code == 200
    await asyncio.sleep(0.1)
    assert (await api.get(f"{path}/w")).json["spec"]["mode"] == "slow"
    assert (await api.get(path)).json["items"][0]["spec"]["mode"] == "slow"
    assert (await api.made(path, widget("n")))["spec"]["mode"] == "slow"


@on_server
async def test_versions_without_conversion_differ_in_name_alone_and_deprecated_ones_warn(api: Api) -> None:
    crd = declaration()
    old = dict(crd["spec"]["versions"][0], name="v1beta1", storage=False, deprecated=True)
    crd["spec"]["versions"].append(old)
    path = await declared(api, crd)
    await api.made(path, widget())
    beta = path.replace("v1", "v1beta1", 1)
    found = await api.get(f"{beta}/w")
    assert (found.json["apiVersion"], found.json["spec"]["image"]) == ("example.com/v1beta1", "a")
    assert found.warnings == ['299 - "example.com/v1beta1 Widget is deprecated"']
    made = widget("n") | {"apiVersion": "example.com/v1beta1"}
    assert (await api.made(beta, made))["apiVersion"] == "example.com/v1beta1"
    assert [one["apiVersion"] for one in (await api.get(path)).json["items"]] == ["example.com/v1"] * 2
    watch = await api.watch(beta)
    assert {(kind, obj["apiVersion"]) for kind, obj in [await watch.next(), await watch.next()]} == {("ADDED", "example.com/v1beta1")}
    await watch.leave()


@on_server
async def test_reads_are_left_to_the_front_door_only_while_it_can_answer_them(api: Api) -> None:
    async def grant(path: str) -> Object | None:
        answer = await api.get(path, headers={"x-korch-ask": "1"})
        return orjson.loads(answer.header("x-korch-grant")) if answer.header("x-korch-grant") else None

    crd = declaration()
    crd["spec"]["names"]["listKind"] = "WidgetCollection"
    path = await declared(api, crd)
    granted = await grant(path)
    assert granted is not None and granted["list_kind"] == "WidgetCollection"
    changed = (await api.get(f"{CRDS}/widgets.example.com")).json
    changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["mode"]["default"] = "slow"
    await api.put(f"{CRDS}/widgets.example.com", changed)
    assert await grant(path) is None
    await asyncio.sleep(0.1)
    assert await grant(path) is None
