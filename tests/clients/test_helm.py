"""helm of both major versions: a chart with a kind of its own, hooks and a test, through the life of a release."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Cluster

CHART = Path(__file__).with_name("shop")
CLIENTS = Path(sys.prefix) / "clients"
WAIT = ("--wait", "--timeout", "100s")
Helm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(params=["helm-3", "helm-4"])
def helm(request: pytest.FixtureRequest, served: Cluster, kubeconfig: Path, namespace: str, tmp_path: Path) -> Iterator[Helm]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "KUBECONFIG": str(kubeconfig), "HELM_NAMESPACE": namespace}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = CLIENTS / request.param
        return subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=110)

    yield run
    # helm never removes what stands in a chart's crds/.
    served.kubectl("delete", "crd", "offers.shop.example.com", "--ignore-not-found")


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"{done.args}: {done.stdout}{done.stderr}"
    return done.stdout


def history(helm: Helm) -> list[tuple[int, str, str]]:
    rows: list[dict[str, Any]] = json.loads(good(helm("history", "shop", "-o", "json")))
    return [(row["revision"], row["status"], row["description"]) for row in rows]


def test_a_release_lives_its_whole_life(helm: Helm, served: Cluster, namespace: str) -> None:
    here = ("-n", namespace)
    assert "shop says hello in a real cluster." in good(helm("install", "shop", str(CHART), *WAIT))
    assert served.get("deployment", "shop", *here)["status"]["readyReplicas"] == 2
    assert served.get("offer", "shop-opening", *here)["spec"] == {"percent": 10}
    assert served.get("jobs", *here)["items"] == []
    [listed] = json.loads(good(helm("list", "-o", "json")))
    assert (listed["name"], listed["revision"], listed["status"], listed["chart"]) == ("shop", "1", "deployed", "shop-1.0.0")
    assert "Phase:          Succeeded" in good(helm("test", "shop"))

    planned = good(helm("upgrade", "shop", str(CHART), "--set", "replicas=3", "--dry-run=server"))
    assert "replicas: 3" in planned and served.get("deployment", "shop", *here)["spec"]["replicas"] == 2
    changed = ("--set", "replicas=3", "--set", "greeting=good morning")
    assert "shop says good morning in a real cluster." in good(helm("upgrade", "--install", "shop", str(CHART), *WAIT, *changed))
    assert json.loads(good(helm("get", "values", "shop", "-o", "json"))) == {"greeting": "good morning", "replicas": 3}
    assert served.get("configmap", "shop-settings", *here)["data"] == {"greeting": "good morning", "revision": "2"}
    assert served.get("deployment", "shop", *here)["status"]["readyReplicas"] == 3

    invalid = helm("upgrade", "shop", str(CHART), "--set", "percent=90")
    assert invalid.returncode == 1
    assert "spec.percent in body should be less than or equal to 50" in invalid.stderr
    unfinished = helm("upgrade", "shop", str(CHART), "--set", "exitCode=1", *WAIT)
    assert unfinished.returncode == 1
    assert "pre-upgrade hooks failed" in unfinished.stderr

    good(helm("rollback", "shop", "1", *WAIT))
    assert [(number, status) for number, status, _ in history(helm)] == [
        (1, "superseded"),
        (2, "superseded"),
        (3, "failed"),
        (4, "failed"),
        (5, "deployed"),
    ]
    assert history(helm)[-1][2] == "Rollback to 1"
    assert served.get("deployment", "shop", *here)["spec"]["replicas"] == 2
    assert served.get("configmap", "shop-settings", *here)["data"] == {"greeting": "hello", "revision": "1"}
    assert good(helm("get", "manifest", "shop", "--revision", "5")) == good(helm("get", "manifest", "shop", "--revision", "1"))
    assert "command: [ask, shop]" in good(helm("get", "hooks", "shop"))

    good(helm("uninstall", "shop", "--keep-history", *WAIT))
    assert history(helm)[-1][1] == "uninstalled"
    assert served.kubectl("get", "deployments,services,offers,secrets", "-l", "app=shop", *here) == ""
    good(helm("uninstall", "shop"))
    assert served.get("secrets", *here)["items"] == []
    gone = helm("status", "shop")
    assert (gone.returncode, "release: not found" in gone.stderr) == (1, True)


def test_a_second_owner_is_refused(helm: Helm, served: Cluster, namespace: str) -> None:
    served.kubectl("create", "configmap", "shop-settings", "-n", namespace)
    refused = helm("install", "shop", str(CHART))
    assert refused.returncode == 1
    assert 'ConfigMap "shop-settings"' in refused.stderr and "exists and cannot be imported into the current release" in refused.stderr
