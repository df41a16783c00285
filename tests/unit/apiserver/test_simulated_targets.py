"""Simulated nodes have addresses that are nobody's: whatever is asked of them or their pods is refused before anything is dialled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from korch.api.errors import NotFound, ServiceUnavailable
from korch.apiserver.certificates import CertificateAuthority
from korch.apiserver.request_info import parse
from korch.apiserver.streaming import AgentCredentials, Streaming
from korch.runtime.clock import RealClock

POD: dict[str, Any] = {
    "metadata": {"name": "p"},
    "spec": {"nodeName": "sim-1", "containers": [{"name": "main"}]},
    "status": {"podIP": "10.244.0.2", "phase": "Running"},
}
OBJECTS: dict[tuple[str, str, str], dict[str, Any]] = {
    ("nodes", "", "sim-1"): {
        "metadata": {"name": "sim-1", "labels": {"korch.dev/simulated": "true"}},
        "status": {"addresses": [{"type": "InternalIP", "address": "172.16.0.1"}]},
    },
    ("pods", "d", "p"): POD,
    ("services", "d", "s"): {"spec": {"ports": [{"port": 80}]}},
    ("endpoints", "d", "s"): {"subsets": [{"addresses": [{"ip": "10.244.0.2", "nodeName": "sim-1"}], "ports": [{"port": 8080}]}]},
}


def get(plural: str, namespace: str, name: str) -> dict[str, Any]:
    try:
        return OBJECTS[plural, namespace, name]
    except KeyError:
        raise NotFound("", plural, name) from None


@pytest.mark.parametrize(
    ("path", "is_log"),
    [
        ("/api/v1/namespaces/d/pods/p/log", True),
        ("/api/v1/nodes/sim-1/proxy/pods", False),
        ("/api/v1/namespaces/d/pods/p/proxy/", False),
        ("/api/v1/namespaces/d/services/s/proxy/", False),
    ],
)
async def test_a_simulated_target_is_refused_and_never_dialled(tmp_path: Path, path: str, is_log: bool) -> None:
    authority = CertificateAuthority.open(tmp_path, RealClock())
    authority.issue("client", "kube-apiserver-kubelet-client", organizations=["system:masters"])
    streaming = Streaming(get, AgentCredentials(str(tmp_path / "client.crt"), str(tmp_path / "client.key"), str(tmp_path / "ca.crt")))
    request = Request({"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []})
    answer = streaming.log if is_log else streaming.proxy
    with pytest.raises(ServiceUnavailable, match='node "sim-1" is simulated: no container runs there'):
        await answer(request, parse("GET", path, {}))
    assert streaming._session is None
