"""What exists before anybody asks, and that it heals."""

from __future__ import annotations

import asyncio

from api_exchange import ADDRESS, Api, on_server, serve

from korch.apiserver.server import ServerConfig


@on_server
async def test_the_systems_namespaces_exist(api: Api) -> None:
    names = [one["metadata"]["name"] for one in (await api.get("/api/v1/namespaces")).json["items"]]
    assert names == ["default", "kube-node-lease", "kube-public", "kube-system"]


@on_server
async def test_the_service_kubernetes_leads_to_this_server(api: Api) -> None:
    path = "/api/v1/namespaces/default"
    spec = (await api.get(f"{path}/services/kubernetes")).json["spec"]
    assert spec["clusterIP"] == "10.96.0.1"
    assert [(one["name"], one["port"], one["targetPort"]) for one in spec["ports"]] == [("https", 443, 6443)]
    subsets = (await api.get(f"{path}/endpoints/kubernetes")).json["subsets"]
    assert subsets == [{"addresses": [{"ip": ADDRESS}], "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}]}]
    endpoint_slice = (await api.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes")).json
    assert endpoint_slice["metadata"]["labels"] == {"kubernetes.io/service-name": "kubernetes"}
    assert endpoint_slice["endpoints"][0]["addresses"] == [ADDRESS]


@on_server
async def test_what_somebody_breaks_is_right_again_soon(api: Api) -> None:
    path = "/api/v1/namespaces/default"
    await api.delete(f"{path}/services/kubernetes")
    await api.patch(f"{path}/endpoints/kubernetes", {"subsets": None})
    await asyncio.sleep(11)
    assert (await api.get(f"{path}/services/kubernetes")).json["spec"]["clusterIP"] == "10.96.0.1"
    assert (await api.get(f"{path}/endpoints/kubernetes")).json["subsets"][0]["addresses"] == [{"ip": ADDRESS}]


@on_server
async def test_an_idle_server_writes_nothing(api: Api) -> None:
    before = api.storage.revision()
    await asyncio.sleep(600)
    assert api.storage.revision() == before


def test_a_server_on_loopback_is_ready_with_no_endpoints_behind_its_service() -> None:
    async def story(api: Api) -> None:
        path = "/api/v1/namespaces/default"
        assert (await api.get(f"{path}/services/kubernetes")).code == 200
        assert not (await api.get(f"{path}/endpoints/kubernetes")).json.get("subsets")

    serve(story, config=ServerConfig(advertise_host="127.0.0.1"))


def test_the_address_of_cluster_dns_belongs_to_a_service_that_nodes_answer_themselves() -> None:
    async def story(api: Api) -> None:
        service = (await api.get("/api/v1/namespaces/kube-system/services/kube-dns")).json
        assert service["spec"]["clusterIP"] == "10.96.0.10" and "selector" not in service["spec"]
        assert [(one["name"], one["port"], one["protocol"]) for one in service["spec"]["ports"]] == [
            ("dns", 53, "UDP"),
            ("dns-tcp", 53, "TCP"),
        ]
        assert service["metadata"]["annotations"] == {"korch.dev/served-by-node": "true"}

    serve(story, config=ServerConfig(cluster_dns="10.96.0.10"))


def test_a_server_whose_dns_address_is_taken_becomes_ready_all_the_same() -> None:
    async def story(api: Api) -> None:
        assert (await api.get("/readyz")).code == 200
        assert (await api.get("/api/v1/namespaces/kube-system/services/kube-dns")).code == 404

    serve(story, config=ServerConfig(cluster_dns="10.96.0.1"))
