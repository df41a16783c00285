"""An operator on kopf, as a process of its own: what its handlers do and what it writes into objects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.clients.operator_of_bakeries import GROUP
from tests.e2e.conftest import Cluster

DECLARATION = f"""
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {{name: bakeries.{GROUP}}}
spec:
  group: {GROUP}
  scope: Namespaced
  names: {{plural: bakeries, singular: bakery, kind: Bakery}}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {{status: {{}}}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {{type: object, properties: {{loaves: {{type: integer}}}}}}
          status: {{type: object, x-kubernetes-preserve-unknown-fields: true}}
"""
BAKERY = f"""
apiVersion: {GROUP}/v1
kind: Bakery
metadata: {{name: corner}}
spec: {{loaves: 3}}
"""


@contextmanager
def running(kubeconfig: Path, namespace: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the operator for one namespace."""
    program = Path(__file__).with_name("operator_of_bakeries.py")
    command = [sys.executable, "-m", "kopf", "run", str(program), "--namespace", namespace, "--standalone", "--verbose"]
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=os.environ | {"KUBECONFIG": str(kubeconfig)}, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def test_an_operator_creates_follows_and_cleans_up(served: Cluster, kubeconfig: Path, namespace: str, tmp_path: Path) -> None:
    here = ("-n", namespace)
    served.apply(DECLARATION)
    served.kubectl("wait", "--for=condition=Established", f"crd/bakeries.{GROUP}")
    log = tmp_path / "operator.log"

    def wait(what: str, *more: str) -> None:
        done = served.try_kubectl("wait", what, *here, "--timeout=60s", *more)
        assert done.returncode == 0, f"{done.stderr}\n{log.read_text()}"

    with running(kubeconfig, namespace, log) as operator:
        served.kubectl("apply", *here, "-f", "-", text=BAKERY)
        wait("bakery/corner", "--for=jsonpath={.status.create.oven}=corner-oven")
        wait("bakery/corner", "--for=jsonpath={.status.light}=lit")
        wait("bakery/corner", "--for=jsonpath={.status.smells}=good")
        made = served.get("bakery", "corner", *here)
        assert made["metadata"]["finalizers"] == [f"{GROUP}/finalizer"]
        assert made["status"]["baking"] == 3
        remembered = json.loads(made["metadata"]["annotations"]["kopf.zalando.org/last-handled-configuration"])
        assert remembered["spec"] == {"loaves": 3}
        oven = served.get("configmap", "corner-oven", *here)
        assert oven["data"] == {"loaves": "3"}
        assert oven["metadata"]["ownerReferences"][0]["name"] == "corner"
        served.kubectl("patch", "bakery", "corner", *here, "--type=merge", "-p", '{"spec":{"loaves":9}}')
        wait("configmap/corner-oven", "--for=jsonpath={.data.loaves}=9")
        told = ("events", *here, "--field-selector", "involvedObject.name=corner,reason=Baking")
        [event] = served.eventually(lambda: served.get(*told)["items"], "an event")
        assert (event["type"], event["message"], event["source"]) == ("Normal", "9 loaves instead of 3", {"component": "kopf"})
    assert operator.returncode == 0, log.read_text()
    # Nobody is there to take the finalizer away, and whoever comes back does what was missed.
    served.kubectl("delete", "bakery", "corner", *here, "--wait=false")
    assert "deletionTimestamp" in served.get("bakery", "corner", *here)["metadata"]
    with running(kubeconfig, namespace, log):
        wait("bakery/corner", "--for=delete")
        served.kubectl("get", "configmap", "corner-was-cleaned", *here)
        wait("configmap/corner-oven", "--for=delete")
    assert "Traceback" not in log.read_text(), log.read_text()
    served.kubectl("delete", "crd", f"bakeries.{GROUP}")
