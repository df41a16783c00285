"""`korch up` on a member of etcd instead of a log of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.datastore.members import EtcdCluster
from tests.e2e.conftest import Cluster


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdCluster]:
    with EtcdCluster(tmp_path, size=1) as etcd:
        yield etcd


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    root = Path(tempfile.mkdtemp(prefix="korch-e2e-"))
    cluster = Cluster(root)
    try:
        yield cluster
    finally:
        cluster.down()
        shutil.rmtree(root)


def test_up_keeps_everything_in_etcd_and_finds_it_again(etcd: EtcdCluster, cluster: Cluster) -> None:
    options = ("--nodes", "0", "--sim-nodes", "2", "--datastore", etcd.datastore)
    cluster.up(*options)
    cluster.kubectl("create", "deployment", "web", "--image=web", "--replicas=3")
    cluster.kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=120s")
    before = {pod["metadata"]["uid"] for pod in cluster.wait_for_pods("app=web", 3)}
    assert "/registry/apps/deployments/default/web" in etcd.etcdctl("get", "--prefix", "--keys-only", "/registry/apps/deployments/")
    assert not list((cluster.data_dir / "store").glob("log-*")), "nothing is kept here"
    cluster.down()
    assert "/registry/apps/deployments/default/web" in etcd.etcdctl("get", "--prefix", "--keys-only", "/registry/apps/deployments/")
    cluster.up(*options)
    cluster.kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=120s")
    assert {pod["metadata"]["uid"] for pod in cluster.wait_for_pods("app=web", 3)} == before
    cluster.kubectl("scale", "deployment/web", "--replicas=4")
    cluster.wait_for_pods("app=web", 4)


def test_a_backup_is_restored_into_a_log_and_whoever_asks_for_etcd_is_told_how(cluster: Cluster, etcd: EtcdCluster, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    cluster.up("--nodes", "0", "--sim-nodes", "1", "--datastore", etcd.datastore)
    cluster.kubectl("create", "configmap", "kept", "--from-literal=a=b")
    cluster.korch("store", "backup", str(backup))
    cluster.down()
    refused = cluster.korch("store", "restore", str(backup), "--datastore", etcd.datastore, check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: a backup is restored into a log on disk, not into etcd: revisions in etcd are etcd's own.")
    assert "etcdctl snapshot" in refused.stderr
    shutil.rmtree(cluster.data_dir / "store", ignore_errors=True)
    cluster.korch("store", "restore", str(backup))
    cluster.up("--nodes", "0", "--sim-nodes", "1")
    assert cluster.get("configmap", "kept")["data"] == {"a": "b"}
