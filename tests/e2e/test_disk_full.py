"""A disk that is really full: a store and a whole server on a tmpfs of a few MiB.

It is mounted in a mount namespace of its own, which a sleeping process holds and which is gone, mount and all, when that process is.
Others look into it through /proc/PID/root.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import BIN, Cluster

MIB = 1 << 20
FULL = "the store cannot write: the disk is full, so nothing was written"


class SmallDisk:
    """A tmpfs of `size` bytes at `mounted`, for processes started by `run` or `start`; `path` is the same place for everybody else."""

    def __init__(self, root: Path, size: int) -> None:
        self.mounted = root / "disk"
        self.mounted.mkdir()
        script = 'mount -t tmpfs -o size="$1" tmpfs "$2" && echo mounted && exec sleep infinity'
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script, "sh", str(size), str(self.mounted)], stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout is not None and self._holder.stdout.readline() == "mounted\n"
        self.path = Path(f"/proc/{self._holder.pid}/root{self.mounted}")

    def inside(self, *command: str | Path) -> list[str]:
        """Return the command that runs `command` where the disk is mounted."""
        return ["nsenter", "--mount", "--target", str(self._holder.pid), "--", *map(str, command)]

    def fill(self, *, left: int = 0) -> None:
        """Take all the room there is but `left` bytes."""
        room = os.statvfs(self.path)
        with (self.path / "filler").open("ab") as filler:
            os.posix_fallocate(filler.fileno(), filler.tell(), max(1, room.f_bavail * room.f_frsize - left))

    def free(self) -> None:
        (self.path / "filler").unlink()

    def end(self) -> None:
        self._holder.kill()
        self._holder.wait()


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    root = Path(tempfile.mkdtemp(prefix="korch-full-"))
    disk = SmallDisk(root, 8 * MIB)
    try:
        yield disk
    finally:
        disk.end()
        shutil.rmtree(root)


WRITER = """
import asyncio, os, sys
from korch._core import native
from korch.runtime import log
from korch.runtime.context import Runtime
from korch.storage import Storage

log.configure(level="error")

async def main():
    storage = Storage.open(sys.argv[1] + "/store", Runtime())
    async def write(number):
        key = b"/k/%d" % number
        await storage.commit([(key, b"x" * 3000, 0, -1, {}, {}, [])])
        return key
    answered, refused, number = [], 0, 0
    async def burst():
        nonlocal refused, number
        names = range(number, number + 16)
        number += 16
        for answer in await asyncio.gather(*map(write, names), return_exceptions=True):
            if isinstance(answer, bytes):
                answered.append(answer)
            else:
                assert isinstance(answer, native.StoreFull), repr(answer)
                assert "the disk is full" in str(answer), answer
                refused += 1
    while refused < 100:
        await burst()
    before = len(answered)
    assert sorted(storage.range(b"/k/").keys) == sorted(answered), "reads go on, and show what was answered"
    assert "the disk is full" in storage.problem() or "No space" in storage.problem(), storage.problem()
    print("full", flush=True)
    sys.stdin.readline()
    while storage.problem():
        await asyncio.sleep(0.01)
    refused = 0
    await burst()
    assert refused == 0 and len(answered) == before + 16
    await storage.close()
    again = native.Store(sys.argv[1] + "/store")
    assert sorted(again.range(b"/k/").keys) == sorted(answered)
    again.close()
    print(before, flush=True)

asyncio.run(main())
"""


def test_a_store_on_a_full_disk_refuses_reads_on_and_writes_again_when_there_is_room(disk: SmallDisk) -> None:
    disk.fill(left=4 * MIB)
    writer = subprocess.Popen(
        disk.inside(sys.executable, "-c", WRITER, disk.mounted), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdin is not None and writer.stdout is not None
    assert writer.stdout.readline() == "full\n"
    disk.free()
    written, _ = writer.communicate("go on\n")
    assert writer.returncode == 0
    assert int(written) > 300, "the room that there was has been used"


class Small(Cluster):
    """A server alone, on the small disk."""

    def __init__(self, disk: SmallDisk, root: Path) -> None:
        super().__init__(root)
        self.disk = disk
        self.data_dir = disk.path / "data"
        self._log = root / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = self.disk.inside(
            BIN / "korch", "server", "--data-dir", self.disk.mounted / "data", "--bind", self.bind, "--sim-nodes", "1"
        )
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        self.eventually(lambda: (self.data_dir / "kubeconfig").exists(), "credentials")
        self.eventually(self.is_ready, "a ready server")

    def is_ready(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self.logs()
        return self.try_kubectl("get", "--raw", "/readyz").stdout == "ok"

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def logs(self) -> str:
        return self._log.read_text()[-3000:]


@pytest.fixture
def server(disk: SmallDisk, tmp_path: Path) -> Iterator[Small]:
    server = Small(disk, tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def config_map(name: str) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"filling": "x" * 100_000}})


def test_a_server_on_a_full_disk_says_so_serves_reads_and_recovers_by_itself(server: Small) -> None:
    server.kubectl("create", "-f", "-", text=config_map("first"))
    server.disk.fill()
    made = ["first"]
    while True:
        name = f"c{len(made)}"
        done = server.try_kubectl("create", "-f", "-", text=config_map(name))
        if done.returncode != 0:
            break
        made.append(name)
    assert "Error from server (InternalError)" in done.stderr and FULL in done.stderr, done.stderr
    status = server.try_kubectl("create", "-f", "-", "--v=8", text=config_map(name)).stderr
    assert '"kind": "Status"' in status and '"reason": "InternalError"' in status and '"code": 500' in status, status[-2000:]

    assert server.refused("get", "--raw", "/readyz").count("[-]storage-readiness failed: reason withheld") == 1
    assert server.kubectl("get", "--raw", "/livez") == "ok", "a restart would not help"
    names = {one["metadata"]["name"] for one in server.get("configmaps")["items"]}
    assert names == {*made, "kube-root-ca.crt"}
    assert len(server.get("configmap", "first")["data"]["filling"]) == 100_000

    server.disk.free()
    server.eventually(server.is_ready, "a server that is ready again, without a write of ours")
    server.kubectl("create", "-f", "-", text=config_map("later"))
    server.kubectl("delete", "configmap", "first")
    server.kubectl("create", "deployment", "web", "--image=web")
    server.wait_for_pods("app=web", 1)
    server.stop()
    server.start()
    names = {one["metadata"]["name"] for one in server.get("configmaps")["items"]}
    assert names == {*made[1:], "later", "kube-root-ca.crt"}
