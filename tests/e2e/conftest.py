"""Real clusters for the end-to-end tests: `korch up` with containerd on this machine, spoken to with the real kubectl."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

BIN = Path(sys.executable).parent
T = TypeVar("T")
# How long anything may take on a busy machine before a test gives up; no test asserts a duration.
PATIENCE_S = 120


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(600))


class Cluster:
    """A cluster in a data directory of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data_dir = root / "data"
        self.bind = f"127.0.0.1:{_free_port()}"
        self.images = Path(os.environ.get("IMAGES") or root / "images")

    def korch(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([BIN / "korch", *arguments, "--data-dir", str(self.data_dir)], capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"korch {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}\n{self.logs()}")
        return done

    def up(self, *options: str) -> None:
        kept = self.data_dir / "images"
        kept.mkdir(parents=True, exist_ok=True)
        for archive in self.images.glob("*.tar"):
            shutil.copy(archive, kept)
        self.korch("up", "--detach", "--bind", self.bind, *options)

    def down(self) -> None:
        self.korch("down")

    def status(self) -> dict[str, Any]:
        return json.loads(self.korch("status", "-o", "json", check=False).stdout)

    def kubectl(self, *arguments: str, text: str = "", check: bool = True) -> str:
        done = self.try_kubectl(*arguments, text=text)
        if check and done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def try_kubectl(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "KUBECONFIG": str(self.data_dir / "kubeconfig"), "HOME": str(self.root)}
        return subprocess.run(
            [BIN / "kubectl", *arguments], env=environment, input=text, capture_output=True, text=True, check=False, timeout=PATIENCE_S
        )

    def refused(self, *arguments: str, text: str = "") -> str:
        """Run a kubectl command that must fail; return what it says on standard error."""
        done = self.try_kubectl(*arguments, text=text)
        assert done.returncode != 0, f"kubectl {' '.join(arguments)} succeeded: {done.stdout}"
        return done.stderr

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def apply(self, manifest: str) -> str:
        return self.kubectl("apply", "-f", "-", text=manifest)

    def ready_pods(self, selector: str, namespace: str = "default") -> list[dict[str, Any]]:
        pods = self.get("pods", "-l", selector, "-n", namespace)["items"]
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"] and condition(pod, "Ready") == "True"]

    def wait_for_pods(self, selector: str, count: int, namespace: str = "default") -> list[dict[str, Any]]:
        """Wait until exactly `count` pods exist for the selector and all are ready."""

        def ready() -> list[dict[str, Any]] | None:
            pods = self.get("pods", "-l", selector, "-n", namespace)["items"]
            good = self.ready_pods(selector, namespace)
            return good if len(pods) == len(good) == count else None

        return self.eventually(ready, f"{count} ready pods with {selector}")

    def eventually(self, probe: Callable[[], T | None], what: str, patience_s: float = PATIENCE_S) -> T:
        """Return the first true answer of `probe`, asked again and again."""
        deadline = time.monotonic() + patience_s
        while True:
            answer = probe()
            if answer:
                return answer
            if time.monotonic() > deadline:
                raise AssertionError(f"never saw: {what}\n{self.kubectl('get', 'pods', '-A', '-o', 'wide', check=False)}\n{self.logs()}")
            time.sleep(0.2)

    def logs(self) -> str:
        parts = []
        for file in sorted((self.data_dir / "logs").glob("*.log")):
            parts.append(f"--- {file.name}\n" + "\n".join(file.read_text(errors="replace").splitlines()[-15:]))
        return "\n".join(parts)


def condition(thing: dict[str, Any], kind: str) -> str:
    for one in thing.get("status", {}).get("conditions", []):
        if one["type"] == kind:
            return one["status"]
    return ""


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image archives that real nodes import: made locally unless IMAGES names a directory that has them."""
    given = os.environ.get("IMAGES")
    directory = Path(given) if given else tmp_path_factory.mktemp("images")
    if not list(directory.glob("*.tar")):
        subprocess.run([sys.executable, "-m", "korch_agent.local_images", str(directory)], check=True)
    return directory


def run_cluster(images: Path, *options: str) -> Iterator[Cluster]:
    """Yield a running cluster and end it; what it leaves behind fails the run."""
    root = Path(tempfile.mkdtemp(prefix="korch-e2e-"))
    cluster = Cluster(root)
    cluster.images = images
    try:
        cluster.up(*options)
        yield cluster
    finally:
        cluster.down()
        shutil.rmtree(root)


@pytest.fixture(scope="module")
def one_node(images: Path) -> Iterator[Cluster]:
    """A cluster of one real node in the machine's own network namespace."""
    yield from run_cluster(images, "--nodes", "1")


@pytest.fixture(scope="module")
def three_nodes(images: Path) -> Iterator[Cluster]:
    """A cluster of three real nodes that notices a dead one quickly."""
    yield from run_cluster(images, "--nodes", "3", "--server-option", "--node-monitor-grace-period=20")


@pytest.fixture(scope="module")
def simulated(images: Path) -> Iterator[Cluster]:
    """A cluster of three simulated nodes."""
    yield from run_cluster(images, "--nodes", "0", "--sim-nodes", "3")
