"""A throw-away cluster for benchmarks: `korch up` in a temporary directory, ended when the block ends."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
# As after an installation: modules are compiled once, wherever this environment keeps or forbids their bytecode.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir()) / f"korch-bench-bytecode-{os.getuid()}")


@dataclass(frozen=True, slots=True)
class Running:
    """A cluster that is ready."""

    data_dir: Path
    kubeconfig: Path
    status: dict


@contextmanager
def serving() -> Iterator[tuple[Path, int]]:
    """Yield kubeconfig and process id of an API server without controllers and scheduler."""
    root = Path(tempfile.mkdtemp(prefix="korch-bench-"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        bind = f"127.0.0.1:{listener.getsockname()[1]}"
    command = [BIN / "korch", "server", "--data-dir", root, "--bind", bind, "--without-controllers", "--without-scheduler"]
    kubeconfig = root / "kubeconfig"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            ready = [BIN / "kubectl", "--kubeconfig", kubeconfig, "get", "--raw", "/readyz"]
            while not kubeconfig.exists() or subprocess.run(ready, capture_output=True, check=False).returncode:
                time.sleep(0.1)
            yield kubeconfig, server.pid
        finally:
            server.terminate()
            server.wait()
            shutil.rmtree(root)


@contextmanager
def running(*options: str) -> Iterator[Running]:
    """Yield a ready cluster started with `options`; images come from the directory that IMAGES names."""
    root = Path(tempfile.mkdtemp(prefix="korch-bench-"))
    data_dir = root / "data"
    (data_dir / "images").mkdir(parents=True)
    for archive in Path(os.environ.get("IMAGES", root)).glob("*.tar"):
        shutil.copy(archive, data_dir / "images")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        bind = f"127.0.0.1:{listener.getsockname()[1]}"
    try:
        subprocess.run([BIN / "korch", "up", "--detach", "--data-dir", data_dir, "--bind", bind, *options], check=True)
        shown = subprocess.run([BIN / "korch", "status", "--data-dir", data_dir, "-o", "json"], check=True, capture_output=True, text=True)
        yield Running(data_dir, data_dir / "kubeconfig", json.loads(shown.stdout))
    finally:
        subprocess.run([BIN / "korch", "down", "--data-dir", data_dir], check=True)
        shutil.rmtree(root)
