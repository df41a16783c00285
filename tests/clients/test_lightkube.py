"""lightkube: typed objects, server-side apply, generic resources and waiting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lightkube import ApiError, Client, KubeConfig
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.apiextensions_v1 import (
    CustomResourceDefinitionNames,
    CustomResourceDefinitionSpec,
    CustomResourceDefinitionVersion,
    CustomResourceValidation,
    JSONSchemaProps,
)
from lightkube.models.apps_v1 import StatefulSetSpec
from lightkube.models.autoscaling_v1 import ScaleSpec
from lightkube.models.core_v1 import Container, PodSpec, PodTemplateSpec
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
from lightkube.resources.apiextensions_v1 import CustomResourceDefinition
from lightkube.resources.apps_v1 import StatefulSet
from lightkube.resources.core_v1 import ConfigMap, Node, Pod
from lightkube.types import PatchType

LABELS = {"app": "db"}


@pytest.fixture
def lightkube(kubeconfig: Path, namespace: str) -> Iterator[Client]:
    config = KubeConfig.from_file(kubeconfig)
    with Client(config=config.get(), namespace=namespace, field_manager="lightkube") as client:
        yield client


def test_a_stateful_set_grows_in_order(lightkube: Client) -> None:
    template = PodTemplateSpec(metadata=ObjectMeta(labels=LABELS), spec=PodSpec(containers=[Container(name="db", image="db")]))
    spec = StatefulSetSpec(replicas=1, serviceName="db", selector=LabelSelector(matchLabels=LABELS), template=template)
    lightkube.create(StatefulSet(metadata=ObjectMeta(name="db"), spec=spec))
    lightkube.wait(Pod, "db-0", for_conditions=["Ready"])
    lightkube.replace(StatefulSet.Scale(metadata=ObjectMeta(name="db"), spec=ScaleSpec(replicas=2)), "db")
    ready: list[str] = []
    for kind, pod in lightkube.watch(Pod, labels=LABELS, resource_version="0"):
        assert pod.metadata and pod.metadata.name
        is_ready = pod.status and any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or ())
        if kind != "DELETED" and is_ready and pod.metadata.name not in ready:
            ready.append(pod.metadata.name)
        if len(ready) == 2:
            break
    assert ready == ["db-0", "db-1"]
    assert [one.metadata.name for one in lightkube.list(Node) if one.metadata] == ["sim-1", "sim-2", "sim-3"]


def test_apply_patch_and_conflict(lightkube: Client) -> None:
    settings = ConfigMap(apiVersion="v1", kind="ConfigMap", metadata=ObjectMeta(name="s"), data={"a": "1"})
    assert lightkube.apply(settings).data == {"a": "1"}
    assert lightkube.patch(ConfigMap, "s", {"data": {"b": "2"}}).data == {"a": "1", "b": "2"}
    operations = [{"op": "test", "path": "/data/a", "value": "1"}, {"op": "remove", "path": "/data/b"}]
    assert lightkube.patch(ConfigMap, "s", operations, patch_type=PatchType.JSON).data == {"a": "1"}
    settings.data = {"a": "2"}
    with pytest.raises(ApiError) as conflict:
        lightkube.apply(settings, field_manager="other")
    assert conflict.value.status.code == 409
    assert conflict.value.status.message == 'Apply failed with 1 conflict: conflict with "lightkube": .data.a'
    assert lightkube.apply(settings, field_manager="other", force=True).data == {"a": "2"}
    assert [one.metadata.name for one in lightkube.list(ConfigMap, chunk_size=1) if one.metadata] == ["kube-root-ca.crt", "s"]


def test_a_generic_resource_of_a_kind_declared_here(lightkube: Client) -> None:
    group = "light.example.com"
    schema = CustomResourceValidation(
        openAPIV3Schema=JSONSchemaProps(
            type="object", properties={"spec": JSONSchemaProps(type="object", x_kubernetes_preserve_unknown_fields=True)}
        )
    )
    version = CustomResourceDefinitionVersion(name="v1", served=True, storage=True, schema=schema)
    names = CustomResourceDefinitionNames(kind="Lamp", plural="lamps")
    spec = CustomResourceDefinitionSpec(group=group, names=names, scope="Namespaced", versions=[version])
    declaration = CustomResourceDefinition(metadata=ObjectMeta(name=f"lamps.{group}"), spec=spec)
    lightkube.create(declaration)
    try:
        lightkube.wait(CustomResourceDefinition, f"lamps.{group}", for_conditions=["Established"])
        lamp = create_namespaced_resource(group, "v1", "Lamp", "lamps")
        lightkube.create(lamp(metadata=ObjectMeta(name="l"), spec={"watts": 5}))
        assert lightkube.get(lamp, "l").spec == {"watts": 5}
        lightkube.delete(lamp, "l")
        assert list(lightkube.list(lamp)) == []
    finally:
        lightkube.delete(CustomResourceDefinition, f"lamps.{group}")
