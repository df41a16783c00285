"""What is wrong is refused in Kubernetes' own words, and nothing is changed by it."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request

import pytest

from tests.e2e.conftest import Cluster

GOOD = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue}
"""
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: refused}
spec:
  replicas: %s
  selector: {matchLabels: {app: %s}}
  template:
    metadata: {labels: {app: refused}}
    spec:
      containers: [{name: web, %s}]
"""


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ("a: [1,", ["error parsing", "error converting YAML"]),
        ("kind: ConfigMap\nmetadata: {name: x}\n", ["apiVersion not set"]),
        (DEPLOYMENT % ("2", "refused", "image: busybox, colour: red"), ['unknown field "spec.template.spec.containers[0].colour"']),
        (DEPLOYMENT % ("two", "refused", "image: busybox"), ["cannot unmarshal string into Go struct field", "replicas", "int32"]),
        (DEPLOYMENT % ("2", "refused", "args: [x]"), ["spec.template.spec.containers[0].image: Required value"]),
        (DEPLOYMENT % ("-1", "refused", "image: busybox"), ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
        (DEPLOYMENT % ("2", "other", "image: busybox"), ["`selector` does not match template `labels`"]),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: Wrong_Name}\nspec: {containers: [{name: a, image: b}]}",
            ["metadata.name", "RFC 1123"],
        ),
    ],
)
def test_a_wrong_manifest_is_refused_and_leaves_nothing(simulated: Cluster, manifest: str, words: list[str]) -> None:
    before = simulated.kubectl("get", "deployments,pods,configmaps", "-A", "-o", "name")
    said = simulated.refused("create", "-f", "-", text=manifest)
    assert any(word in said for word in words) if len(words) == 2 and "error" in words[0] else all(word in said for word in words), said
    assert simulated.kubectl("get", "deployments,pods,configmaps", "-A", "-o", "name") == before


def test_an_unknown_kind_is_named(simulated: Cluster) -> None:
    said = simulated.refused("create", "-f", "-", text="apiVersion: example.org/v1\nkind: Nothing\nmetadata: {name: x}")
    assert 'no matches for kind "Nothing" in version "example.org/v1"' in said


def test_a_name_that_is_taken_is_a_conflict(simulated: Cluster) -> None:
    simulated.kubectl("create", "-f", "-", text=GOOD)
    said = simulated.refused("create", "-f", "-", text=GOOD.replace("blue", "red"))
    assert 'Error from server (AlreadyExists): error when creating "STDIN": configmaps "settings" already exists' in said
    assert simulated.get("configmap", "settings")["data"] == {"colour": "blue"}


def test_an_unknown_namespace_is_named(simulated: Cluster) -> None:
    said = simulated.refused("create", "-n", "nowhere", "-f", "-", text=GOOD.replace("settings", "lost"))
    assert "Error from server (NotFound)" in said
    assert 'namespaces "nowhere" not found' in said


def test_an_old_resource_version_is_a_conflict(simulated: Cluster) -> None:
    simulated.apply(GOOD.replace("settings", "raced"))
    stale = simulated.get("configmap", "raced")
    simulated.kubectl("annotate", "configmap", "raced", "step=1")
    stale["data"]["colour"] = "red"
    said = simulated.refused("replace", "-f", "-", text=json.dumps(stale))
    assert "the object has been modified; please apply your changes to the latest version and try again" in said
    assert simulated.get("configmap", "raced")["data"] == {"colour": "blue"}


def test_a_dry_run_answers_and_changes_nothing(simulated: Cluster) -> None:
    assert "created (server dry run)" in simulated.kubectl("create", "--dry-run=server", "-f", "-", text=GOOD.replace("settings", "tried"))
    assert 'configmaps "tried" not found' in simulated.refused("get", "configmap", "tried")


@pytest.mark.parametrize("path", ["/api/v1/namespaces/default/configmaps", "/korch/v1/join"])
def test_an_anonymous_write_is_refused(simulated: Cluster, path: str) -> None:
    context = ssl.create_default_context(cafile=str(simulated.data_dir / "pki" / "ca.crt"))
    body = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "anonymous"}}).encode()
    request = urllib.request.Request(f"https://{simulated.bind}{path}", body, {"Content-Type": "application/json"}, method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, context=context)
    status = json.loads(refused.value.read())
    assert refused.value.code == status["code"] == 403
    assert status["reason"] == "Forbidden"


def test_a_forged_identity_header_gives_nobody_rights(simulated: Cluster) -> None:
    context = ssl.create_default_context(cafile=str(simulated.data_dir / "pki" / "ca.crt"))
    forged = {"x-korch-client-cert": "AAAA", "x-remote-user": "admin", "x-remote-group": "system:masters"}
    request = urllib.request.Request(f"https://{simulated.bind}/api/v1/secrets", headers=forged)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, context=context)
    assert refused.value.code == 403
