"""What stands before every request, on a server as users start it: audit log, bootstrap tokens, flow control; and CronJobs that run."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import BIN, Cluster

POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: Request, users: [kubernetes-admin], resources: [{group: "", resources: [configmaps]}]}
"""
TOKEN = {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"}


@pytest.fixture(scope="module")
def audited() -> Iterator[Cluster]:
    root = Path(tempfile.mkdtemp(prefix="korch-e2e-"))
    cluster = Cluster(root)
    (root / "policy.yaml").write_text(POLICY)
    options = [f"--audit-policy-file={root / 'policy.yaml'}", f"--audit-log-path={root / 'audit.log'}"]
    try:
        cluster.up("--nodes", "0", "--sim-nodes", "2", *(f"--server-option={one}" for one in options))
        yield cluster
    finally:
        cluster.down()
        shutil.rmtree(root)


def events(cluster: Cluster) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (cluster.root / "audit.log").read_text().splitlines()]


def test_every_read_is_told_of_when_the_policy_wants_reads(audited: Cluster) -> None:
    audited.kubectl("create", "configmap", "told", "--from-literal=a=b")
    for _ in range(3):
        audited.kubectl("get", "configmap", "told")
    told = [one for one in events(audited) if one["objectRef"].get("name") == "told"]
    assert [one["verb"] for one in told] == ["create", "get", "get", "get"]
    assert told[0]["requestObject"]["data"] == {"a": "b"}
    assert all(one["annotations"]["authorization.k8s.io/decision"] == "allow" for one in told)


def test_a_bootstrap_token_proves_who_one_is_until_its_secret_goes(audited: Cluster) -> None:
    literals = [f"--from-literal={key}={value}" for key, value in TOKEN.items()]
    kind = "--type=bootstrap.kubernetes.io/token"
    audited.kubectl("create", "secret", "generic", "bootstrap-token-abcdef", "-n", "kube-system", kind, *literals)
    authority = audited.data_dir / "pki" / "ca.crt"
    command = ("--kubeconfig=/dev/null", f"--server=https://{audited.bind}", f"--certificate-authority={authority}")
    shown = audited.kubectl("auth", "whoami", "--token=abcdef.0123456789abcdef", *command)
    assert "system:bootstrap:abcdef" in shown
    audited.kubectl("delete", "secret", "bootstrap-token-abcdef", "-n", "kube-system")
    assert "Unauthorized" in audited.refused("get", "nodes", "--token=abcdef.0123456789abcdef", *command)


def test_answers_name_their_flow(audited: Cluster) -> None:
    uid = audited.get("flowschema", "exempt")["metadata"]["uid"]
    shown = audited.try_kubectl("get", "--raw", "/version", "-v=8").stderr
    assert f"X-Kubernetes-Pf-Flowschema-Uid: {uid}" in shown
    assert 'priority_level="exempt"' in audited.kubectl("get", "--raw", "/metrics")


def test_a_cron_job_makes_jobs(audited: Cluster) -> None:
    audited.kubectl("create", "cronjob", "often", "--image=busybox", "--schedule=* * * * *", "--", "true")
    job = audited.eventually(lambda: audited.get("jobs")["items"], "a job made by the cron job")[0]
    assert job["metadata"]["ownerReferences"][0]["name"] == "often"


def test_a_bad_policy_ends_the_start_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(POLICY.replace("Request,", "Loud,"))
    options = [f"--audit-policy-file={tmp_path / 'bad.yaml'}", "--audit-log-path=-", "--data-dir", str(tmp_path / "data")]
    done = subprocess.run([BIN / "korch", "server", *options], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'loading audit policy file: rules[0].level: Unsupported value: "Loud"' in done.stderr
