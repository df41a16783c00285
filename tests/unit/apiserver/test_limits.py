"""Limit ranges, quotas, pod security, classes that are filled in, and evictions: what a namespace's rules do to writes."""

from __future__ import annotations

import asyncio
from typing import Any

from access import Access, with_access
from api_exchange import ADDRESS, Api, config_map, on_server, pod, serve
from test_every_kind import GOOD, signing_request

from korch.api.gvk import CONFIG_MAPS
from korch.apiserver.server import ServerConfig

Object = dict[str, Any]


def sized(name: str, **resources: Object) -> Object:
    return pod(name, containers=[{"name": "c", "image": "i", "resources": resources}])


@on_server
async def test_a_limit_range_fills_in_and_refuses(api: Api) -> None:
    path = await api.namespace()
    item = {"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "50m"}, "defaultRequest": {"cpu": "100m"}, "default": {"cpu": "500m"}}
    await api.made(f"{path}/limitranges", {"metadata": {"name": "l"}, "spec": {"limits": [item]}})
    made = await api.made(f"{path}/pods", pod("p"))
    assert made["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}}
    assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    )
    assert (await api.post(f"{path}/pods", sized("big", limits={"cpu": "2"}))).says == (
        403,
        "Forbidden",
        'pods "big" is forbidden: maximum cpu usage per Container is 1, but limit is 2',
    )
    claims = {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}
    await api.made(f"{path}/limitranges", {"metadata": {"name": "c"}, "spec": {"limits": [claims]}})
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}
    assert (await api.post(f"{path}/persistentvolumeclaims", {"metadata": {"name": "c"}, "spec": spec})).says[2] == (
        'persistentvolumeclaims "c" is forbidden: maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi'
    )


@on_server
async def test_a_quota_is_never_exceeded_even_by_writes_at_the_same_time(api: Api) -> None:
    path = await api.namespace()
    hard = {"configmaps": "3", "requests.cpu": "1", "count/deployments.apps": "0"}
    await api.made(f"{path}/resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    answers = await asyncio.gather(
        *(api.server.client().create(CONFIG_MAPS, config_map(f"c{n}"), namespace="d") for n in range(6)), return_exceptions=True
    )
    assert sum(isinstance(one, bytes) for one in answers) == 3
    assert (await api.post(f"{path}/configmaps", config_map("more"))).says == (
        403,
        "Forbidden",
        'configmaps "more" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=3, limited: configmaps=3',
    )
    assert (await api.delete(f"{path}/configmaps/c0")).code == 200
    await api.made(f"{path}/configmaps", config_map("more"))
    assert (await api.post(f"{path}/pods", pod("p"))).says[2] == 'pods "p" is forbidden: failed quota: q: must specify requests.cpu for: c'
    await api.made(f"{path}/pods", sized("p", requests={"cpu": "600m"}))
    assert (
        (await api.post(f"{path}/pods", sized("r", requests={"cpu": "600m"})))
        .says[2]
        .endswith("exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=600m, limited: requests.cpu=1")
    )


@on_server
async def test_a_namespace_holds_its_pods_to_a_security_standard(api: Api) -> None:
    labels = {f"pod-security.kubernetes.io/{mode}": level for mode, level in (("enforce", "baseline"), ("warn", "restricted"))}
    await api.made("/api/v1/namespaces", {"metadata": {"name": "d", "labels": labels}})
    await api.made("/api/v1/namespaces/d/serviceaccounts", {"metadata": {"name": "default"}})
    pods = "/api/v1/namespaces/d/pods"
    bad = pod("p", hostNetwork=True, containers=[{"name": "c", "image": "i", "securityContext": {"privileged": True}}])
    assert (await api.post(pods, bad)).says[2] == (
        'pods "p" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true), '
        'privileged (container "c" must not set securityContext.privileged=true)'
    )
    warned = await api.post(pods, pod("q"))
    assert warned.code == 201
    assert "would violate PodSecurity" in warned.warnings[0] and "runAsNonRoot != true (pod or container" in warned.warnings[0]
    safe = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    context = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    good = pod("r", securityContext=context, containers=[{"name": "c", "image": "i", "securityContext": safe}])
    assert (await api.post(pods, good)).warnings == []
    bad_label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "loose"}}}
    assert "must be one of privileged, baseline, restricted" in (await api.patch("/api/v1/namespaces/d", bad_label)).says[2]


@on_server
async def test_classes_are_filled_in_and_claims_are_protected(api: Api) -> None:
    path = await api.namespace()
    is_default = {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
    await api.made("/apis/storage.k8s.io/v1/storageclasses", {"metadata": {"name": "fast", **is_default}, "provisioner": "p.example.com"})
    claim = await api.made(f"{path}/persistentvolumeclaims", {"metadata": {"name": "c"}, **GOOD["", "persistentvolumeclaims"]})
    assert claim["spec"]["storageClassName"] == "fast" and claim["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    await api.made(
        "/apis/node.k8s.io/v1/runtimeclasses", {"metadata": {"name": "vm"}, "handler": "vm", "overhead": {"podFixed": {"cpu": "1"}}}
    )
    assert (await api.made(f"{path}/pods", pod("p", runtimeClassName="vm")))["spec"]["overhead"] == {"cpu": "1"}
    assert (await api.post(f"{path}/pods", pod("q", runtimeClassName="no"))).says[2].endswith('RuntimeClass "no" not found')
    await api.made("/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": "std"}, "value": 7, "globalDefault": True})
    assert (await api.made(f"{path}/pods", pod("r")))["spec"]["priority"] == 7


def test_a_new_node_takes_no_pods_until_it_was_seen_ready() -> None:
    async def story(api: Api) -> None:
        node = await api.made("/api/v1/nodes", {"metadata": {"name": "n"}})
        assert node["spec"]["taints"] == [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]

    serve(story, config=ServerConfig(advertise_host=ADDRESS, taints_new_nodes=True))


@on_server
async def test_an_eviction_takes_an_allowance_or_is_put_off(api: Api) -> None:
    path, budgets = await api.namespace(), "/apis/policy/v1/namespaces/d/poddisruptionbudgets"
    for name in ("a", "b"):
        await api.made(f"{path}/pods", {**pod(name), "metadata": {"name": name, "labels": {"app": "web"}}})
        ready = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
        assert (await api.patch(f"{path}/pods/{name}/status", ready)).code == 200
    selector = {"matchLabels": {"app": "web"}}
    await api.made(budgets, {"metadata": {"name": "web"}, "spec": {"minAvailable": 1, "selector": selector}})
    status = {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}
    assert (await api.patch(f"{budgets}/web/status", {"status": status})).code == 200
    assert (await api.post(f"{path}/pods/a/eviction", {"metadata": {"name": "a"}})).code == 201
    taken = (await api.get(f"{budgets}/web")).json["status"]
    assert taken["disruptionsAllowed"] == 0 and list(taken["disruptedPods"]) == ["a"]
    refused = await api.post(f"{path}/pods/b/eviction", {"metadata": {"name": "b"}})
    assert refused.says == (429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.")
    assert refused.json["details"]["causes"][0]["message"] == "The disruption budget web needs 1 healthy pods and has 2 currently"
    assert (await api.get(f"{path}/pods/b")).code == 200


@with_access
async def test_signers_are_guarded(access: Access) -> None:
    path = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
    group, merge = "certificates.k8s.io", "application/merge-patch+json"
    everything = {"verbs": ["*"], "apiGroups": [group], "resources": ["certificatesigningrequests", "certificatesigningrequests/approval"]}
    await access.admin.grant("jane", "csr", everything)
    jane = access.user("jane")
    spec = {"signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}
    await jane.made(path, {"metadata": {"name": "a"}, "spec": {**spec, "request": signing_request()}})
    approval = {"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "r", "message": "m"}]}}
    refused = await jane.call("PATCH", f"{path}/a/approval", approval, content_type=merge)
    assert refused.says[2].endswith('user not permitted to approve requests with signerName "kubernetes.io/kube-apiserver-client"')
    await access.admin.grant("jane", "approver", {"verbs": ["approve"], "apiGroups": [group], "resources": ["signers"]})
    assert (await jane.call("PATCH", f"{path}/a/approval", approval, content_type=merge)).code == 200
    masters = {"metadata": {"name": "m"}, "spec": {**spec, "request": signing_request("x", "system:masters")}}
    assert (await jane.post(path, masters)).says[2].endswith("signer with system:masters group is not allowed")
