"""Deletion: at once, after a grace period, or when the last finalizer goes."""

from __future__ import annotations

from api_exchange import Api, config_map, deployment, on_server, pod


@on_server
async def test_delete_answers_a_status_that_says_what_is_gone(api: Api) -> None:
    path = await api.namespace()
    made = await api.made(f"{path}/configmaps", config_map("a"))
    answer = await api.delete(f"{path}/configmaps/a")
    details = {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}
    assert answer.code == 200
    assert answer.json == {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
    assert (await api.delete(f"{path}/configmaps/a")).says == (404, "NotFound", 'configmaps "a" not found')


@on_server
async def test_preconditions_protect_another_object_of_the_same_name(api: Api) -> None:
    path = await api.namespace()
    made = await api.made(f"{path}/configmaps", config_map("a"))
    for precondition in ({"uid": "other"}, {"resourceVersion": "1"}):
        answer = await api.delete(f"{path}/configmaps/a", {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": precondition})
        assert answer.says[:2] == (409, "Conflict") and "Precondition failed" in answer.json["message"]
    options = {"preconditions": {"uid": made["metadata"]["uid"]}}
    assert (await api.delete(f"{path}/configmaps/a", options)).code == 200


@on_server
async def test_finalizers_keep_an_object_until_the_last_is_removed(api: Api) -> None:
    path = await api.namespace()
    body = config_map("a")
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await api.made(f"{path}/configmaps", body)
    marked = (await api.delete(f"{path}/configmaps/a")).json
    assert marked["kind"] == "ConfigMap" and marked["metadata"]["deletionTimestamp"]
    again = (await api.delete(f"{path}/configmaps/a")).json
    assert again["metadata"]["resourceVersion"] == marked["metadata"]["resourceVersion"]
    added = await api.patch(f"{path}/configmaps/a", {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}})
    assert added.code == 422 and "no new finalizers can be added if the object is being deleted" in added.json["message"]
    watch = await api.watch(f"{path}/configmaps", resourceVersion=marked["metadata"]["resourceVersion"])
    assert (await api.patch(f"{path}/configmaps/a", {"metadata": {"finalizers": None}})).code == 200
    assert (await api.get(f"{path}/configmaps/a")).code == 404
    assert await watch.take(1) == [("DELETED", "a")]
    await watch.leave()


@on_server
async def test_propagation_policies_leave_their_finalizer_for_the_garbage_collector(api: Api) -> None:
    await api.namespace()
    path = "/apis/apps/v1/namespaces/d/deployments"
    for policy, finalizer, code in (("Orphan", "orphan", 200), ("Foreground", "foregroundDeletion", 202)):
        await api.made(path, deployment(policy.lower()))
        answer = await api.delete(f"{path}/{policy.lower()}", {"propagationPolicy": policy})
        assert (answer.code, answer.json["metadata"]["finalizers"]) == (code, [finalizer])
    await api.made(path, deployment("web"))
    assert (await api.delete(f"{path}/web", propagationPolicy="Background")).json["status"] == "Success"
    await api.made(path, deployment("web"))
    assert (await api.delete(f"{path}/web", propagationPolicy="Sideways")).says[:2] == (422, "Invalid")


@on_server
async def test_a_pod_without_a_node_goes_at_once(api: Api) -> None:
    path = await api.namespace()
    await api.made(f"{path}/pods", pod("p"))
    assert (await api.delete(f"{path}/pods/p")).json["kind"] == "Pod"
    assert (await api.get(f"{path}/pods/p")).code == 404


@on_server
async def test_a_running_pod_gets_its_grace_and_a_second_delete_may_shorten_it(api: Api) -> None:
    path = await api.namespace()
    await api.made(f"{path}/pods", pod("p", nodeName="n"))
    first = (await api.delete(f"{path}/pods/p")).json["metadata"]
    assert first["deletionGracePeriodSeconds"] == 30 and first["deletionTimestamp"] and first["generation"] == 2
    longer = (await api.delete(f"{path}/pods/p", gracePeriodSeconds="60")).json["metadata"]
    assert longer["deletionGracePeriodSeconds"] == 30
    shorter = (await api.delete(f"{path}/pods/p", gracePeriodSeconds="5")).json["metadata"]
    assert shorter["deletionGracePeriodSeconds"] == 5 and shorter["deletionTimestamp"] < first["deletionTimestamp"]
    assert (await api.delete(f"{path}/pods/p", {"gracePeriodSeconds": 0})).code == 200
    assert (await api.get(f"{path}/pods/p")).code == 404


@on_server
async def test_delete_of_a_collection_deletes_what_matches(api: Api) -> None:
    path = await api.namespace()
    for name in ("a", "b", "c"):
        body = config_map(name)
        body["metadata"]["labels"] = {"drop": "no" if name == "c" else "yes"}
        await api.made(f"{path}/configmaps", body)
    answer = await api.delete(f"{path}/configmaps", labelSelector="drop=yes")
    assert [one["metadata"]["name"] for one in answer.json["items"]] == ["a", "b"]
    left = (await api.get(f"{path}/configmaps")).json["items"]
    assert [one["metadata"]["name"] for one in left] == ["c"]


@on_server
async def test_a_namespace_terminates_takes_nothing_new_and_ends_when_finalized(api: Api) -> None:
    path = await api.namespace()
    namespace = (await api.delete(path)).json
    assert namespace["status"]["phase"] == "Terminating" and namespace["spec"]["finalizers"] == ["kubernetes"]
    refused = await api.post(f"{path}/configmaps", config_map("a"))
    assert refused.says == (
        403,
        "Forbidden",
        'configmaps "a" is forbidden: unable to create new content in namespace d because it is being terminated',
    )
    assert refused.json["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    answer = await api.put(f"{path}/finalize", namespace | {"spec": {"finalizers": []}})
    assert answer.code == 200
    assert (await api.get(path)).code == 404


@on_server
async def test_the_systems_namespaces_stay(api: Api) -> None:
    for name in ("default", "kube-system", "kube-public"):
        says = (await api.delete(f"/api/v1/namespaces/{name}")).says
        assert says == (403, "Forbidden", f'namespaces "{name}" is forbidden: this namespace may not be deleted')
