"""Endpoints written by hand reach proxies as slices, and go with them."""

from __future__ import annotations

from typing import Any

from tests.unit.controllers.cluster import Cluster, cluster_story

from korch.api.gvk import ENDPOINT_SLICES, ENDPOINTS, EVENTS, SERVICES
from korch.controllers.endpointslice_mirroring import ADDRESSES_MAX, MANAGER, plan

Object = dict[str, Any]
SERVICE = {"metadata": {"name": "db"}, "spec": {"ports": [{"name": "sql", "port": 5432}]}}


def endpoints(*addresses: str, port: int = 5432, **metadata: Any) -> Object:
    subset = {"addresses": [{"ip": one} for one in addresses], "ports": [{"name": "sql", "port": port}]}
    return {"metadata": {"name": "db", **metadata}, "subsets": [subset]}


async def mirrored(cluster: Cluster) -> list[tuple[list[str], int]]:
    """Return (addresses, port) of every slice of the Service."""
    slices = await cluster.all(ENDPOINT_SLICES, "kubernetes.io/service-name=db", namespace="default")
    return [([one["addresses"][0] for one in found.get("endpoints") or ()], found["ports"][0]["port"]) for found in slices]


async def until(cluster: Cluster, wanted: list[tuple[list[str], int]]) -> None:
    async def holds() -> bool:
        return await mirrored(cluster) == wanted

    await cluster.until(holds, within_s=30)


def test_endpoints_of_a_service_without_a_selector_are_mirrored_until_they_go() -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.make(SERVICES, SERVICE)
        await cluster.make(ENDPOINTS, endpoints("10.1.2.3", labels={"tier": "data"}, annotations={"note": "by hand"}))
        await until(cluster, [(["10.1.2.3"], 5432)])
        (one,) = await cluster.all(ENDPOINT_SLICES, "kubernetes.io/service-name=db", namespace="default")
        assert one["metadata"]["labels"] == {
            "tier": "data",
            "kubernetes.io/service-name": "db",
            "endpointslice.kubernetes.io/managed-by": MANAGER,
        }
        assert one["metadata"]["annotations"] == {"note": "by hand"}
        assert one["metadata"]["ownerReferences"][0]["kind"] == "Endpoints"
        await cluster.change(ENDPOINTS, "db", {"subsets": endpoints("10.2.3.4", "10.2.3.5")["subsets"]})
        await until(cluster, [(["10.2.3.4", "10.2.3.5"], 5432)])
        await cluster.change(ENDPOINTS, "db", {"subsets": endpoints("10.2.3.4", port=5433)["subsets"]})
        await until(cluster, [(["10.2.3.4"], 5433)])
        await cluster.delete(ENDPOINTS, "db")
        await until(cluster, [])

    cluster_story(story)


def test_what_is_not_to_be_mirrored_is_not() -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.make(SERVICES, SERVICE)
        await cluster.make(ENDPOINTS, endpoints("10.1.2.3"))
        await until(cluster, [(["10.1.2.3"], 5432)])
        await cluster.change(ENDPOINTS, "db", {"metadata": {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}})
        await until(cluster, [])
        await cluster.change(ENDPOINTS, "db", {"metadata": {"labels": None}})
        await until(cluster, [(["10.1.2.3"], 5432)])
        await cluster.delete(SERVICES, "db")
        await until(cluster, [])

    cluster_story(story)


def test_addresses_of_both_families_and_states_and_none_beyond_the_most() -> None:
    ready = [{"ip": "10.0.0.1", "nodeName": "n1", "hostname": "a"}, {"ip": "fd00::1"}, {"ip": "nowhere"}]
    mirror = plan([{"addresses": ready, "notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 80}]}])
    found = {group.family: members for group, members in mirror.endpoints.items()}
    assert found == {
        "IPv4": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": True}, "nodeName": "n1", "hostname": "a"},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": False}},
        ],
        "IPv6": [{"addresses": ["fd00::1"], "conditions": {"ready": True}}],
    }
    assert mirror.invalid == 1
    many = plan([{"addresses": [{"ip": f"10.0.{n // 250}.{n % 250}"} for n in range(ADDRESSES_MAX + 5)], "ports": [{"port": 80}]}])
    assert (len(next(iter(many.endpoints.values()))), many.too_many) == (ADDRESSES_MAX, 5)


def test_too_many_addresses_are_told() -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.make(SERVICES, SERVICE)
        await cluster.make(ENDPOINTS, endpoints(*(f"10.0.{n // 250}.{n % 250}" for n in range(ADDRESSES_MAX + 2))))
        wanted = "A max of 1000 addresses can be mirrored to EndpointSlices per Endpoints subset. 2 addresses were skipped"

        async def told() -> bool:
            return wanted in [one["message"] for one in await cluster.all(EVENTS)]

        await cluster.until(told, within_s=30)

    cluster_story(story)
