"""What a node may see and write: its own pods and what they need, itself, its lease, and nothing of the others."""

from __future__ import annotations

from typing import Any

from access import Access, with_access
from api_exchange import config_map, pod

Object = dict[str, Any]
N1, N2 = "system:node:n1|system:nodes", "system:node:n2|system:nodes"


async def furnished(access: Access) -> str:
    """A namespace with pod `p` on n1, which needs Secret `key` and ConfigMap `conf`, and a Secret `other`."""
    path = await access.namespace()
    for name in ("key", "other"):
        await access.admin.made(f"{path}/secrets", {"metadata": {"name": name}})
    await access.admin.made(f"{path}/configmaps", config_map("conf"))
    volumes = [{"name": "v", "secret": {"secretName": "key"}}]
    environment = [{"configMapRef": {"name": "conf"}}]
    containers = [{"name": "c", "image": "i", "envFrom": environment}]
    await access.admin.made(f"{path}/pods", pod("p", nodeName="n1", volumes=volumes, containers=containers))
    return path


@with_access
async def test_a_node_reads_only_what_its_pods_need(access: Access) -> None:
    path = await furnished(access)
    n1, n2 = access.user(N1), access.user(N2)
    assert (await n1.get(f"{path}/secrets/key")).code == 200
    assert (await n1.get(f"{path}/configmaps/conf")).code == 200
    assert (await n1.get(f"{path}/secrets", fieldSelector="metadata.name=key")).code == 200
    assert (await n1.get(f"{path}/secrets/other")).says[2] == (
        'secrets "other" is forbidden: User "system:node:n1" cannot get resource "secrets" in API group "" in the namespace "d": '
        "no relationship found between node 'n1' and this object"
    )
    assert (await n1.get(f"{path}/secrets")).says[2].endswith("no object name found")
    assert (await n2.get(f"{path}/secrets/key")).code == 403
    assert (await access.admin.call("DELETE", f"{path}/pods/p", gracePeriodSeconds="0")).code == 200
    assert (await n1.get(f"{path}/secrets/key")).code == 403


@with_access
async def test_a_node_sees_and_changes_its_own_pods_only(access: Access) -> None:
    path = await furnished(access)
    n1, n2 = access.user(N1), access.user(N2)
    assert (await n1.get("/api/v1/pods", fieldSelector="spec.nodeName=n1")).json["items"][0]["metadata"]["name"] == "p"
    assert (await n1.get("/api/v1/pods")).code == 403
    assert (await n2.get(f"{path}/pods/p")).code == 403
    patch = {"status": {"phase": "Running"}}
    merge = "application/merge-patch+json"
    assert (await n1.call("PATCH", f"{path}/pods/p/status", patch, content_type=merge)).code == 200
    assert (await n2.call("PATCH", f"{path}/pods/p/status", patch, content_type=merge)).says[2] == (
        'pods "p" is forbidden: node "n2" can only update pod status for pods with spec.nodeName set to itself'
    )
    assert (await n2.call("DELETE", f"{path}/pods/p")).code == 403
    assert (await n1.post(f"{path}/pods", pod("q", nodeName="n1"))).says[2] == (
        'pods "q" is forbidden: pod does not have "kubernetes.io/config.mirror" annotation, node "n1" can only create mirror pods'
    )


@with_access
async def test_a_node_registers_itself_and_keeps_out_of_what_is_not_its_to_say(access: Access) -> None:
    n1, nodes, merge = access.user(N1), "/api/v1/nodes", "application/merge-patch+json"
    await n1.made(nodes, {"metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1", "team": "a"}}})
    assert (await n1.post(nodes, {"metadata": {"name": "n2"}})).says[2] == (
        'nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"'
    )
    assert (await n1.call("PATCH", f"{nodes}/n1/status", {"status": {"phase": "Running"}}, content_type=merge)).code == 200
    for label in ("node-restriction.kubernetes.io/tier", "node-role.kubernetes.io/control-plane"):
        refused = await n1.call("PATCH", f"{nodes}/n1", {"metadata": {"labels": {label: "x"}}}, content_type=merge)
        assert refused.says[2] == f'nodes "n1" is forbidden: is not allowed to modify labels: {label}'
    taints = {"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}
    assert (await n1.call("PATCH", f"{nodes}/n1", taints, content_type=merge)).code == 403
    assert (await n1.call("DELETE", f"{nodes}/n1")).code == 403


@with_access
async def test_a_node_holds_its_own_lease(access: Access) -> None:
    n1, leases = access.user(N1), "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    await n1.made(leases, {"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1"}})
    assert (await n1.get(f"{leases}/n1")).code == 200
    assert (await n1.post(leases, {"metadata": {"name": "n2"}})).code == 403
    assert (await n1.get(leases)).code == 403
    assert (await n1.post("/apis/coordination.k8s.io/v1/namespaces/default/leases", {"metadata": {"name": "n1"}})).code == 403


@with_access
async def test_a_node_follows_services_and_may_not_list_other_things(access: Access) -> None:
    n1 = access.user(N1)
    slices = "/apis/discovery.k8s.io/v1/endpointslices"
    assert [(await n1.get(path)).code for path in ("/api/v1/services", slices, "/api/v1/nodes")] == [200] * 3
    assert (await n1.get("/api/v1/serviceaccounts")).code == 403
    assert (await n1.get("/apis/apps/v1/deployments")).code == 403
