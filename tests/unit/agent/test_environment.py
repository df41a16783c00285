"""Environment variables, `$(NAME)` expansion, the downward API and service variables, as the kubelet makes them."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from korch_agent.pods.environment import Sources, environment, expand, field_value, resource_value
from korch_agent.pods.security import ConfigError

POD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "d", "uid": "u1", "labels": {"b": "2", "a": 'say "hi"'}, "annotations": {"x/y": "z"}},
    "spec": {
        "nodeName": "n1",
        "serviceAccountName": "builder",
        "containers": [{"name": "c", "resources": {"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}}}],
    },
}
SOURCES = Sources(
    config_maps={"cm": {"data": {"k": "v", "other": "w"}}, "gone": None},
    secrets={"s": {"data": {"password": base64.b64encode(b"hush").decode()}}, "gone": None},
    host_ips=("192.0.2.1",),
    pod_ips=("10.0.0.7", "fd00::7"),
    allocatable={"cpu": "4", "memory": "8Gi"},
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(MISSING)", "$(MISSING)"),
        ("$A ${A} $", "$A ${A} $"),
        ("$(A", "$(A"),
        ("", ""),
    ],
)
def test_references_are_expanded_and_dollars_escaped(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}.get) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "p"),
        ("metadata.namespace", "d"),
        ("metadata.uid", "u1"),
        ("metadata.labels['b']", "2"),
        ("metadata.labels", 'a="say \\"hi\\""\nb="2"'),
        ("metadata.annotations['x/y']", "z"),
        ("spec.nodeName", "n1"),
        ("spec.serviceAccountName", "builder"),
        ("status.hostIP", "192.0.2.1"),
        ("status.podIP", "10.0.0.7"),
        ("status.podIPs", "10.0.0.7,fd00::7"),
    ],
)
def test_a_field_of_the_pod_as_text(path: str, expected: str) -> None:
    assert field_value(POD, path, SOURCES) == expected


@pytest.mark.parametrize(
    ("resource", "divisor", "expected"),
    [
        ("requests.cpu", "1m", "250"),
        ("requests.cpu", "1", "1"),
        ("requests.memory", "1Mi", "32"),
        ("limits.memory", "0", "67108864"),
        ("limits.cpu", "1", "4"),
    ],
)
def test_a_resource_in_units_of_its_divisor_rounded_up_or_what_the_node_has(resource: str, divisor: str, expected: str) -> None:
    assert resource_value(POD, {"containerName": "c", "resource": resource, "divisor": divisor}, SOURCES.allocatable) == expected


def made(**container: Any) -> dict[str, str]:
    return dict(environment(POD, {"name": "c"} | container, SOURCES))


def test_later_variables_see_earlier_ones_and_bulk_sources_come_first() -> None:
    found = made(
        envFrom=[{"configMapRef": {"name": "cm"}, "prefix": "P_"}, {"secretRef": {"name": "s"}}],
        env=[
            {"name": "P_k", "value": "own"},
            {"name": "BOTH", "value": "$(P_k)-$(P_other)"},
            {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}},
            {"name": "MAYBE", "valueFrom": {"configMapKeyRef": {"name": "gone", "key": "k", "optional": True}}},
        ],
    )
    assert found == {"P_k": "own", "P_other": "w", "password": "hush", "BOTH": "own-w", "PW": "hush"}


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ({"envFrom": [{"configMapRef": {"name": "gone"}}]}, 'configmap "gone" not found'),
        ({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "k"}}}]}, 'secret "gone" not found'),
        ({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "no"}}}]}, "couldn't find key no in ConfigMap d/cm"),
        ({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "no"}}}]}, "couldn't find key no in Secret d/s"),
    ],
)
def test_a_reference_that_leads_nowhere_stops_the_container(container: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        made(**container)


def service(name: str, namespace: str, address: str, *ports: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": address, "ports": list(ports)}}


def test_services_of_the_namespace_and_the_api_are_in_the_environment() -> None:
    services = (
        service("kubernetes", "default", "10.96.0.1", {"name": "https", "port": 443}),
        service("my-db", "d", "10.96.0.9", {"port": 5432, "protocol": "TCP"}),
        service("elsewhere", "other", "10.96.0.8", {"port": 1}),
        service("headless", "d", "None", {"port": 1}),
    )
    sources = Sources(services=services)
    found = dict(environment(POD, {"name": "c"}, sources))
    assert found["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"
    assert found["KUBERNETES_SERVICE_PORT_HTTPS"] == "443"
    assert {key: value for key, value in found.items() if key.startswith("MY_DB")} == {
        "MY_DB_SERVICE_HOST": "10.96.0.9",
        "MY_DB_SERVICE_PORT": "5432",
        "MY_DB_PORT": "tcp://10.96.0.9:5432",
        "MY_DB_PORT_5432_TCP": "tcp://10.96.0.9:5432",
        "MY_DB_PORT_5432_TCP_PROTO": "tcp",
        "MY_DB_PORT_5432_TCP_PORT": "5432",
        "MY_DB_PORT_5432_TCP_ADDR": "10.96.0.9",
    }
    assert not any(key.startswith(("ELSEWHERE", "HEADLESS")) for key in found)
    unlinked = POD | {"spec": POD["spec"] | {"enableServiceLinks": False}}
    assert {key.split("_")[0] for key, _ in environment(unlinked, {"name": "c"}, sources)} == {"KUBERNETES"}
