"""Clients that speak SPDY/3.1 instead of WebSockets: kubectl told to, against a real containerd."""

from __future__ import annotations

import os
import socket
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import BIN, Cluster

PODS = """
apiVersion: v1
kind: Pod
metadata: {name: old, labels: {app: old}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: shell
      image: docker.io/library/busybox:latest
      imagePullPolicy: IfNotPresent
      stdin: true
      command:
        - sh
        - -c
        - mkdir -p /www && echo there > /www/index.html && httpd -p 8080 -h /www;
          while read line; do echo heard $line; done; sleep 100000
"""


@pytest.fixture(scope="module")
def old(one_node: Cluster) -> Iterator[Cluster]:
    one_node.apply(PODS)
    one_node.wait_for_pods("app=old", 1)
    patch = pytest.MonkeyPatch()
    patch.setenv("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false")
    patch.setenv("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false")
    yield one_node
    patch.undo()
    one_node.kubectl("delete", "pod", "old", "--now")


def test_exec_over_spdy_carries_input_output_errors_and_exit_code(old: Cluster) -> None:
    shown = old.try_kubectl("exec", "old", "-v=8", "--", "hostname")
    assert shown.stdout == "old\n"
    assert "SPDY/3.1" in shown.stderr and "websocket" not in shown.stderr.lower()
    assert old.kubectl("exec", "-i", "old", "--", "cat", text="through and back") == "through and back"
    large = "x" * 300_000
    assert old.kubectl("exec", "-i", "old", "--", "cat", text=large) == large
    failed = old.try_kubectl("exec", "old", "--", "sh", "-c", "echo no >&2; exit 7")
    assert (failed.returncode, failed.stderr.splitlines()[0]) == (7, "no")


def test_attach_over_spdy_speaks_with_the_running_command(old: Cluster) -> None:
    environment = {**os.environ, "KUBECONFIG": str(old.data_dir / "kubeconfig"), "HOME": str(old.root)}
    command = [BIN / "kubectl", "attach", "-i", "old"]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as attached:
        assert attached.stdin is not None and attached.stdout is not None
        try:
            # The runtime ends an attachment with its input, so that stays open until the answer is here.
            attached.stdin.write("me\n")
            attached.stdin.flush()
            assert "heard me" in attached.stdout.readline()
        finally:
            attached.kill()


def test_a_refusal_over_spdy_is_a_status(old: Cluster) -> None:
    said = old.refused("exec", "absent", "--", "hostname")
    assert 'pods "absent" not found' in said
    forbidden = old.refused("exec", "old", "--as=jane", "--", "hostname")
    assert 'pods "old" is forbidden: User "jane" cannot' in forbidden


def test_port_forward_over_spdy_reaches_the_port(old: Cluster) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "KUBECONFIG": str(old.data_dir / "kubeconfig"), "HOME": str(old.root)}
    forward = subprocess.Popen([BIN / "kubectl", "port-forward", "pod/old", f"{port}:8080"], env=environment, stdout=subprocess.DEVNULL)

    def fetched() -> bytes:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html", timeout=5) as answer:
                return answer.read()
        except OSError:
            return b""

    try:
        assert old.eventually(fetched, "an answer through the forwarded port") == b"there\n"
        assert fetched() == b"there\n"
    finally:
        forward.terminate()
        forward.wait()
