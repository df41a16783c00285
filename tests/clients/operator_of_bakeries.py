"""An operator as kopf's users write them: children that it adopts, a status, a finalizer, a field to follow, a daemon."""

from __future__ import annotations

import asyncio
from typing import Any

import kopf
from kubernetes import client, config

GROUP = "bakery.example.com"


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    config.load_kube_config()
    settings.persistence.finalizer = f"{GROUP}/finalizer"


@kopf.on.create("bakeries")
def create(name: str, namespace: str, spec: kopf.Spec, **_: Any) -> dict[str, Any]:
    child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-oven"}, "data": {"loaves": str(spec["loaves"])}}
    kopf.adopt(child)
    client.CoreV1Api().create_namespaced_config_map(namespace, child)
    return {"oven": f"{name}-oven"}


@kopf.on.field("bakeries", field="spec.loaves")
def follow(body: kopf.Body, name: str, namespace: str, old: int | None, new: int | None, patch: kopf.Patch, **_: Any) -> None:
    patch.status["baking"] = new
    if old is not None:
        client.CoreV1Api().patch_namespaced_config_map(f"{name}-oven", namespace, {"data": {"loaves": str(new)}})
        kopf.info(body, reason="Baking", message=f"{new} loaves instead of {old}")


@kopf.on.create("bakeries", retries=3, backoff=0.1)
def light(retry: int, **_: Any) -> str:
    if retry == 0:
        raise kopf.TemporaryError("no match at hand", delay=0.1)
    return "lit"


@kopf.on.delete("bakeries")
def end(name: str, namespace: str, **_: Any) -> None:
    client.CoreV1Api().create_namespaced_config_map(namespace, {"metadata": {"name": f"{name}-was-cleaned"}})


@kopf.daemon("bakeries", cancellation_timeout=1.0)
async def smell(patch: kopf.Patch, **_: Any) -> None:
    await asyncio.sleep(0.1)
    patch.status["smells"] = "good"
