"""The controllers behind quotas, disruption budgets, protected claims and certificates, against the real API."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.unit.controllers.cluster import Cluster, cluster_story
from tests.unit.controllers.test_with_api import deployment

from korch.api.errors import NotFound
from korch.api.gvk import (
    CERTIFICATE_SIGNING_REQUESTS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    LEASES,
    PERSISTENT_VOLUME_CLAIMS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    RESOURCE_QUOTAS,
    ResourceRef,
)
from korch.apiserver.certificates import CertificateAuthority
from korch.controllers import ControllerConfig
from korch.runtime.clock import RealClock

Object = dict[str, Any]


async def status_of(cluster: Cluster, resource: ResourceRef, name: str, wanted: Object) -> None:
    async def holds() -> bool:
        found = (await cluster.get(resource, name)).get("status") or {}
        return all(found.get(key) == value for key, value in wanted.items())

    await cluster.until(holds, within_s=60)


def test_a_quota_tells_what_is_in_use() -> None:
    async def story(cluster: Cluster) -> None:
        hard = {"configmaps": "5", "pods": "3", "count/deployments.apps": "2"}
        await cluster.make(RESOURCE_QUOTAS, {"metadata": {"name": "q"}, "spec": {"hard": hard}})
        await cluster.make(CONFIG_MAPS, {"metadata": {"name": "one"}})
        # Every namespace has kube-root-ca.crt.
        await status_of(
            cluster, RESOURCE_QUOTAS, "q", {"hard": hard, "used": {"configmaps": "2", "pods": "0", "count/deployments.apps": "0"}}
        )
        await cluster.make(DEPLOYMENTS, deployment("web", 5))
        await status_of(cluster, RESOURCE_QUOTAS, "q", {"used": {"configmaps": "2", "pods": "3", "count/deployments.apps": "1"}})
        assert len(await cluster.all(PODS, namespace="default")) == 3
        await cluster.delete(CONFIG_MAPS, "one")
        await status_of(cluster, RESOURCE_QUOTAS, "q", {"used": {"configmaps": "1", "pods": "3", "count/deployments.apps": "1"}})

    cluster_story(story)


def test_a_kind_that_quotas_do_not_usually_count_is_followed_as_soon_as_one_names_it() -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.make(RESOURCE_QUOTAS, {"metadata": {"name": "q"}, "spec": {"hard": {"count/leases.coordination.k8s.io": "3"}}})
        await status_of(cluster, RESOURCE_QUOTAS, "q", {"used": {"count/leases.coordination.k8s.io": "0"}})
        await cluster.make(LEASES, {"metadata": {"name": "held"}})
        await status_of(cluster, RESOURCE_QUOTAS, "q", {"used": {"count/leases.coordination.k8s.io": "1"}})
        await cluster.delete(LEASES, "held")
        await status_of(cluster, RESOURCE_QUOTAS, "q", {"used": {"count/leases.coordination.k8s.io": "0"}})

    cluster_story(story)


def test_a_budget_tells_how_many_pods_may_go() -> None:
    async def story(cluster: Cluster) -> None:
        await cluster.make(DEPLOYMENTS, deployment("web", 4))
        spec = {"maxUnavailable": "25%", "selector": {"matchLabels": {"app": "web"}}}
        await cluster.make(POD_DISRUPTION_BUDGETS, {"metadata": {"name": "web"}, "spec": spec})
        full = {"expectedPods": 4, "desiredHealthy": 3, "currentHealthy": 4, "disruptionsAllowed": 1, "observedGeneration": 1}
        await status_of(cluster, POD_DISRUPTION_BUDGETS, "web", full)
        pod = (await cluster.all(PODS, "app=web"))[0]["metadata"]["name"]
        await cluster.client.create(PODS, {"metadata": {"name": pod}}, namespace="default", name=pod, subresource="eviction")
        await status_of(cluster, POD_DISRUPTION_BUDGETS, "web", full)
        assert pod not in {
            one["metadata"]["name"] for one in await cluster.all(PODS, "app=web") if "deletionTimestamp" not in one["metadata"]
        }
        await cluster.change(POD_DISRUPTION_BUDGETS, "web", {"spec": {"maxUnavailable": 0}})
        await status_of(cluster, POD_DISRUPTION_BUDGETS, "web", {"disruptionsAllowed": 0, "observedGeneration": 2})

    cluster_story(story)


def test_a_claim_outlives_its_deletion_while_a_pod_uses_it() -> None:
    async def story(cluster: Cluster) -> None:
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        await cluster.make(PERSISTENT_VOLUME_CLAIMS, {"metadata": {"name": "data"}, "spec": spec})
        volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
        containers = [{"name": "c", "image": "i"}]
        body = {"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "volumes": volumes, "containers": containers}}
        await cluster.make(PODS, body)
        await cluster.delete(PERSISTENT_VOLUME_CLAIMS, "data")
        assert (await cluster.get(PERSISTENT_VOLUME_CLAIMS, "data"))["metadata"]["deletionTimestamp"]
        await cluster.delete(PODS, "p", grace_period_s=0)

        async def is_gone() -> bool:
            try:
                await cluster.get(PERSISTENT_VOLUME_CLAIMS, "data")
            except NotFound:
                return True
            return False

        await cluster.until(is_gone, within_s=30)

    cluster_story(story)


@pytest.mark.parametrize(("usages", "is_issued"), [(["client auth"], True), (["server auth"], False)])
def test_an_approved_request_is_signed_or_marked_as_failed(tmp_path: Path, usages: list[str], is_issued: bool) -> None:
    authority = CertificateAuthority.open(tmp_path, RealClock())
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jane")])
    pem = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    async def story(cluster: Cluster) -> None:
        spec = {"request": base64.b64encode(pem).decode(), "signerName": "kubernetes.io/kube-apiserver-client", "usages": usages}
        await cluster.make(CERTIFICATE_SIGNING_REQUESTS, {"metadata": {"name": "jane"}, "spec": spec})
        condition = {"type": "Approved", "status": "True", "reason": "r", "message": "m"}
        await cluster.change(CERTIFICATE_SIGNING_REQUESTS, "jane", {"status": {"conditions": [condition]}}, subresource="approval")

        async def is_decided() -> Any:
            status = (await cluster.get(CERTIFICATE_SIGNING_REQUESTS, "jane"))["status"]
            return status if status.get("certificate") or len(status["conditions"]) > 1 else None

        status = await cluster.until(is_decided, within_s=30)
        if not is_issued:
            assert status["conditions"][1]["type"] == "Failed"
            return
        certificate = x509.load_pem_x509_certificate(base64.b64decode(status["certificate"]))
        assert certificate.subject == subject
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate_pem))

    cluster_story(story, config=ControllerConfig(root_ca_pem="PEM", sign_certificate=authority.sign_as_asked))
