"""The router in user space sends connections where services say, without Python in their way."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from korch._core import native
from tests.unit.proxy.objects import endpoints, service
from tests.unit.proxy.talk import ask_tcp, ask_udp, free_port, tcp_servers, udp_servers

IP = "127.9.0.1"
A, B, C = "127.9.1.1", "127.9.1.2", "127.9.1.3"


@pytest.fixture
def proxy() -> Iterator[native.Proxy]:
    proxy = native.Proxy("here", seed=1)
    proxy.start("userspace")
    yield proxy
    proxy.stop()


def update(proxy: native.Proxy, services: list[dict[str, Any]], slices: list[dict[str, Any]]) -> int:
    return proxy.update([orjson.dumps(one) for one in services], [orjson.dumps(one) for one in slices])


async def test_connections_are_spread_over_ready_endpoints_and_follow_changes(proxy: native.Proxy) -> None:
    port, target = free_port(), free_port()
    async with tcp_servers(A, B, C, port=target):
        for ready in ((A, B), (C,), (A, B, C)):
            assert update(proxy, [service(port=port)], [endpoints(*ready, port=target, not_ready=tuple({A, B, C} - set(ready)))]) == 1
            assert {await ask_tcp(IP, port) for _ in range(40)} == set(ready)
        assert update(proxy, [service(port=port)], [endpoints(A, B, C, port=target)]) == 0
        assert update(proxy, [service(port=port)], []) == 1
        # A caller that was already in the listener's backlog is reset instead of refused.
        assert await ask_tcp(IP, port) in ("ConnectionRefusedError", "ConnectionResetError")
    assert proxy.stats()["connections"] == 120


async def test_a_node_port_listens_on_all_addresses(proxy: native.Proxy) -> None:
    target, node_port = free_port(), free_port()
    async with tcp_servers(A, port=target):
        update(proxy, [service(ip="10.96.0.9", node_port=node_port)], [endpoints(A, port=target)])
        assert [await ask_tcp(address, node_port) for address in ("127.0.0.1", "127.5.5.5")] == [A, A]
        # The cluster IP is not this machine's own, so nobody listens there.
        assert (proxy.stats()["listeners"], proxy.stats()["unbound"]) == (1, 1)


async def test_an_open_connection_outlives_its_service(proxy: native.Proxy) -> None:
    import asyncio

    port, target = free_port(), free_port()
    async with tcp_servers(A, port=target):
        update(proxy, [service(port=port)], [endpoints(A, port=target)])
        reader, writer = await asyncio.open_connection(IP, port)
        await reader.readline()
        update(proxy, [], [])
        writer.write(b"still here\n")
        assert await reader.readline() == b"still here\n"
        writer.close()


async def test_a_dead_endpoint_is_passed_over(proxy: native.Proxy) -> None:
    port, target = free_port(), free_port()
    async with tcp_servers(A, port=target):
        update(proxy, [service(port=port)], [endpoints(A, B, port=target)])
        answers = [await ask_tcp(IP, port) for _ in range(20)]
    assert answers.count(A) >= 15


async def test_a_client_with_affinity_stays_with_its_endpoint(proxy: native.Proxy) -> None:
    port, target = free_port(), free_port()
    sticky = service(port=port, sessionAffinity="ClientIP")
    async with tcp_servers(A, B, C, port=target):
        update(proxy, [sticky], [endpoints(A, B, C, port=target)])
        [mine] = {await ask_tcp(IP, port) for _ in range(20)}
        left = {A, B, C} - {mine}
        update(proxy, [sticky], [endpoints(*left, port=target)])
        [now] = {await ask_tcp(IP, port) for _ in range(20)}
    assert now in left


async def test_datagrams_find_an_endpoint_and_another_when_it_goes(proxy: native.Proxy) -> None:
    port, target = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_DGRAM)
    udp = service(port=port, protocol="UDP")
    async with udp_servers(A, B, port=target):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.bind(("127.0.0.1", 0))
            update(proxy, [udp], [endpoints(A, port=target, protocol="UDP")])
            assert [await ask_udp(client, IP, port) for _ in range(3)] == [A, A, A]
            update(proxy, [udp], [endpoints(B, port=target, protocol="UDP")])
            assert await ask_udp(client, IP, port) == B


def test_pick_shows_the_choice_for_a_client_and_a_draw() -> None:
    proxy = native.Proxy("here")
    update(proxy, [service(), service("none", ip="127.9.0.2")], [endpoints(A, B)])
    picks = {proxy.pick("d/s:p", "10.0.0.1", seed) for seed in range(50)}
    assert picks == {f"{A}:8080", f"{B}:8080"}
    assert proxy.pick("d/s", "10.0.0.1", 7) == proxy.pick("d/s:p", "10.0.0.1", 7)
    assert proxy.pick("d/none", "10.0.0.1", 7) is None
    with pytest.raises(ValueError, match="no IP address: here"):
        proxy.pick("d/s", "here", 7)


def test_bad_objects_and_modes_are_refused() -> None:
    proxy = native.Proxy("here")
    with pytest.raises(ValueError, match="cannot read Service"):
        proxy.update([b"{"], [])
    with pytest.raises(ValueError, match="cannot read EndpointSlice"):
        proxy.update([], [b"7"])
    with pytest.raises(ValueError, match="no such mode: iptables"):
        proxy.start("iptables")
