"""One served cluster with simulated nodes for each test process, and a namespace of its own for each test."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Cluster, run_cluster

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of three simulated nodes, which need no images."""
    yield from run_cluster(tmp_path_factory.mktemp("no-images"), "--nodes", "0", "--sim-nodes", "3")


@pytest.fixture
def kubeconfig(served: Cluster) -> Path:
    return served.data_dir / "kubeconfig"


@pytest.fixture
def namespace(served: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a namespace whose default service account is there, as pods need it."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:50].strip("-") + f"-{next(_NUMBERS)}"
    served.kubectl("create", "namespace", name)
    served.kubectl("wait", "--for=create", "serviceaccount/default", "-n", name)
    yield name
    served.kubectl("delete", "namespace", name, "--wait=false")
