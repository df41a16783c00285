"""Server-side apply as the real kubectl uses it: creation, conflicts, diff, and moving between the two ways of applying."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Cluster

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: registry.test/web:1, ports: [{containerPort: 80}]}
"""


@pytest.fixture
def shared(simulated: Cluster) -> Cluster:
    """A cluster without the deployment."""
    simulated.kubectl("delete", "deployment", "web", "--ignore-not-found", "--wait")
    return simulated


def apply(cluster: Cluster, text: str, *options: str) -> str:
    return cluster.kubectl("apply", "-f", "-", *options, text=text)


def managers(cluster: Cluster) -> dict[tuple[str, str, str], Any]:
    found = cluster.get("deployment", "web", "--show-managed-fields")["metadata"]["managedFields"]
    return {(one["manager"], one["operation"], one.get("subresource", "")): one["fieldsV1"] for one in found}


def test_applying_on_the_server_creates_changes_and_removes(shared: Cluster) -> None:
    assert apply(shared, DEPLOYMENT, "--server-side") == "deployment.apps/web serverside-applied\n"
    before = shared.get("deployment", "web")["metadata"]["generation"]
    assert apply(shared, DEPLOYMENT, "--server-side") == "deployment.apps/web serverside-applied\n"
    assert shared.get("deployment", "web")["metadata"]["generation"] == before
    without_label = DEPLOYMENT.replace("{name: web, labels: {app: web}}", "{name: web}", 1)
    apply(shared, without_label, "--server-side")
    assert "labels" not in shared.get("deployment", "web")["metadata"]
    assert ("kubectl", "Apply", "") in managers(shared)


def test_a_field_that_somebody_else_set_is_a_conflict_until_it_is_forced(shared: Cluster) -> None:
    apply(shared, DEPLOYMENT, "--server-side")
    shared.kubectl("scale", "deployment/web", "--replicas=4")
    assert managers(shared)["kubectl", "Update", "scale"] == {"f:spec": {"f:replicas": {}}}
    refused = shared.refused("apply", "-f", "-", "--server-side", text=DEPLOYMENT)
    assert refused.startswith(
        'error: Apply failed with 1 conflict: conflict with "kubectl" with subresource "scale" using apps/v1: .spec.replicas\n'
    )
    assert "--force-conflicts" in refused
    apply(shared, DEPLOYMENT, "--server-side", "--force-conflicts")
    assert shared.get("deployment", "web")["spec"]["replicas"] == 2
    assert ("kubectl", "Update", "scale") not in managers(shared)


def test_diff_asks_the_server_what_would_change(shared: Cluster) -> None:
    apply(shared, DEPLOYMENT, "--server-side")
    # kubectl reads the object before it asks: a status that is written in between is a difference too.
    shared.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert shared.try_kubectl("diff", "-f", "-", "--server-side", text=DEPLOYMENT).returncode == 0
    changed = shared.try_kubectl("diff", "-f", "-", "--server-side", text=DEPLOYMENT.replace("web:1", "web:2"))
    assert changed.returncode == 1, changed.stderr
    assert "-      - image: registry.test/web:1\n+      - image: registry.test/web:2\n" in changed.stdout
    dry = apply(shared, DEPLOYMENT.replace("web:1", "web:2"), "--server-side", "--dry-run=server")
    assert dry == "deployment.apps/web serverside-applied (server dry run)\n"
    assert shared.get("deployment", "web")["spec"]["template"]["spec"]["containers"][0]["image"].endswith("web:1")


def test_what_was_applied_from_the_client_side_moves_to_the_server_and_back(shared: Cluster) -> None:
    apply(shared, DEPLOYMENT)
    assert ("kubectl-client-side-apply", "Update", "") in managers(shared)
    two = DEPLOYMENT.replace("web:1", "web:2")
    apply(shared, two, "--server-side")
    found = managers(shared)
    assert ("kubectl", "Apply", "") in found and ("kubectl-client-side-apply", "Update", "") not in found
    three = two.replace("web:2", "web:3").replace("replicas: 2", "replicas: 3")
    assert apply(shared, three) == "deployment.apps/web configured\n"
    spec = shared.get("deployment", "web")["spec"]
    assert (spec["replicas"], spec["template"]["spec"]["containers"][0]["image"]) == (3, "registry.test/web:3")


def test_two_tools_share_an_object(shared: Cluster) -> None:
    apply(shared, DEPLOYMENT, "--server-side", "--field-manager=helm")
    label = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, labels: {team: a}}\n"
    apply(shared, label, "--server-side", "--field-manager=labeller")
    apply(shared, DEPLOYMENT.replace("web:1", "web:2"), "--server-side", "--field-manager=helm", "--force-conflicts")
    assert shared.get("deployment", "web")["metadata"]["labels"] == {"app": "web", "team": "a"}
    apply(shared, label.replace(", labels: {team: a}", ""), "--server-side", "--field-manager=labeller")
    assert shared.get("deployment", "web")["metadata"]["labels"] == {"app": "web"}


def test_a_manifest_that_is_wrong_says_where(shared: Cluster) -> None:
    refused = shared.refused("apply", "-f", "-", "--server-side", "--validate=false", text=DEPLOYMENT.replace("replicas", "replica"))
    assert ".spec.replica: field not declared in schema" in refused
    typo = shared.refused("apply", "-f", "-", "--server-side", text=DEPLOYMENT.replace("replicas: 2", "replicas: two"))
    assert "replicas" in typo
