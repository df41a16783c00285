"""Scale, binding, eviction and the reviews: what is posted there, and what becomes of the object behind it."""

from __future__ import annotations

from typing import Any

from api_exchange import Api, deployment, on_server, pod

Object = dict[str, Any]

DEPLOYMENTS = "/apis/apps/v1/namespaces/d/deployments"


@on_server
async def test_scale_shows_and_sets_the_replicas(api: Api) -> None:
    await api.namespace()
    made = await api.made(DEPLOYMENTS, deployment("web", 2))
    scale = (await api.get(f"{DEPLOYMENTS}/web/scale")).json
    assert (scale["kind"], scale["apiVersion"], scale["spec"]) == ("Scale", "autoscaling/v1", {"replicas": 2})
    assert scale["status"] == {"replicas": 0, "selector": "app=web"}
    assert scale["metadata"]["uid"] == made["metadata"]["uid"]
    assert (await api.put(f"{DEPLOYMENTS}/web/scale", scale | {"spec": {"replicas": 4}})).json["spec"]["replicas"] == 4
    assert (await api.put(f"{DEPLOYMENTS}/web/scale", scale | {"spec": {"replicas": 5}})).says[:2] == (409, "Conflict")
    assert (await api.patch(f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": 3}})).json["spec"]["replicas"] == 3
    assert (await api.get(f"{DEPLOYMENTS}/web")).json["spec"]["replicas"] == 3
    negative = (await api.patch(f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": -1}})).says
    assert negative[0] == 422 and "must be greater than or equal to 0" in negative[2]


def _binding(name: str, node: str) -> dict:
    target = {"apiVersion": "v1", "kind": "Node", "name": node}
    return {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}


@on_server
async def test_a_binding_places_a_pod_once(api: Api) -> None:
    path = await api.namespace()
    await api.made(f"{path}/pods", pod("p"))
    answer = await api.post(f"{path}/pods/p/binding", _binding("p", "n1"))
    assert (answer.code, answer.json["status"]) == (201, "Success")
    bound = (await api.get(f"{path}/pods/p")).json
    assert bound["spec"]["nodeName"] == "n1"
    assert [(one["type"], one["status"]) for one in bound["status"]["conditions"]] == [("PodScheduled", "True")]
    assert (await api.post(f"{path}/pods/p/binding", _binding("p", "n2"))).says == (
        409,
        "Conflict",
        'Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "n1"',
    )
    await api.made(f"{path}/pods", pod("q"))
    assert (await api.post(f"{path}/bindings", _binding("q", "n2"))).code == 201
    assert (await api.get(f"{path}/pods/q")).json["spec"]["nodeName"] == "n2"


@on_server
async def test_an_eviction_deletes_with_its_options(api: Api) -> None:
    path = await api.namespace()
    await api.made(f"{path}/pods", pod("p", nodeName="n"))
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}, "deleteOptions": {"gracePeriodSeconds": 7}}
    assert (await api.post(f"{path}/pods/p/eviction", body)).json["status"] == "Success"
    evicted = (await api.get(f"{path}/pods/p")).json
    assert evicted["metadata"]["deletionGracePeriodSeconds"] == 7
    (condition,) = (one for one in evicted["status"]["conditions"] if one["type"] == "DisruptionTarget")
    assert (condition["status"], condition["reason"], condition["message"]) == ("True", "EvictionByEvictionAPI", "Eviction API: evicting")
    assert (await api.post(f"{path}/pods/ghost/eviction", body | {"metadata": {"name": "ghost"}})).code == 404


@on_server
async def test_an_eviction_of_another_version_of_the_pod_leaves_it_as_it_is(api: Api) -> None:
    path = await api.namespace()
    made = await api.made(f"{path}/pods", pod("p", nodeName="n"))

    def eviction(version: str) -> Object:
        return {"metadata": {"name": "p"}, "deleteOptions": {"preconditions": {"resourceVersion": version}}}

    assert (await api.post(f"{path}/pods/p/eviction", eviction("1"))).code == 409
    assert (await api.get(f"{path}/pods/p")).json == made
    assert (await api.post(f"{path}/pods/p/eviction", eviction(made["metadata"]["resourceVersion"]))).code == 201
    assert (await api.get(f"{path}/pods/p")).json["metadata"]["deletionTimestamp"]


@on_server
async def test_reviews_are_answered_and_never_stored(api: Api) -> None:
    before = api.storage.revision()
    attributes = {"verb": "create", "resource": "pods", "namespace": "d"}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes}}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = await api.post(path, review)
    assert (answer.code, answer.json["status"]) == (201, {"allowed": True})
    who = await api.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", {"metadata": {}})
    assert who.json["status"]["userInfo"]["username"] == "system:admin"
    assert api.storage.revision() == before
    table = await api.post(path, review, accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    assert table.says[:2] == (406, "NotAcceptable")


@on_server
async def test_a_subresource_that_a_kind_lacks_is_not_found(api: Api) -> None:
    path = await api.namespace()
    assert (await api.get(f"{path}/configmaps/a/scale")).says[:2] == (404, "NotFound")
    assert (await api.get(f"{path}/pods/p/binding")).says[:2] == (405, "MethodNotAllowed")
    assert (await api.get(f"{path}/unknowns")).says == (404, "NotFound", "the server could not find the requested resource")


@on_server
async def test_a_debugging_container_is_added_and_stays_as_it_is(api: Api) -> None:
    path = await api.namespace()
    made = await api.made(f"{path}/pods", pod("p"))
    where = f"{path}/pods/p/ephemeralcontainers"
    added = await api.patch(where, {"spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox"}], "nodeName": "n9"}})
    assert added.code == 200, added.body
    spec, metadata = added.json["spec"], added.json["metadata"]
    assert [one["name"] for one in spec["ephemeralContainers"]] == ["debug"] and "nodeName" not in spec
    assert metadata["generation"] == made["metadata"]["generation"] + 1
    gone = await api.patch(where, {"spec": {"ephemeralContainers": None}})
    assert gone.says[2].endswith('spec.ephemeralContainers: Forbidden: existing ephemeral containers "debug" may not be removed')
    clash = await api.patch(where, {"spec": {"ephemeralContainers": [*spec["ephemeralContainers"], {"name": "c", "image": "i"}]}})
    assert clash.says[2].endswith('spec.ephemeralContainers[1].name: Duplicate value: "c"')


@on_server
async def test_resources_are_resized_and_nothing_else(api: Api) -> None:
    path = await api.namespace()
    resources = {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}}
    await api.made(f"{path}/pods", pod("p", containers=[{"name": "c", "image": "i", "resources": resources}]))
    where, strategic = f"{path}/pods/p/resize", "strategic-merge-patch"

    def to(**changed: Any) -> Object:
        return {"spec": {"containers": [{"name": "c", "image": "other", "resources": changed}]}}

    larger = await api.patch(where, to(requests={"cpu": "150m"}), strategic)
    assert larger.code == 200, larger.body
    container = larger.json["spec"]["containers"][0]
    assert container["resources"]["requests"] == {"cpu": "150m"} and container["image"] == "i"
    assert larger.json["metadata"]["generation"] == 2
    assert (
        "spec: Forbidden: only cpu and memory resources are mutable"
        in (await api.patch(where, to(requests={"ephemeral-storage": "1Gi"}), strategic)).says[2]
    )
    same = {"cpu": "200m", "memory": "1Gi"}
    assert (
        "Pod QOS Class may not change as a result of resizing"
        in (await api.patch(where, to(requests=same, limits=same), strategic)).says[2]
    )
