"""Whole clusters for tests of other programs: a server over HTTPS as one process, controllers, scheduler and simulated nodes within it.

    def test_my_operator(serve_cluster):
        cluster = serve_cluster(sim_nodes=3).wait_ready()
        subprocess.run(["kubectl", "get", "nodes"], env={"KUBECONFIG": str(cluster.kubeconfig)})

The fixture `serve_cluster` starts as many as it is asked for, side by side, and ends them after the test; a run that is killed takes
them with it. On virtual time, in this process and without a network, a test has `cluster` of `korch.testing.cluster` instead.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import orjson

_POLL_S = 0.05
_STOP_S = 10.0


class ServedCluster:
    """A cluster in a process of its own. Everything it keeps is in `data_dir`; `kubeconfig` there is the administrator's."""

    def __init__(self, data_dir: Path, *, sim_nodes: int = 1, options: Sequence[str] = ()) -> None:
        """Start it, without waiting: `options` are handed on to `korch server`. Raises OSError when nothing can be started."""
        self.data_dir = data_dir
        self.sim_nodes = sim_nodes
        data_dir.mkdir(parents=True, exist_ok=True)
        self._port = _free_port()
        command = [sys.executable, "-m", "korch.testing.tether", str(os.getpid()), "server", "--data-dir", str(data_dir)]
        command += ["--bind", f"127.0.0.1:{self._port}", "--sim-nodes", str(sim_nodes), *options]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    @property
    def kubeconfig(self) -> Path:
        return self.data_dir / "kubeconfig"

    @property
    def log_file(self) -> Path:
        return self.data_dir / "server.log"

    def wait_ready(self, timeout_s: float = 120.0) -> Self:
        """Block until the API and every node are ready, and return this.

        Raises TimeoutError, or RuntimeError when the server has ended; both tell its log.
        """
        deadline = time.monotonic() + timeout_s
        while not self.is_ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with code {self.process.returncode}:\n{self._last_words()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"not ready after {timeout_s} s:\n{self._last_words()}")
            time.sleep(_POLL_S)
        return self

    def is_ready(self) -> bool:
        """Ask the server, over the network. Blocks for an answer; no answer is no readiness."""
        pki = self.data_dir / "pki"
        try:
            context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
            context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
            connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=_STOP_S, context=context)
            try:
                return self._get(connection, "/readyz")[0] == 200 and self._ready_nodes(connection) == self.sim_nodes
            finally:
                connection.close()
        except (OSError, http.client.HTTPException):
            return False

    def _ready_nodes(self, connection: http.client.HTTPSConnection) -> int:
        code, body = self._get(connection, "/api/v1/nodes")
        nodes = orjson.loads(body)["items"] if code == 200 else []
        conditions = [one for node in nodes for one in node.get("status", {}).get("conditions", ())]
        return sum(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def _get(self, connection: http.client.HTTPSConnection, path: str) -> tuple[int, bytes]:
        connection.request("GET", path, headers={"Accept": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()

    def stop(self) -> None:
        """End the server and wait for that: SIGTERM, and SIGKILL when it takes too long. Its data stays."""
        self.process.terminate()
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _last_words(self) -> str:
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-15:])


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
