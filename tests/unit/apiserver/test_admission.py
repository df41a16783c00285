"""What is filled into pods, and which pods are refused for it."""

from __future__ import annotations

from api_exchange import Api, on_server, pod

MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@on_server
async def test_a_pod_runs_as_the_default_account_and_finds_its_token(api: Api) -> None:
    path = await api.namespace()
    spec = (await api.made(f"{path}/pods", pod("p", initContainers=[{"name": "i", "image": "i"}])))["spec"]
    assert spec["serviceAccountName"] == "default"
    volume = spec["volumes"][0]
    assert volume["name"].startswith("kube-api-access-")
    assert [next(iter(source)) for source in volume["projected"]["sources"]] == ["serviceAccountToken", "configMap", "downwardAPI"]
    for container in (spec["containers"][0], spec["initContainers"][0]):
        assert container["volumeMounts"] == [{"name": volume["name"], "readOnly": True, "mountPath": MOUNT}]


@on_server
async def test_a_pod_of_an_account_that_does_not_exist_is_forbidden(api: Api) -> None:
    path = await api.namespace()
    assert (await api.post(f"{path}/pods", pod("p", serviceAccountName="ghost"))).says == (
        403,
        "Forbidden",
        'pods "p" is forbidden: error looking up service account d/ghost: serviceaccount "ghost" not found',
    )


@on_server
async def test_pod_and_account_may_opt_out_of_the_token(api: Api) -> None:
    path = await api.namespace()
    spec = (await api.made(f"{path}/pods", pod("p", automountServiceAccountToken=False)))["spec"]
    assert not spec.get("volumes") and not spec["containers"][0].get("volumeMounts")
    await api.made(f"{path}/serviceaccounts", {"metadata": {"name": "shy"}, "automountServiceAccountToken": False})
    assert not (await api.made(f"{path}/pods", pod("q", serviceAccountName="shy")))["spec"].get("volumes")
    insists = pod("r", serviceAccountName="shy", automountServiceAccountToken=True)
    assert (await api.made(f"{path}/pods", insists))["spec"]["volumes"]


@on_server
async def test_a_pod_tolerates_a_lost_node_for_five_minutes_unless_it_says_otherwise(api: Api) -> None:
    path = await api.namespace()
    own = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 2}
    tolerations = (await api.made(f"{path}/pods", pod("p", tolerations=[own])))["spec"]["tolerations"]
    assert tolerations == [
        own,
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
    ]
    everything = [{"operator": "Exists"}]
    assert (await api.made(f"{path}/pods", pod("q", tolerations=everything)))["spec"]["tolerations"] == everything


@on_server
async def test_priority_comes_from_the_class(api: Api) -> None:
    path = await api.namespace()
    spec = (await api.made(f"{path}/pods", pod("p")))["spec"]
    assert (spec["priority"], spec["preemptionPolicy"]) == (0, "PreemptLowerPriority")
    assert (await api.made(f"{path}/pods", pod("q", priorityClassName="system-node-critical")))["spec"]["priority"] == 2_000_001_000
    says = (await api.post(f"{path}/pods", pod("r", priorityClassName="ghost"))).says
    assert says == (403, "Forbidden", 'pods "r" is forbidden: no PriorityClass with name ghost was found')
    assert (await api.post(f"{path}/pods", pod("s", priority=7))).says[:2] == (403, "Forbidden")
