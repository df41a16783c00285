"""Small Services and EndpointSlices."""

from __future__ import annotations

from typing import Any


def service(
    name: str = "s", *, ip: str = "127.9.0.1", port: int = 80, protocol: str = "TCP", node_port: int = 0, **spec: Any
) -> dict[str, Any]:
    ports = [{"name": "p", "protocol": protocol, "port": port, "nodePort": node_port}]
    return {"metadata": {"name": name, "namespace": "d"}, "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": ports, **spec}}


def endpoints(*ready: str, name: str = "s", port: int = 8080, protocol: str = "TCP", not_ready: tuple[str, ...] = ()) -> dict[str, Any]:
    entries = [{"addresses": [ip], "conditions": {"ready": True}} for ip in ready]
    entries += [{"addresses": [ip], "conditions": {"ready": False}} for ip in not_ready]
    return {
        "metadata": {"name": f"{name}-1", "namespace": "d", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "p", "protocol": protocol, "port": port}],
        "endpoints": entries,
    }
