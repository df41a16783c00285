"""The official Python client: typed and dynamic, watching, with subresources, and refused."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.informer import ADDED, DELETED, MODIFIED, SharedInformer
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

LABELS = {"app": "web"}


@pytest.fixture
def api(kubeconfig: Path) -> Iterator[client.ApiClient]:
    with config.new_client_from_config(str(kubeconfig)) as made:
        yield made


def deployment(replicas: int) -> client.V1Deployment:
    container = client.V1Container(name="web", image="registry.example.com/web:1", ports=[client.V1ContainerPort(container_port=80)])
    template = client.V1PodTemplateSpec(metadata=client.V1ObjectMeta(labels=LABELS), spec=client.V1PodSpec(containers=[container]))
    spec = client.V1DeploymentSpec(replicas=replicas, selector=client.V1LabelSelector(match_labels=LABELS), template=template)
    return client.V1Deployment(metadata=client.V1ObjectMeta(name="web"), spec=spec)


def test_a_deployment_is_created_watched_scaled_and_deleted(api: client.ApiClient, namespace: str) -> None:
    apps, core = client.AppsV1Api(api), client.CoreV1Api(api)
    made = apps.create_namespaced_deployment(namespace, deployment(2))
    assert made.spec.strategy.rolling_update.max_surge == "25%"
    follow = watch.Watch()
    for event in follow.stream(apps.list_namespaced_deployment, namespace, resource_version=made.metadata.resource_version):
        if event["object"].status.ready_replicas == 2:
            follow.stop()
    apps.patch_namespaced_deployment_scale("web", namespace, {"spec": {"replicas": 3}})
    assert apps.read_namespaced_deployment_scale("web", namespace).spec.replicas == 3
    for event in follow.stream(core.list_namespaced_pod, namespace, label_selector="app=web"):
        if sum(is_ready(pod) for pod in core.list_namespaced_pod(namespace, label_selector="app=web").items) == 3:
            follow.stop()
        assert event["type"] in ("ADDED", "MODIFIED")
    apps.delete_namespaced_deployment("web", namespace, propagation_policy="Foreground")
    for event in follow.stream(apps.list_namespaced_deployment, namespace):
        if event["type"] == "DELETED":
            follow.stop()
    with pytest.raises(ApiException) as gone:
        apps.read_namespaced_deployment("web", namespace)
    assert (gone.value.status, gone.value.reason) == (404, "Not Found")
    assert 'deployments.apps \\"web\\" not found' in gone.value.body


def is_ready(pod: client.V1Pod) -> bool:
    return any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or ())


def test_lists_are_chunked_and_objects_survive_the_round_trip(api: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(api)
    for number in range(5):
        metadata = client.V1ObjectMeta(name=f"settings-{number}", labels=LABELS)
        core.create_namespaced_config_map(namespace, client.V1ConfigMap(metadata=metadata, data={"number": str(number)}))
    names: list[str] = []
    token = None
    while token != "":
        page = core.list_namespaced_config_map(namespace, label_selector="app=web", limit=2, _continue=token or "")
        names += [one.metadata.name for one in page.items]
        token = page.metadata._continue or ""
    assert names == [f"settings-{number}" for number in range(5)]
    read = core.read_namespaced_config_map("settings-3", namespace)
    read.data["more"] = "é"
    replaced = core.replace_namespaced_config_map("settings-3", namespace, read)
    assert replaced.data == {"number": "3", "more": "é"}
    with pytest.raises(ApiException) as stale:
        core.replace_namespaced_config_map("settings-3", namespace, read)
    assert stale.value.status == 409
    assert "the object has been modified; please apply your changes to the latest version and try again" in stale.value.body
    removed = core.delete_collection_namespaced_config_map(namespace, label_selector="app=web")
    assert removed.kind in ("Status", "ConfigMapList") or removed.status == "Success"
    assert core.list_namespaced_config_map(namespace, label_selector="app=web").items == []


def test_a_kind_is_declared_and_used_by_the_dynamic_client(api: client.ApiClient, namespace: str) -> None:
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "required": ["size"], "properties": {"size": {"type": "integer", "minimum": 1}}},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}}}
    names = {"plural": "boxes", "singular": "box", "kind": "Box", "listKind": "BoxList"}
    declaration = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "boxes.official.example.com"},
        "spec": {"group": "official.example.com", "scope": "Namespaced", "names": names, "versions": [version]},
    }
    utils.create_from_dict(api, declaration)
    extensions = client.ApiextensionsV1Api(api)
    try:
        follow = watch.Watch()
        for event in follow.stream(extensions.list_custom_resource_definition, field_selector="metadata.name=boxes.official.example.com"):
            conditions = event["object"].status.conditions or ()
            if any(one.type == "Established" and one.status == "True" for one in conditions):
                follow.stop()
        boxes = dynamic.DynamicClient(api).resources.get(api_version="official.example.com/v1", kind="Box")
        box = {"apiVersion": "official.example.com/v1", "kind": "Box", "metadata": {"name": "b"}, "spec": {"size": 2}}
        made = boxes.create(body=box, namespace=namespace)
        assert (made.spec.size, made.metadata.generation) == (2, 1)
        applied = boxes.server_side_apply(
            body={**box, "spec": {"size": 3}}, name="b", namespace=namespace, field_manager="test", force_conflicts=True
        )
        assert (applied.spec.size, applied.metadata.generation) == (3, 2)
        boxes.status.patch(body={"status": {"full": True}}, name="b", namespace=namespace, content_type="application/merge-patch+json")
        events: list[Any] = []
        for event in boxes.watch(namespace=namespace, name="b", timeout=5, watcher=follow):
            events.append(event)
            follow.stop()
        assert events[0]["object"].status.full is True
        with pytest.raises(ApiException) as invalid:
            boxes.patch(body={"spec": {"size": 0}}, name="b", namespace=namespace, content_type="application/merge-patch+json")
        assert invalid.value.status == 422
        assert "spec.size in body should be greater than or equal to 1" in str(invalid.value.body)
        custom = client.CustomObjectsApi(api)
        assert custom.get_namespaced_custom_object("official.example.com", "v1", namespace, "boxes", "b")["spec"] == {"size": 3}
    finally:
        extensions.delete_custom_resource_definition("boxes.official.example.com")


def test_tokens_reviews_and_evictions(api: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(api)
    spec = client.V1TokenRequestSpec(audiences=[], expiration_seconds=900)
    token = core.create_namespaced_service_account_token("default", namespace, client.AuthenticationV1TokenRequest(spec=spec)).status.token
    review = client.AuthenticationV1Api(api).create_token_review(client.V1TokenReview(spec=client.V1TokenReviewSpec(token=token)))
    assert review.status.user.username == f"system:serviceaccount:{namespace}:default"
    asked = client.V1ResourceAttributes(verb="list", resource="pods", namespace=namespace)
    access = client.V1SubjectAccessReview(
        spec=client.V1SubjectAccessReviewSpec(user=review.status.user.username, resource_attributes=asked)
    )
    assert client.AuthorizationV1Api(api).create_subject_access_review(access).status.allowed is False
    pod = client.V1Pod(metadata=client.V1ObjectMeta(name="p"), spec=client.V1PodSpec(containers=[client.V1Container(name="c", image="i")]))
    since = core.create_namespaced_pod(namespace, pod).metadata.resource_version
    core.create_namespaced_pod_eviction("p", namespace, client.V1Eviction(metadata=client.V1ObjectMeta(name="p")))
    follow = watch.Watch()
    for event in follow.stream(core.list_namespaced_pod, namespace, resource_version=since):
        if event["type"] == "DELETED":
            follow.stop()
    assert core.list_namespaced_pod(namespace).items == []
    stranger = client.Configuration.get_default_copy()
    stranger.host, stranger.ssl_ca_cert = api.configuration.host, api.configuration.ssl_ca_cert
    stranger.api_key = {"authorization": f"Bearer {token}"}
    with client.ApiClient(stranger) as other, pytest.raises(ApiException) as refused:
        client.CoreV1Api(other).list_namespaced_pod(namespace)
    assert refused.value.status == 403
    assert f'User \\"system:serviceaccount:{namespace}:default\\" cannot list resource \\"pods\\"' in refused.value.body


def test_versions_and_groups_are_found(api: client.ApiClient) -> None:
    assert client.VersionApi(api).get_code().major == "1"
    groups = {one.name for one in client.ApisApi(api).get_api_versions().groups}
    assert {"apps", "batch", "rbac.authorization.k8s.io", "apiextensions.k8s.io"} <= groups


def test_a_leader_is_elected_and_its_lease_is_renewed(kubeconfig: Path, namespace: str) -> None:
    config.load_kube_config(str(kubeconfig))
    leases = client.CoordinationV1Api()
    started = threading.Event()
    elected = leaderelection.LeaderElection(
        electionconfig.Config(
            LeaseLock("leader", namespace, "me"),
            lease_duration=4,
            renew_deadline=3,
            retry_period=1,
            onstarted_leading=started.set,
            onstopped_leading=None,
        )
    )
    threading.Thread(target=elected.run, daemon=True).start()
    assert started.wait(60)
    follow = watch.Watch()
    renewed: set[object] = set()
    for event in follow.stream(leases.list_namespaced_lease, namespace):
        renewed.add(event["object"].spec.renew_time)
        if len(renewed) == 3:
            follow.stop()
    assert leases.read_namespaced_lease("leader", namespace).spec.holder_identity == "me"


def test_an_informer_keeps_up(api: client.ApiClient, namespace: str) -> None:
    core = client.CoreV1Api(api)
    seen: queue.Queue[tuple[str, str]] = queue.Queue()
    informer = SharedInformer(list_func=core.list_namespaced_secret, namespace=namespace)
    for kind in (ADDED, MODIFIED, DELETED):
        informer.add_event_handler(kind, lambda one, kind=kind: seen.put((kind, one.metadata.name)))
    informer.start()
    try:
        core.create_namespaced_secret(namespace, client.V1Secret(metadata=client.V1ObjectMeta(name="s"), string_data={"a": "b"}))
        assert seen.get(timeout=60) == (ADDED, "s")
        core.patch_namespaced_secret("s", namespace, [{"op": "replace", "path": "/data/a", "value": "Yw=="}])
        assert seen.get(timeout=60) == (MODIFIED, "s")
        cached = informer.cache.get_by_key(f"{namespace}/s")
        assert cached is not None and cached.data == {"a": "Yw=="}
        core.delete_namespaced_secret("s", namespace)
        assert seen.get(timeout=60) == (DELETED, "s")
    finally:
        informer.stop()
