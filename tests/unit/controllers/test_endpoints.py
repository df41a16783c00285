"""Services find their pods: EndpointSlices and Endpoints."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.controllers.conftest import World

from korch.api.gvk import ENDPOINT_SLICES, ENDPOINTS, PODS, SERVICES
from korch.controllers.endpoints import EndpointsController, plan_subsets, truncate
from korch.controllers.endpointslice import EndpointSliceController, endpoint_of, plan_endpoints
from korch.controllers.services.membership import target_port
from korch.controllers.services.packing import group_for, pack

PORT = {"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}
ONE = group_for("IPv4", [{"name": "a", "port": 1, "protocol": "TCP"}])


def service(name: str = "s", ports: list[dict[str, Any]] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "d"},
        "spec": {"selector": {"app": "web"}, "ports": [PORT] if ports is None else ports, **spec},
    }


def pod(
    name: str, ip: str = "10.0.0.1", ready: bool = True, terminating: bool = False, phase: str = "Running", port: int = 8080, **spec: Any
) -> Any:
    meta = {"name": name, "uid": name, "namespace": "d", "labels": {"app": "web"}}
    if terminating:
        meta["deletionTimestamp"] = "2027-01-15T08:00:00Z"
    container = {"name": "c", "ports": [{"name": "web", "containerPort": port, "protocol": "TCP"}]}
    status = {"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": str(ready)}]}
    return {"metadata": meta, "spec": {"nodeName": "n1", "containers": [container], **spec}, "status": status}


def endpoint(name: str) -> dict[str, Any]:
    return {"addresses": [name], "targetRef": {"uid": name}}


def held(name: str, endpoints: list[str], group: Any = ONE) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "addressType": group.family,
        "ports": group.port_list(),
        "endpoints": [endpoint(one) for one in endpoints],
    }


@pytest.mark.parametrize(
    ("ready", "terminating", "publishes", "conditions"),
    [
        (True, False, False, (True, True, False)),
        (False, False, False, (False, False, False)),
        (True, True, False, (False, True, True)),
        (False, True, False, (False, False, True)),
        (False, False, True, (True, False, False)),
        (False, True, True, (True, False, True)),
    ],
)
def test_conditions_tell_new_connections_from_draining_ones(
    ready: bool, terminating: bool, publishes: bool, conditions: tuple[bool, bool, bool]
) -> None:
    found = endpoint_of(service(publishNotReadyAddresses=publishes), pod("a", ready=ready, terminating=terminating), "10.0.0.1", {})
    assert tuple(found["conditions"][name] for name in ("ready", "serving", "terminating")) == conditions


@pytest.mark.parametrize(
    ("target", "protocol", "expected"),
    [("web", "TCP", 8080), ("web", "UDP", None), ("other", "TCP", None), (9090, "TCP", 9090), (None, "TCP", 80)],
)
def test_target_ports_are_numbers_or_names_of_container_ports(target: Any, protocol: str, expected: int | None) -> None:
    assert target_port(pod("a"), {"port": 80, "targetPort": target, "protocol": protocol}) == expected


def test_pods_that_are_over_or_have_no_address_are_no_endpoints_and_port_numbers_make_groups() -> None:
    pods = [pod("a"), pod("b", ip="10.0.0.2", port=9090), pod("over", phase="Succeeded"), pod("new", ip="")]
    wanted = plan_endpoints(service(), pods, {"n1": "z1"})
    assert {
        tuple(one["port"] for one in group.port_list()): [one["targetRef"]["name"] for one in found] for group, found in wanted.items()
    } == {
        (8080,): ["a"],
        (9090,): ["b"],
    }
    (first, *_) = [one for found in wanted.values() for one in found]
    assert (first["nodeName"], first["zone"], first["addresses"]) == ("n1", "z1", ["10.0.0.1"])


def test_a_pod_of_a_headless_service_is_known_by_its_hostname() -> None:
    subject = service("db", clusterIP="None", ports=[])
    ((group, (found,)),) = plan_endpoints(subject, [pod("db-0", hostname="db-0", subdomain="db")], {}).items()
    assert (found["hostname"], group.ports) == ("db-0", ())


def test_an_endpoint_stays_in_its_slice_and_new_ones_fill_the_changed_slice_first() -> None:
    present = [held("x", ["1", "2"]), held("y", ["3", "4", "5"])]
    packing = pack({ONE: [endpoint(one) for one in ("1", "3", "4", "5", "6")]}, present, 3)
    assert packing.updates == {"x": [endpoint("1"), endpoint("6")]}
    assert (packing.creates, packing.deletes) == ([], [])


def test_what_does_not_fit_goes_into_new_slices_and_empty_slices_go() -> None:
    packing = pack({ONE: [endpoint(str(one)) for one in range(7)]}, [held("gone", ["9"], group_for("IPv4", []))], 3)
    assert [len(found) for _, found in packing.creates] == [3, 3, 1]
    assert packing.deletes == ["gone"]


def test_an_endpoint_in_two_slices_is_kept_in_one() -> None:
    packing = pack({ONE: [endpoint("1")]}, [held("x", ["1"]), held("y", ["1"])], 3)
    assert (packing.updates, packing.creates, packing.deletes) == ({}, [], ["y"])


def test_a_service_without_pods_has_one_empty_slice() -> None:
    none = group_for("IPv4", [])
    assert pack({none: []}, [], 3).creates == [(none, [])]
    settled = pack({none: []}, [held("x", [], none)], 3)
    assert (settled.updates, settled.creates, settled.deletes) == ({}, [], [])


def test_subsets_group_addresses_by_ports_and_readiness() -> None:
    pods = [pod("a", "10.0.0.3"), pod("b", "10.0.0.2"), pod("c", "10.0.0.4", ready=False), pod("d", "10.0.0.5", port=9090)]
    subsets = plan_subsets(service(), pods)
    assert [[one["ip"] for one in subset.get("addresses", [])] for subset in subsets] == [["10.0.0.2", "10.0.0.3"], ["10.0.0.5"]]
    assert [one["ip"] for one in subsets[0]["notReadyAddresses"]] == ["10.0.0.4"]
    assert subsets[0]["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]


def test_too_many_addresses_are_cut_ready_ones_kept_first() -> None:
    many = {
        "ports": [],
        "addresses": [{"ip": str(one)} for one in range(900)],
        "notReadyAddresses": [{"ip": str(one)} for one in range(300)],
    }
    (kept,), is_over = truncate([many])
    assert (len(kept["addresses"]), len(kept["notReadyAddresses"]), is_over) == (900, 100, True)


async def test_slices_and_endpoints_follow_pods(world: World) -> None:
    await world.node("n1", {"topology.kubernetes.io/zone": "z1"})
    slices = EndpointSliceController(world.client, world.informers, world.runtime)
    endpoints = EndpointsController(world.client, world.informers, world.runtime)
    async with world.running(slices, endpoints):
        made = await world.make(SERVICES, {key: value for key, value in service().items()})
        (empty,) = await world.count(ENDPOINT_SLICES, 1)
        assert (empty["endpoints"], empty["ports"], empty["addressType"]) == ([], [], "IPv4")
        assert empty["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
        assert empty["metadata"]["labels"] == {
            "kubernetes.io/service-name": "s",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        }
        source = pod("a")
        await world.make(PODS, {"metadata": {"name": "a", "labels": {"app": "web"}}, "spec": {"containers": source["spec"]["containers"]}})
        await world.run_pod("a", "n1", "10.0.0.7")

        async def is_reachable() -> bool:
            (one,) = await world.count(ENDPOINT_SLICES, 1)
            whole = await world.get(ENDPOINTS, "s")
            ready = [found["addresses"] for found in one["endpoints"] if found["conditions"]["ready"] and found.get("zone") == "z1"]
            return ready == [["10.0.0.7"]] and [one["ip"] for part in whole["subsets"] for one in part.get("addresses", [])] == ["10.0.0.7"]

        await world.until(is_reachable)
        await world.delete(PODS, "a")

        async def is_draining() -> bool:
            (one,) = await world.count(ENDPOINT_SLICES, 1)
            whole = await world.get(ENDPOINTS, "s")
            return [found["conditions"]["terminating"] for found in one["endpoints"]] == [True] and whole["subsets"] == []

        await world.until(is_draining)
        await world.delete(SERVICES, "s")
        await world.count(ENDPOINTS, 0)


async def test_endpoints_and_services_that_users_manage_are_left_alone(world: World) -> None:
    await world.make(ENDPOINTS, {"metadata": {"name": "own"}, "subsets": [{"addresses": [{"ip": "10.9.9.9"}]}]})
    await world.make(SERVICES, {"metadata": {"name": "own"}, "spec": {"ports": [PORT]}})
    async with world.running(
        EndpointSliceController(world.client, world.informers, world.runtime),
        EndpointsController(world.client, world.informers, world.runtime),
    ):
        await world.make(SERVICES, service("other"))
        await world.count(ENDPOINTS, 2)
        assert (await world.get(ENDPOINTS, "own"))["subsets"] == [{"addresses": [{"ip": "10.9.9.9"}]}]
        await world.count(ENDPOINT_SLICES, 1)
