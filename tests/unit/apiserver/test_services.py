"""Addresses and node ports: who gets which, what is refused, and what comes back when a Service goes or changes its type."""

from __future__ import annotations

from api_exchange import Api, on_server, serve, service

from korch.apiserver.server import ServerConfig


@on_server
async def test_a_service_gets_an_address_of_the_range(api: Api) -> None:
    path = await api.namespace()
    spec = (await api.made(f"{path}/services", service("a")))["spec"]
    assert spec["clusterIP"].startswith("10.96.") and spec["clusterIPs"] == [spec["clusterIP"]]
    assert (spec["type"], spec["ipFamilies"], spec["ipFamilyPolicy"]) == ("ClusterIP", ["IPv4"], "SingleStack")
    other = (await api.made(f"{path}/services", service("b")))["spec"]
    assert other["clusterIP"] != spec["clusterIP"]


@on_server
async def test_an_address_that_is_asked_for_is_given_once(api: Api) -> None:
    path = await api.namespace()
    assert (await api.made(f"{path}/services", service("dns", clusterIP="10.96.0.10")))["spec"]["clusterIPs"] == ["10.96.0.10"]
    assert (await api.post(f"{path}/services", service("other", clusterIP="10.96.0.10"))).says == (
        422,
        "Invalid",
        'Service "other" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.10"]: failed to allocate IP 10.96.0.10: '
        "provided IP is already allocated",
    )
    answer = await api.post(f"{path}/services", service("far", clusterIP="192.0.2.1"))
    assert answer.says == (
        422,
        "Invalid",
        'Service "far" is invalid: spec.clusterIPs: Invalid value: ["192.0.2.1"]: failed to allocate IP 192.0.2.1: the provided IP '
        "(192.0.2.1) is not in the valid range. The range of valid IPs is 10.96.0.0/16",
    )
    await api.delete(f"{path}/services/dns")
    assert (await api.post(f"{path}/services", service("other", clusterIP="10.96.0.10"))).code == 201


@on_server
async def test_a_headless_service_has_no_address(api: Api) -> None:
    path = await api.namespace()
    spec = (await api.made(f"{path}/services", service("a", clusterIP="None")))["spec"]
    assert (spec["clusterIP"], spec["clusterIPs"]) == ("None", ["None"])


@on_server
async def test_node_ports_are_given_kept_and_given_back(api: Api) -> None:
    path = await api.namespace()
    made = await api.made(f"{path}/services", service("a", type="NodePort"))
    port = made["spec"]["ports"][0]["nodePort"]
    assert 30000 <= port <= 32767
    again = (await api.put(f"{path}/services/a", service("a", type="NodePort"))).json
    assert again["spec"]["ports"][0]["nodePort"] == port and again["spec"]["clusterIP"] == made["spec"]["clusterIP"]
    wanted = service("b", type="NodePort", ports=[{"port": 80, "nodePort": port}])
    assert (await api.post(f"{path}/services", wanted)).says == (
        422,
        "Invalid",
        f'Service "b" is invalid: spec.ports[0].nodePort: Invalid value: {port}: provided port is already allocated',
    )
    plain = (await api.patch(f"{path}/services/a", {"spec": {"type": "ClusterIP"}})).json
    assert "nodePort" not in plain["spec"]["ports"][0]
    assert (await api.post(f"{path}/services", wanted)).code == 201


@on_server
async def test_a_node_port_outside_the_range_is_invalid(api: Api) -> None:
    path = await api.namespace()
    answer = await api.post(f"{path}/services", service("a", type="NodePort", ports=[{"port": 80, "nodePort": 80}]))
    assert answer.code == 422
    message = "Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"
    assert answer.json["details"]["causes"] == [{"reason": "FieldValueInvalid", "message": message, "field": "spec.ports[0].nodePort"}]


@on_server
async def test_tcp_and_udp_of_one_port_share_a_node_port(api: Api) -> None:
    path = await api.namespace()
    ports = [{"name": "t", "port": 53, "protocol": "TCP"}, {"name": "u", "port": 53, "protocol": "UDP"}]
    spec = (await api.made(f"{path}/services", service("a", type="NodePort", ports=ports)))["spec"]
    assert spec["ports"][0]["nodePort"] == spec["ports"][1]["nodePort"]


@on_server
async def test_a_service_that_becomes_an_external_name_gives_its_address_back(api: Api) -> None:
    path = await api.namespace()
    address = (await api.made(f"{path}/services", service("a")))["spec"]["clusterIP"]
    external = (await api.patch(f"{path}/services/a", {"spec": {"type": "ExternalName", "externalName": "x.test"}})).json
    assert not external["spec"].get("clusterIP")
    assert (await api.post(f"{path}/services", service("b", clusterIP=address))).code == 201
    back = (await api.patch(f"{path}/services/a", {"spec": {"type": "ClusterIP", "externalName": None}})).json
    assert back["spec"]["clusterIP"] not in ("", address)


@on_server
async def test_a_refused_or_dry_service_takes_nothing(api: Api) -> None:
    path = await api.namespace()
    taken = service("a", clusterIP="10.96.0.20", type="NodePort", ports=[{"port": 80, "nodePort": 31000}])
    assert (await api.post(f"{path}/services", taken, dryRun="All")).code == 201
    await api.made(f"{path}/services", service("b"))
    assert (await api.post(f"{path}/services", taken | {"metadata": {"name": "b"}})).code == 409
    assert (await api.post(f"{path}/services", taken)).code == 201


def test_a_range_that_is_used_up_says_so() -> None:
    async def story(api: Api) -> None:
        path = await api.namespace()
        # A /30 has two addresses, and the service `kubernetes` has the first.
        await api.made(f"{path}/services", service("a"))
        code, reason, message = (await api.post(f"{path}/services", service("b"))).says
        assert (code, reason) == (500, "InternalError") and message.endswith("failed to allocate a serviceIP: range is full")
        await api.delete(f"{path}/services/a")
        await api.made(f"{path}/services", service("b"))

    serve(story, config=ServerConfig(service_cidr="10.0.0.0/30"))


@on_server
async def test_status_is_written_apart_from_the_spec(api: Api) -> None:
    path = await api.namespace()
    await api.made(f"{path}/services", service("a", type="LoadBalancer"))
    patch = {"metadata": {"annotations": {"patched": "true"}}, "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}}
    patched = (await api.patch(f"{path}/services/a/status", patch)).json
    assert patched["status"]["loadBalancer"]["ingress"][0]["ip"] == "203.0.113.1"
    assert patched["metadata"]["annotations"] == {"patched": "true"}
