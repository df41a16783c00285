"""`korch store serve` as etcd's own tools see it: Debian's etcdctl, TLS with client certificates, metrics, and histories under kill -9."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from korch.apiserver.certificates import CertificateAuthority
from korch.runtime.clock import RealClock
from tests.e2e.conftest import BIN, PATIENCE_S, Cluster, _free_port

LINEARIZABILITY = Path(__file__).resolve().parent.parent / "linearizability"


class Served:
    """One `korch store serve` in a directory of its own, and etcdctl pointed at it."""

    def __init__(self, root: Path, *options: str, flags: tuple[str, ...] = ()) -> None:
        self.root = root
        self.data_dir = root / "store"
        self.address = f"127.0.0.1:{_free_port()}"
        self.metrics = f"127.0.0.1:{_free_port()}"
        self._options = options
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [BIN / "korch", "store", "serve", "--data-dir", self.data_dir, "--listen-client", self.address]
        with (self.root / "log").open("ab") as output:
            self._process = subprocess.Popen([*command, "--listen-metrics", self.metrics, *self._options], stdout=output, stderr=output)
        give_up = time.monotonic() + PATIENCE_S
        while self.etcdctl("get", "nothing", check=False).returncode != 0:
            assert self._process.poll() is None and time.monotonic() < give_up, (self.root / "log").read_text()

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(how)
        return process.wait(PATIENCE_S)

    def etcdctl(self, *arguments: str, text: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["etcdctl", "--endpoints", self.address, *self._flags, *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "ETCDCTL_API": "3"},
            timeout=PATIENCE_S,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def lines(self, *arguments: str, text: str = "") -> list[str]:
        return self.etcdctl(*arguments, text=text).stdout.splitlines()

    def show(self, *arguments: str) -> Any:
        return json.loads(self.etcdctl(*arguments, "-w", "json").stdout)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    one = Served(tmp_path)
    one.start()
    yield one
    one.end()


def test_etcdctl_reads_writes_and_deletes(served: Served) -> None:
    assert served.lines("put", "a/1", "one") == ["OK"]
    assert served.lines("put", "a/2", "two") == ["OK"]
    assert served.lines("put", "--prev-kv", "a/1", "uno") == ["OK", "a/1", "one"]
    assert served.lines("get", "a/", "--prefix") == ["a/1", "uno", "a/2", "two"]
    assert served.lines("get", "a/", "--prefix", "--keys-only", "--order", "DESCEND") == ["a/2", "", "a/1", ""]
    assert served.lines("get", "a/1", "--rev", "2") == ["a/1", "one"]
    assert served.lines("get", "a/", "--prefix", "--limit", "1", "--print-value-only") == ["uno"]
    assert served.lines("del", "a/", "--prefix") == ["2"]
    found = served.show("get", "a/", "--prefix")
    assert "kvs" not in found and found["header"]["revision"] == 5


def test_etcdctl_txn_takes_the_branch_that_its_comparisons_choose(served: Served) -> None:
    served.etcdctl("put", "k", "1")
    script = 'value("k") = "1"\nversion("k") = "1"\n\nput k 2\nget k\n\nput k failed\n\n'
    assert served.lines("txn", text=script) == ["SUCCESS", "", "OK", "", "k", "2"]
    assert served.lines("txn", text=script) == ["FAILURE", "", "OK"]
    assert served.lines("get", "k", "--print-value-only") == ["failed"]


def test_etcdctl_watches_from_a_revision_on(served: Served) -> None:
    served.etcdctl("put", "w/a", "1")
    served.etcdctl("put", "w/a", "2")
    served.etcdctl("del", "w/a")
    watch = subprocess.Popen(
        ["etcdctl", "--endpoints", served.address, "watch", "w/", "--prefix", "--rev", "2", "--prev-kv"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "ETCDCTL_API": "3"},
    )
    assert watch.stdout is not None
    try:
        lines = [watch.stdout.readline().strip() for _ in range(13)]
    finally:
        watch.kill()
        watch.wait()
    # With the state before, where there was one.
    assert lines == ["PUT", "w/a", "1", "PUT", "w/a", "1", "w/a", "2", "DELETE", "w/a", "2", "w/a", ""]


def test_etcdctl_grants_keeps_and_revokes_leases(served: Served) -> None:
    lease = served.lines("lease", "grant", "300")[0].split()[1]
    served.etcdctl("put", "held", "v", "--lease", lease)
    assert lease in served.lines("lease", "list")[1]
    shown = served.lines("lease", "timetolive", lease, "--keys")[0]
    assert shown.startswith(f"lease {lease} granted with TTL(300s), remaining(") and shown.endswith("attached keys([held])")
    assert served.lines("lease", "keep-alive", "--once", lease) == [f"lease {lease} keepalived with TTL(300)"]
    assert served.lines("lease", "revoke", lease) == [f"lease {lease} revoked"]
    assert served.lines("get", "held") == []


def test_etcdctl_tends_the_store(served: Served) -> None:
    for number in range(10):
        served.etcdctl("put", "k", str(number))
    (status,) = served.show("endpoint", "status")
    assert status["Status"]["version"].startswith("3.7.") and status["Status"]["header"]["revision"] == 11
    assert "is healthy" in served.etcdctl("endpoint", "health").stderr + served.etcdctl("endpoint", "health").stdout
    (member,) = served.show("member", "list")["members"]
    assert member["clientURLs"] == [f"http://{served.address}"]
    assert served.lines("compaction", "9") == ["compacted revision 9"]
    refused = served.etcdctl("get", "k", "--rev", "8", check=False)
    assert refused.returncode != 0 and "etcdserver: mvcc: required revision has been compacted" in refused.stderr
    assert served.lines("defrag")[0].startswith("Finished defragmenting")
    assert served.lines("alarm", "list") == []
    saved = served.root / "saved"
    served.etcdctl("snapshot", "save", str(saved))
    assert saved.stat().st_size % 512 == 32 and not list(served.data_dir.glob("*.tmp"))
    one, other = served.show("endpoint", "hashkv"), served.show("endpoint", "hashkv")
    assert one[0]["HashKV"]["hash"] == other[0]["HashKV"]["hash"]


def test_metrics_and_health_are_served_in_the_clear(served: Served) -> None:
    served.etcdctl("put", "k", "v")
    with urllib.request.urlopen(f"http://{served.metrics}/health") as answer:
        assert json.load(answer) == {"health": "true", "reason": ""}
    with urllib.request.urlopen(f"http://{served.metrics}/metrics") as answer:
        figures = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if not line.startswith("#"))
    assert figures["etcd_debugging_mvcc_keys_total"] == "1"
    assert figures["etcd_debugging_mvcc_current_revision"] == "2"
    assert int(figures["etcd_disk_wal_fsync_duration_seconds_count"]) > 0
    assert int(figures["etcd_mvcc_db_total_size_in_bytes"]) > 0
    assert figures['grpc_server_started_total{grpc_method="Put",grpc_service="etcdserverpb.KV"}'] == "1"


def test_with_an_authority_only_its_clients_are_served(tmp_path: Path) -> None:
    authority = CertificateAuthority.open(tmp_path / "pki", RealClock())
    server = authority.issue("server", "etcd", hosts=["localhost", "127.0.0.1"], is_server=True)
    client = authority.issue("client", "someone")
    files = {
        "ca": authority.certificate_pem,
        "server": server.certificate,
        "key": server.key,
        "cert": client.certificate,
        "own": client.key,
    }
    for name, pem in files.items():
        (tmp_path / name).write_bytes(pem)
    at = {name: str(tmp_path / name) for name in files}
    options = ("--cert-file", at["server"], "--key-file", at["key"], "--trusted-ca-file", at["ca"])
    one = Served(tmp_path, *options, flags=("--cacert", at["ca"], "--cert", at["cert"], "--key", at["own"]))
    one.start()
    try:
        assert one.lines("put", "k", "v") == ["OK"]
        stranger = ["etcdctl", "--endpoints", one.address, "--cacert", at["ca"], "--command-timeout", "2s", "get", "k"]
        refused = subprocess.run(stranger, capture_output=True, text=True, check=False, env={**os.environ, "ETCDCTL_API": "3"})
        assert refused.returncode != 0 and refused.stdout == ""
    finally:
        one.end()


def test_what_was_acknowledged_is_there_after_kill_9_and_a_watch_resumes(served: Served) -> None:
    revisions = []
    for number in range(20):
        revisions.append(served.show("put", "k", str(number))["header"]["revision"])
    served.end(signal.SIGKILL)
    served.start()
    found = served.show("get", "k")
    (kv,) = found["kvs"]
    assert base64.b64decode(kv["value"]) == b"19"
    assert (kv["mod_revision"], found["header"]["revision"], kv["version"]) == (revisions[-1], revisions[-1], 20)
    assert served.show("put", "k", "20")["header"]["revision"] == revisions[-1] + 1


def test_it_stops_in_order_when_told_to(served: Served) -> None:
    served.etcdctl("put", "k", "v")
    watch = subprocess.Popen(["etcdctl", "--endpoints", served.address, "watch", "k"], env={**os.environ, "ETCDCTL_API": "3"})
    try:
        assert served.end() == 0
    finally:
        watch.kill()
        watch.wait()


def test_a_whole_server_shows_its_store_to_the_holder_of_its_etcd_certificate(tmp_path: Path) -> None:
    cluster, address = Cluster(tmp_path), f"127.0.0.1:{_free_port()}"
    cluster.up("--nodes", "0", "--sim-nodes", "1", "--etcd-listen", address)
    try:
        pki = cluster.data_dir / "pki" / "etcd"
        flags = ["--cacert", pki / "ca.crt", "--cert", pki / "client.crt", "--key", pki / "client.key"]
        command = ["etcdctl", "--endpoints", address, *flags, "get", "/registry/", "--prefix", "--keys-only"]
        found = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "ETCDCTL_API": "3"})
        assert "/registry/core/namespaces/kube-system" in found.stdout.splitlines()
    finally:
        cluster.down()


@pytest.mark.skipif(shutil.which("go") is None, reason="porcupine and etcd's client library are Go")
def test_histories_of_concurrent_clients_under_kill_9_are_linearizable(tmp_path: Path) -> None:
    """One order explains every answer; no acknowledged write is lost, none invented; watches keep etcd's promises over restarts."""
    checker = tmp_path / "linearizability"
    subprocess.run(["go", "build", "-o", checker, "."], cwd=LINEARIZABILITY, check=True, capture_output=True)
    address = f"127.0.0.1:{_free_port()}"
    command = [BIN / "korch", "store", "serve", "--data-dir", tmp_path / "store", "--listen-client", address, "--log-level", "error"]
    options = ["-endpoint", address, "-seconds", "12", "-kills", "4"]
    done = subprocess.run([checker, *options, "--", *command], capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("Ok")
