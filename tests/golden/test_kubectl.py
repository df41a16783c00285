"""Stories of kubectl commands and all they print, for kubectl of this release and of an older one, as a file each.

`stories.txt` holds the commands: `$` shows what a command prints, `.` only runs it (to wait for what comes by itself). Where the older
kubectl prints something else, a file of its own says what. What differs from run to run is replaced by what it is.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import BIN, PATIENCE_S, Cluster, run_cluster
from tests.golden import HERE, check

FILES = HERE / "kubectl"
PROGRAMS = {"": BIN / "kubectl", "-1.35": Path(sys.prefix) / "clients" / "kubectl-1.35"}
_RANDOM = "[bcdfghjklmnpqrstvwxz2456789]"
# What is replaced, in order.
_CHANGING = (
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UID"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| [+-]\d{4})", "TIME"),
    (r"\b[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}", "TIME"),
    (r'(resourceVersion"?: "?|Resource Version: +)\d+', r"\1N"),
    (rf"\b([a-z][a-z0-9-]*)-{_RANDOM}{{8,10}}-{_RANDOM}{{5}}\b", r"\1-HASH-ID"),
    (rf"(hash[:=]\s*|\b[a-z][a-z0-9-]*-){_RANDOM}{{8,10}}\b", r"\1HASH"),
    (rf"\b(now|once|front|web|kube-api-access)-{_RANDOM}{{5}}\b", r"\1-ID"),
    (r"(?<![=\w])(\d+[dhms]){1,2}\b", "AGE"),
    (r"\b10\.(96|244|\d+)\.\d+\.\d+\b(?!/)", "IP"),
    (r"/(LIVE|MERGED)-\d+/", r"/\1/"),
    (r'(IP +|Successfully assigned \S+ to |Node: +|nodeName: ")sim-[123]\b(/172\.16\.0\.[123])?', r"\1NODE"),
    (r"(?<=\S) {3,}(?=\S)", "   "),
    (r"\d+ bytes", "N bytes"),
)


def stories() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (FILES / "stories.txt").read_text().splitlines():
        if line.startswith("= "):
            found[line[2:]] = []
        elif line:
            found[next(reversed(found))].append(line)
    return found


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from run_cluster(tmp_path_factory.mktemp("no-images"), "--nodes", "0", "--sim-nodes", "3")


@pytest.mark.parametrize("version", PROGRAMS, ids=["1.37", "1.35"])
@pytest.mark.parametrize("story", stories())
def test_kubectl_prints(story: str, version: str, told: Cluster, tmp_path: Path) -> None:
    namespace = f"tale-of-{story}{version.replace('.', '-')}"
    told.kubectl("create", "namespace", namespace)
    told.kubectl("wait", "--for=create", "serviceaccount/default", "configmap/kube-root-ca.crt", "-n", namespace)
    environment = {"HOME": str(tmp_path), "KUBECONFIG": str(told.data_dir / "kubeconfig"), "PATH": os.environ["PATH"]}

    def run(line: str) -> str:
        words = shlex.split(line[2:])
        command = [PROGRAMS[version], *words] if "-n" in words or "-A" in words else [PROGRAMS[version], "-n", namespace, *words]
        done = subprocess.run(
            command,
            cwd=FILES,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        ending = f"exit code {done.returncode}\n" if done.returncode else ""
        return f"{line}\n{done.stdout}{ending}\n" if line.startswith("$") else ""

    shown = steady("".join(run(line) for line in stories()[story]), namespace)
    told.kubectl("delete", "namespace", namespace, "--wait=false")
    usual, special = f"kubectl/{story}.txt", f"kubectl/{story}{version}.txt"
    is_writing = os.environ.get("KORCH_GOLDEN") == "write"
    differs = shown != (HERE / usual).read_text() if is_writing and version else (HERE / special).exists()
    check(special if version and differs else usual, shown)


def steady(text: str, namespace: str) -> str:
    """Return what kubectl printed with everything replaced that no two runs share."""
    text = re.sub(rf"\b{namespace}\b", "NAMESPACE", text)
    for pattern, replacement in _CHANGING:
        text = re.sub(pattern, replacement, text)
    return text
