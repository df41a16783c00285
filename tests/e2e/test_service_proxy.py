"""Connections to services find ready endpoints through the kernel's table, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.netns import CLIENT, NODE, SERVER_ADDRESSES, Network, NodeProxy

SERVICE = "10.96.0.9"
A, B, C = SERVER_ADDRESSES[:3]


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    network = Network()
    try:
        for protocol in ("tcp", "udp"):
            network.serve(protocol, 8080, A, B, C)
        yield network
    finally:
        network.close()


@pytest.fixture
def proxy(network: Network) -> Iterator[NodeProxy]:
    proxy = NodeProxy(network)
    proxy.call("start", "nftables")
    yield proxy
    proxy.call("stop")
    proxy.call("cleanup")
    assert network.inside(network.node, "nft", "list", "tables") == ""


def service(*, annotations: dict[str, str] | None = None, address: str = SERVICE, protocol: str = "TCP", **spec: Any) -> dict[str, Any]:
    ports = [{"name": "p", "protocol": protocol, "port": 80, "nodePort": spec.pop("node_port", 0)}]
    meta = {"name": "s", "namespace": "d", "annotations": annotations}
    return {"metadata": meta, "spec": {"clusterIP": address, "clusterIPs": [address], "ports": ports, **spec}}


def endpoints(*ready: str, protocol: str = "TCP", not_ready: tuple[str, ...] = (), nodes: dict[str, str] | None = None) -> dict[str, Any]:
    entries = [{"addresses": [ip], "conditions": {"ready": True}, "nodeName": (nodes or {}).get(ip)} for ip in ready]
    entries += [{"addresses": [ip], "conditions": {"ready": False}} for ip in not_ready]
    return {
        "metadata": {"name": "s-1", "namespace": "d", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4",
        "ports": [{"name": "p", "protocol": protocol, "port": 8080}],
        "endpoints": entries,
    }


def servers(answers: list[str]) -> set[str]:
    return {answer.split()[0] for answer in answers}


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_cluster_ip_leads_to_every_ready_endpoint_and_to_no_other(network: Network, proxy: NodeProxy, protocol: str) -> None:
    upper = protocol.upper()
    proxy.call("update", [service(protocol=upper)], [endpoints(A, B, protocol=upper, not_ready=(C,))])
    assert servers(network.ask(network.client, protocol, SERVICE, 80, times=40)) == {A, B}
    # Pods see who talks to them: the source is kept.
    assert network.ask(network.client, protocol, SERVICE, 80)[0].endswith(f" {CLIENT}")
    assert servers(network.ask(network.node, protocol, SERVICE, 80, times=40)) == {A, B}


def test_an_endpoint_change_is_seen_by_the_next_connection(network: Network, proxy: NodeProxy) -> None:
    for ready in ((A,), (B, C), (A, B, C), (C,)):
        assert proxy.call("update", [service()], [endpoints(*ready)]) > 0
        assert servers(network.ask(network.client, "tcp", SERVICE, 80, times=40)) == set(ready)
    assert proxy.call("update", [service()], [endpoints(C)]) == 0


def test_services_without_ready_endpoints_and_unknown_ports_refuse_at_once(network: Network, proxy: NodeProxy) -> None:
    proxy.call("update", [service(node_port=30080)], [endpoints(not_ready=(A,))])
    for where in (network.client, network.node):
        assert network.ask(where, "tcp", SERVICE, 80) == ["ConnectionRefusedError"]
        assert network.ask(where, "tcp", SERVICE, 81) == ["ConnectionRefusedError"]
    assert network.ask(network.client, "tcp", NODE, 30080) == ["ConnectionRefusedError"]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_node_port_leads_to_endpoints_from_outside_and_on_localhost(network: Network, proxy: NodeProxy, protocol: str) -> None:
    upper = protocol.upper()
    proxy.call("update", [service(protocol=upper, node_port=30080, type="NodePort")], [endpoints(A, B, protocol=upper)])
    answers = network.ask(network.client, protocol, NODE, 30080, times=40)
    # The source is hidden, so that the answer comes back through this node wherever the endpoint is.
    assert {tuple(answer.split()) for answer in answers} == {(A, "10.2.0.1"), (B, "10.2.0.1")}
    assert servers(network.ask(network.node, protocol, NODE, 30080, times=40)) == {A, B}
    assert servers(network.ask(network.node, protocol, "127.0.0.1", 30080, times=40)) == {A, B}


def test_the_external_policy_local_keeps_the_source_and_uses_endpoints_of_this_node(network: Network, proxy: NodeProxy) -> None:
    local = service(node_port=30080, type="NodePort", externalTrafficPolicy="Local")
    proxy.call("update", [local], [endpoints(A, B, nodes={A: "here", B: "there"})])
    assert set(network.ask(network.client, "tcp", NODE, 30080, times=20)) == {f"{A} {CLIENT}"}
    assert servers(network.ask(network.client, "tcp", SERVICE, 80, times=40)) == {A, B}
    proxy.call("update", [local], [endpoints(B, nodes={B: "there"})])
    assert network.ask(network.client, "tcp", NODE, 30080) == ["ConnectionRefusedError"]


def test_the_internal_policy_local_uses_endpoints_of_this_node(network: Network, proxy: NodeProxy) -> None:
    local = service(internalTrafficPolicy="Local")
    proxy.call("update", [local], [endpoints(A, B, nodes={A: "there", B: "here"})])
    assert servers(network.ask(network.client, "tcp", SERVICE, 80, times=20)) == {B}


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_client_with_affinity_stays_until_its_endpoint_goes(network: Network, proxy: NodeProxy, protocol: str) -> None:
    upper = protocol.upper()
    sticky = service(protocol=upper, node_port=30080, sessionAffinity="ClientIP")
    proxy.call("update", [sticky], [endpoints(A, B, C, protocol=upper)])
    [mine] = servers(network.ask(network.client, protocol, SERVICE, 80, times=20))
    # Another endpoint goes, and mine stays mine; then mine goes.
    other = next(one for one in (A, B, C) if one != mine)
    proxy.call("update", [sticky], [endpoints(*({A, B, C} - {other}), protocol=upper)])
    assert servers(network.ask(network.client, protocol, SERVICE, 80, times=20)) == {mine}
    assert servers(network.ask(network.client, protocol, NODE, 30080, times=20)) == {mine}
    left = {A, B, C} - {mine}
    proxy.call("update", [sticky], [endpoints(*left, protocol=upper)])
    [now] = servers(network.ask(network.client, protocol, SERVICE, 80, times=20))
    assert now in left
    proxy.call("update", [], [])
    assert "affinity" not in network.inside(network.node, "nft", "list", "table", "ip", "korch-proxy")


def test_affinity_ends_when_the_client_was_quiet_for_the_timeout(network: Network, proxy: NodeProxy) -> None:
    config = {"clientIP": {"timeoutSeconds": 1}}
    proxy.call("update", [service(sessionAffinity="ClientIP", sessionAffinityConfig=config)], [endpoints(A, B, C)])
    seen: set[str] = set()
    for _ in range(15):
        seen |= servers(network.ask(network.client, "tcp", SERVICE, 80))
        if len(seen) > 1:
            return
        network.inside(network.node, "sleep", "1.5")
    raise AssertionError(f"always {seen}")


def test_an_endpoint_reaches_itself_through_its_service(network: Network, proxy: NodeProxy) -> None:
    proxy.call("update", [service()], [endpoints(A)])
    # It sees the node as the other side, not itself.
    assert network.ask(network.server, "tcp", SERVICE, 80) == [f"{A} 10.2.0.1"]


def test_external_addresses_lead_to_endpoints(network: Network, proxy: NodeProxy) -> None:
    proxy.call("update", [service(externalIPs=["192.0.2.7"])], [endpoints(A, B)])
    assert servers(network.ask(network.client, "tcp", "192.0.2.7", 80, times=40)) == {A, B}


def test_a_udp_client_that_keeps_its_port_is_moved_from_an_endpoint_that_went(network: Network, proxy: NodeProxy) -> None:
    udp = service(protocol="UDP")
    proxy.call("update", [udp], [endpoints(A, protocol="UDP")])
    assert servers(network.ask(network.client, "udp", SERVICE, 80, source_port=5555)) == {A}
    proxy.call("update", [udp], [endpoints(B, protocol="UDP")])
    assert servers(network.ask(network.client, "udp", SERVICE, 80, source_port=5555)) == {B}
    assert proxy.call("stats")["udp_flows_ended"] >= 1


def test_an_address_that_the_node_serves_itself_is_left_alone(network: Network, proxy: NodeProxy) -> None:
    mine = service(annotations={"korch.dev/served-by-node": "true"}, address=NODE)
    proxy.call("update", [mine], [endpoints(A)])
    network.start(network.node, "serve", "tcp", "80", NODE)
    assert network.ask(network.client, "tcp", NODE, 80) == [f"{NODE} {CLIENT}"]


def test_a_new_process_takes_over_the_table_and_repairs_what_others_changed(network: Network, proxy: NodeProxy) -> None:
    first = NodeProxy(network)
    first.call("start", "nftables")
    first.call("update", [service()], [endpoints(A, B)])
    first.die()
    assert servers(network.ask(network.client, "tcp", SERVICE, 80, times=40)) == {A, B}
    second = NodeProxy(network)
    second.call("start", "nftables")
    assert servers(network.ask(network.client, "tcp", SERVICE, 80, times=40)) == {A, B}
    assert second.call("update", [service()], [endpoints(A, B)]) == 0
    network.inside(network.node, "nft", "delete", "table", "ip", "korch-proxy")
    second.call("update", [service()], [endpoints(B, C)])
    assert servers(network.ask(network.client, "tcp", SERVICE, 80, times=40)) == {B, C}
    second.die()


def test_thousands_of_services_go_in_and_out(network: Network, proxy: NodeProxy) -> None:
    def many(count: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        services, slices = [], []
        for number in range(count):
            one = service(address=f"10.97.{number // 250}.{number % 250 + 1}")
            one["metadata"]["name"] = f"s{number}"
            services.append(one)
            its = endpoints(A, B)
            its["metadata"]["labels"]["kubernetes.io/service-name"] = f"s{number}"
            slices.append(its)
        return services, slices

    # Each has an element for its address, one for its chain and one for every endpoint; the endpoints share two hairpin elements.
    assert proxy.call("update", *many(2000)) == 2000 * 4 + 2
    assert servers(network.ask(network.client, "tcp", "10.97.7.250", 80, times=20)) == {A, B}
    assert proxy.call("update", *many(1999)) == 4
    assert proxy.call("update", [], []) == 1999 * 4 + 2
    assert proxy.call("stats")["elements"] == 0
