"""The two arms of the CRI contract: a private containerd in a network namespace of its own, and the fake runtime."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from korch_agent import cni
from korch_agent.containerd import Containerd, import_images, teardown
from korch_agent.cri.grpc import GrpcRuntime
from korch_agent.local_images import build_busybox_tar, build_pause_tar

POD_CIDR = "10.211.0.0/24"


def can_run_containerd() -> str:
    """Return "" when this machine can run containers, else why not."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [name for name in ("containerd", "runc", "busybox", "nsenter", "ip") if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


@asynccontextmanager
async def private_containerd() -> AsyncIterator[tuple[Containerd, GrpcRuntime]]:
    """Run a containerd with a pod network of its own; on exit nothing of it is left."""
    directory = Path(tempfile.mkdtemp(prefix="korch-cri-"))
    netns = f"korch-test-{directory.name[-8:]}"
    subprocess.run(["ip", "netns", "add", netns], check=True)
    subprocess.run(["ip", "-n", netns, "link", "set", "lo", "up"], check=True)
    containerd = Containerd(directory)
    try:
        await containerd.start(netns=f"/run/netns/{netns}")
        for tar in (build_pause_tar(directory / "pause.tar"), build_busybox_tar(directory / "busybox.tar")):
            await import_images(str(containerd.socket), tar)
        config = cni.conflist(name=containerd.layout.cni_network, pod_cidr=POD_CIDR, data_dir=containerd.layout.cni_data)
        (containerd.layout.cni_config / cni.CONFLIST).write_bytes(config)
        runtime = GrpcRuntime(str(containerd.socket))
        try:
            yield containerd, runtime
        finally:
            await runtime.close()
    finally:
        await asyncio.get_running_loop().run_in_executor(None, teardown, directory, f"/run/netns/{netns}")
        subprocess.run(["ip", "netns", "delete", netns], check=False)
        shutil.rmtree(directory)
