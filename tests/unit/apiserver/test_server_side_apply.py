"""Server-side apply over HTTP, and who owns what after every other write: statuses, refusals, subresources, dry runs."""

from __future__ import annotations

from typing import Any

import pytest
from api_exchange import Api, config_map, deployment, on_server, pod, serve, service

from korch.apiserver.identity import Authenticator, Authorizer, User, Verdict
from korch.apiserver.request_info import RequestInfo
from korch.apiserver.server import ServerConfig

Object = dict[str, Any]
DEPLOYMENTS = "/apis/apps/v1/namespaces/d/deployments"


def owners(obj: Object) -> dict[tuple[str, str, str], Object]:
    """What each (manager, operation, subresource) owns."""
    entries = obj["metadata"].get("managedFields", [])
    assert all(entry["fieldsType"] == "FieldsV1" for entry in entries)
    return {(one["manager"], one["operation"], one.get("subresource", "")): one["fieldsV1"] for one in entries}


def changed(obj: Object, **spec: Any) -> Object:
    return obj | {"spec": obj["spec"] | spec}


@on_server
async def test_applying_creates_once_and_then_changes_nothing(api: Api) -> None:
    await api.namespace()
    first = await api.apply(f"{DEPLOYMENTS}/web", deployment("web"))
    assert first.code == 201
    assert first.json["spec"]["strategy"]["type"] == "RollingUpdate", "defaults are filled in and owned by nobody"
    assert owners(first.json) == {
        ("me", "Apply", ""): {
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:template": {
                    "f:metadata": {"f:labels": {"f:app": {}}},
                    "f:spec": {"f:containers": {'k:{"name":"c"}': {".": {}, "f:image": {}, "f:name": {}}}},
                },
            }
        }
    }
    again = await api.apply(f"{DEPLOYMENTS}/web", deployment("web"))
    assert (again.code, again.json) == (200, first.json)


@on_server
async def test_a_create_is_owned_with_its_defaults_as_upstream_writes_it(api: Api) -> None:
    path = await api.namespace()
    made = (await api.post(f"{path}/pods", pod("p"), headers={"user-agent": "kubectl-create/v1.37 (linux)"})).json
    assert owners(made) == {
        ("kubectl-create", "Update", ""): {
            "f:spec": {
                "f:containers": {
                    'k:{"name":"c"}': {
                        ".": {},
                        "f:image": {},
                        "f:imagePullPolicy": {},
                        "f:name": {},
                        "f:resources": {},
                        "f:terminationMessagePath": {},
                        "f:terminationMessagePolicy": {},
                    }
                },
                "f:dnsPolicy": {},
                "f:enableServiceLinks": {},
                "f:restartPolicy": {},
                "f:schedulerName": {},
                "f:securityContext": {},
                "f:terminationGracePeriodSeconds": {},
            }
        }
    }


@on_server
async def test_ports_without_a_protocol_are_the_tcp_ports(api: Api) -> None:
    path = await api.namespace()
    applied = await api.apply(
        f"{path}/services/s", service("s", ports=[{"port": 80, "name": "a"}, {"port": 80, "protocol": "UDP", "name": "b"}])
    )
    assert applied.code == 201
    ports = owners(applied.json)["me", "Apply", ""]["f:spec"]["f:ports"]
    assert set(ports) == {'k:{"port":80,"protocol":"TCP"}', 'k:{"port":80,"protocol":"UDP"}'}


@on_server
async def test_conflicts_are_told_field_by_field(api: Api) -> None:
    await api.namespace()
    await api.post(DEPLOYMENTS, deployment("web"), fieldManager="kubectl")
    refused = await api.apply(f"{DEPLOYMENTS}/web", deployment("web", replicas=3))
    message = 'Apply failed with 1 conflict: conflict with "kubectl" using apps/v1: .spec.replicas'
    assert refused.says == (409, "Conflict", message)
    cause = {"reason": "FieldManagerConflict", "message": 'conflict with "kubectl" using apps/v1', "field": ".spec.replicas"}
    assert refused.json["details"] == {"causes": [cause]}
    await api.apply(f"{DEPLOYMENTS}/web", {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"paused": True}}, manager="pauser")
    both = changed(deployment("web", replicas=3), paused=False)
    assert (await api.apply(f"{DEPLOYMENTS}/web", both)).says[2] == (
        'Apply failed with 2 conflicts: conflicts with "kubectl" using apps/v1:\n- .spec.replicas\nconflicts with "pauser":\n- .spec.paused'
    )
    forced = await api.apply(f"{DEPLOYMENTS}/web", both, force="true")
    assert forced.json["spec"]["replicas"] == 3
    assert set(owners(forced.json)) == {("me", "Apply", ""), ("kubectl", "Update", "")}


@on_server
async def test_what_is_no_longer_applied_is_removed_and_then_defaulted(api: Api) -> None:
    path = await api.namespace()
    await api.apply(f"{path}/configmaps/a", config_map("a", x="1", y="2"))
    await api.patch(f"{path}/configmaps/a", {"data": {"z": "3"}}, fieldManager="other")
    left = (await api.apply(f"{path}/configmaps/a", config_map("a", x="1"))).json
    assert left["data"] == {"x": "1", "z": "3"}
    await api.apply(f"{DEPLOYMENTS}/web", deployment("web", replicas=3))
    without = deployment("web")
    del without["spec"]["replicas"]
    assert (await api.apply(f"{DEPLOYMENTS}/web", without)).json["spec"]["replicas"] == 1


@on_server
async def test_a_manager_that_applies_nothing_owns_nothing(api: Api) -> None:
    path = await api.namespace()
    await api.apply(f"{path}/configmaps/a", config_map("a", x="1"), manager="one")
    await api.apply(f"{path}/configmaps/a", config_map("a", y="1"), manager="two")
    left = (await api.apply(f"{path}/configmaps/a", {"apiVersion": "v1", "kind": "ConfigMap"}, manager="one")).json
    assert (left["data"], list(owners(left))) == ({"y": "1"}, [("two", "Apply", "")])


@on_server
async def test_yaml_is_read_and_repeated_keys_are_told(api: Api) -> None:
    path = await api.namespace()
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  x: '1'\n  x: '2'\n"
    problem = 'error converting YAML to JSON: yaml: unmarshal errors:\\n  line 6: key "x" already set in map'
    warned = await api.apply(f"{path}/configmaps/a", text)
    assert (warned.code, warned.json["data"]) == (201, {"x": "2"})
    assert len(warned.warnings) == 1 and 'key \\"x\\" already set in map' in warned.warnings[0]
    strict = await api.apply(f"{path}/configmaps/b", text.replace("name: a", "name: b"), fieldValidation="Strict")
    assert strict.says == (400, "BadRequest", "error strict decoding patch: " + problem.replace("\\n", "\n"))
    as_json = b'{"apiVersion":"v1","kind":"ConfigMap","data":{"x":"1","x":"2"}}'
    assert (
        (await api.apply(f"{path}/configmaps/c", as_json, fieldValidation="Strict")).says[2].endswith('line 1: key "x" already set in map')
    )
    assert (await api.apply(f"{path}/configmaps/c", as_json, fieldValidation="Ignore")).warnings == []


REFUSALS: dict[str, tuple[Any, dict[str, str], tuple[int, str, str]]] = {
    "a manager is needed": (
        config_map("a"),
        {"manager": ""},
        (422, "Invalid", 'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'),
    ),
    "another kind": (
        {"apiVersion": "v1", "kind": "Secret"},
        {},
        (400, "BadRequest", "invalid object type: /v1, Kind=Secret"),
    ),
    "no kind": ({"metadata": {"name": "a"}}, {}, (400, "BadRequest", "invalid object type: /, Kind=")),
    "another name": (
        config_map("b"),
        {},
        (400, "BadRequest", "the name of the object (b) does not match the name on the URL (a)"),
    ),
    "managed fields": (
        config_map("a") | {"metadata": {"name": "a", "managedFields": []}},
        {},
        (400, "BadRequest", "metadata.managedFields must be nil"),
    ),
    "a uid of nothing": (
        config_map("a") | {"metadata": {"name": "a", "uid": "u"}},
        {},
        (
            409,
            "Conflict",
            'Operation cannot be fulfilled on configmaps "a": uid mismatch: '
            "the provided object specified uid u, and no existing object was found",
        ),
    ),
    "a version of nothing": (
        config_map("a") | {"metadata": {"name": "a", "resourceVersion": "7"}},
        {},
        (400, "BadRequest", "resourceVersion should not be set on objects to be created"),
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_wrong_apply_is_refused_in_upstreams_words(case: str) -> None:
    body, options, says = REFUSALS[case]

    async def story(api: Api) -> None:
        path = await api.namespace()
        assert (await api.apply(f"{path}/configmaps/a", body, **options)).says == says
        assert (await api.get(f"{path}/configmaps/a")).code == 404

    serve(story)


@on_server
async def test_a_configuration_that_does_not_fit_says_where(api: Api) -> None:
    await api.namespace()
    answer = await api.apply(f"{DEPLOYMENTS}/web", changed(deployment("web"), colour="red"))
    status = answer.json
    assert (answer.code, "reason" in status) == (500, False), "upstream gives it no reason"
    assert status["message"] == (
        "failed to create typed patch object (/web; apps/v1, Kind=Deployment): .spec.colour: field not declared in schema"
    )


@on_server
async def test_other_patches_cannot_be_forced(api: Api) -> None:
    path = await api.namespace()
    await api.made(f"{path}/configmaps", config_map("a"))
    says = (await api.patch(f"{path}/configmaps/a", {}, force="true")).says
    assert says == (
        422,
        "Invalid",
        'PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch',
    )


@on_server
async def test_a_dry_run_answers_and_stores_nothing(api: Api) -> None:
    path = await api.namespace()
    assert (await api.apply(f"{path}/configmaps/a", config_map("a", x="1"), dryRun="All")).code == 201
    assert (await api.get(f"{path}/configmaps/a")).code == 404
    await api.apply(f"{path}/configmaps/a", config_map("a", x="1"))
    dry = await api.apply(f"{path}/configmaps/a", config_map("a", x="2"), dryRun="All")
    assert dry.json["data"] == {"x": "2"}
    assert (await api.get(f"{path}/configmaps/a")).json["data"] == {"x": "1"}


@on_server
async def test_status_and_scale_are_applied_through_their_subresources(api: Api) -> None:
    await api.namespace()
    await api.apply(f"{DEPLOYMENTS}/web", deployment("web"))
    status = {"apiVersion": "apps/v1", "kind": "Deployment", "status": {"replicas": 1}, "spec": {"replicas": 9}}
    answer = await api.apply(f"{DEPLOYMENTS}/web/status", status, manager="controller")
    assert (answer.json["status"]["replicas"], answer.json["spec"]["replicas"]) == (1, 1), "what is no status is taken back"
    assert owners(answer.json)["controller", "Apply", "status"] == {"f:status": {"f:replicas": {}}}
    scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": 5}}
    refused = await api.apply(f"{DEPLOYMENTS}/web/scale", scale, manager="scaler")
    assert refused.says[2] == 'Apply failed with 1 conflict: conflict with "me": .spec.replicas'
    assert (await api.apply(f"{DEPLOYMENTS}/web/scale", scale, manager="scaler", force="true")).json["spec"] == {"replicas": 5}
    web = (await api.get(f"{DEPLOYMENTS}/web")).json
    assert owners(web)["scaler", "Apply", "scale"] == {"f:spec": {"f:replicas": {}}}
    assert "f:replicas" not in owners(web)["me", "Apply", ""]["f:spec"]
    assert (await api.apply(f"{DEPLOYMENTS}/nope/status", status | {"metadata": {"name": "nope"}})).code == 404


@on_server
async def test_a_scale_update_takes_the_replica_count_over(api: Api) -> None:
    await api.namespace()
    await api.post(DEPLOYMENTS, deployment("web"), fieldManager="maker")
    await api.patch(f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": 2}}, fieldManager="kubectl")
    web = (await api.get(f"{DEPLOYMENTS}/web")).json
    assert owners(web)["kubectl", "Update", "scale"] == {"f:spec": {"f:replicas": {}}}
    entry = next(one for one in web["metadata"]["managedFields"] if one["manager"] == "kubectl")
    assert entry["apiVersion"] == "apps/v1"
    assert "f:replicas" not in owners(web)["maker", "Update", ""]["f:spec"]


@on_server
async def test_every_verb_records_its_manager(api: Api) -> None:
    path = await api.namespace()
    target = f"{path}/configmaps/a"
    made = (await api.post(f"{path}/configmaps", config_map("a", x="1"), fieldManager="poster")).json
    await api.put(target, made | {"data": {"x": "1", "y": "1"}}, fieldManager="putter")
    await api.patch(target, {"data": {"z": "1"}}, fieldManager="merger")
    await api.patch(target, [{"op": "add", "path": "/data/j", "value": "1"}], "json-patch", fieldManager="jsoner")
    found = (await api.patch(target, {"data": {"s": "1"}}, "strategic-merge-patch", fieldManager="strategist")).json
    fields = {manager: set(fields["f:data"]) - {"."} for (manager, _, _), fields in owners(found).items()}
    assert fields == {"poster": {"f:x"}, "putter": {"f:y"}, "merger": {"f:z"}, "jsoner": {"f:j"}, "strategist": {"f:s"}}


@on_server
async def test_an_update_that_changes_nothing_is_not_written(api: Api) -> None:
    path = await api.namespace()
    made = await api.made(f"{path}/configmaps", config_map("a", x="1"))
    same = (await api.put(f"{path}/configmaps/a", made, fieldManager="somebody")).json
    assert same == made


@on_server
async def test_managers_of_stored_objects_can_be_cleared(api: Api) -> None:
    path = await api.namespace()
    await api.made(f"{path}/configmaps", config_map("a", x="1"))
    cleared = (await api.patch(f"{path}/configmaps/a", {"metadata": {"managedFields": [{}]}})).json
    assert "managedFields" not in cleared["metadata"]
    await api.apply(f"{path}/configmaps/a", config_map("a", y="1"))
    found = owners((await api.get(f"{path}/configmaps/a")).json)
    assert set(found) == {("before-first-apply", "Update", ""), ("me", "Apply", "")}


class PatchOnly(Authenticator, Authorizer):
    """One user, who may change what there is and create nothing, while `is_bound`."""

    is_bound = False

    def authenticate(self, headers: Any) -> User:
        return User("patcher")

    def authorize(self, user: User, request_info: RequestInfo) -> Verdict:
        return Verdict(not (self.is_bound and request_info.verb == "create"), "no create")


def test_creating_by_apply_or_update_needs_the_right_to_create() -> None:
    who = PatchOnly()

    async def story(api: Api) -> None:
        path = await api.namespace()
        await api.made(f"{path}/configmaps", config_map("old"))
        who.is_bound = True
        assert (await api.apply(f"{path}/configmaps/old", config_map("old", x="1"))).code == 200
        says = (await api.apply(f"{path}/configmaps/new", config_map("new"))).says
        why = 'User "patcher" cannot create resource "configmaps" in API group "" in the namespace "d": no create'
        message = f'configmaps "new" is forbidden: {why}'
        assert says == (403, "Forbidden", message)
        lease = {"metadata": {"name": "l"}, "spec": {}}
        assert (await api.put("/apis/coordination.k8s.io/v1/namespaces/d/leases/l", lease)).code == 403
        assert (await api.get(f"{path}/configmaps/new")).code == 404

    serve(story, config=ServerConfig(authenticator=who, authorizer=who))
