"""Objects for tests, with what the API requires and nothing else. Change the returned dict for more."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]


def container(image: str = "registry.example/app:1", **requests: str) -> Object:
    """Return a container that asks for `requests`, as in `container(cpu="100m", memory="64Mi")`."""
    return {"name": "app", "image": image, "resources": {"requests": requests} if requests else {}}


def pod(name: str, *, namespace: str = "default", labels: dict[str, str] | None = None, **requests: str) -> Object:
    """Return a Pod with one container."""
    meta = {"name": name, "namespace": namespace, "labels": labels or {"app": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container(**requests)]}}


def deployment(
    name: str,
    *,
    replicas: int = 1,
    namespace: str = "default",
    image: str = "registry.example/app:1",
    toleration_s: int | None = None,
    **requests: str,
) -> Object:
    """Return a Deployment whose pods carry `app: NAME`. With `toleration_s` they stay that long on a node that was lost."""
    labels = {"app": name}
    spec: Object = {"containers": [container(image, **requests)]}
    if toleration_s is not None:
        spec["tolerations"] = [
            {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": toleration_s}
            for key in ("not-ready", "unreachable")
        ]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def service(name: str, *, namespace: str = "default", port: int = 80) -> Object:
    """Return a Service for the pods that carry `app: NAME`."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ports": [{"port": port}]},
    }
