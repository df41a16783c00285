"""A containerd that belongs to one node: its own root, state, socket, configuration, CNI directories and cgroup root.

Nothing of the system's containerd is touched. `Containerd` writes the configuration, starts the daemon and waits until CRI
answers; `teardown` takes away everything that a node's containerd can leave behind (containers, shims, mounts, network
namespaces, control groups, CNI results), also after it was killed. containerd outlives the agent on purpose: a restarted agent
finds it by its pid file and its containers keep running.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import orjson

from korch.runtime.log import get_logger
from korch_agent import cni
from korch_agent.cgroups import Cgroups
from korch_agent.cri.grpc import GrpcRuntime
from korch_agent.cri.protocol import CriError
from korch_agent.dns import interface
from korch_agent.images import import_images
from korch_agent.local_images import PAUSE_IMAGE

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
# Of the 108 bytes that a socket address holds; a shim adds ".ttrpc" to ours.
SOCKET_PATH_MAX = 100
CAP_SYS_RESOURCE = 24
CNI_BIN_DIRS = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")
SHIM_SOCKETS = Path("/run/containerd/s")
CNI_RESULTS = Path("/var/lib/cni/results")

__all__ = ["Containerd", "ContainerdFailed", "Layout", "cni_bin_dir", "import_images", "render_config", "teardown"]

log = get_logger("containerd")


class ContainerdFailed(RuntimeError):
    """containerd is not installed, or did not come up."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where one node's containerd keeps its things; everything follows from the node's data directory."""

    data_dir: Path

    @property
    def root(self) -> Path:
        return self.data_dir / "containerd"

    @property
    def state(self) -> Path:
        return self.data_dir / "run"

    @property
    def socket(self) -> Path:
        return self.data_dir / "containerd.sock"

    @property
    def config(self) -> Path:
        return self.data_dir / "containerd.toml"

    @property
    def log(self) -> Path:
        return self.data_dir / "containerd.log"

    @property
    def pid_file(self) -> Path:
        return self.data_dir / "containerd.pid"

    @property
    def cgroup_file(self) -> Path:
        """Return the file that remembers the cgroup root, for teardown."""
        return self.data_dir / "cgroup-root"

    @property
    def proxy_file(self) -> Path:
        """Return the file that says that a service proxy has run here, for teardown."""
        return self.data_dir / "proxy-ran"

    @property
    def cni_config(self) -> Path:
        return self.data_dir / "cni" / "net.d"

    @property
    def cni_data(self) -> Path:
        return self.data_dir / "cni" / "data"

    @property
    def instance(self) -> str:
        """Return eight characters that name this data directory on this machine."""
        return hashlib.sha256(str(self.data_dir.resolve()).encode()).hexdigest()[:8]

    @property
    def cgroup_root(self) -> str:
        return f"/korch-{self.instance}"

    @property
    def cni_network(self) -> str:
        return f"korch-{self.instance}"


def cni_bin_dir() -> str:
    """Return the directory that holds the standard CNI plugins. Raises ContainerdFailed when none does."""
    for directory in CNI_BIN_DIRS:
        if os.path.exists(os.path.join(directory, "bridge")):
            return directory
    raise ContainerdFailed("the CNI plugins are not installed; install containernetworking-plugins")


def render_config(layout: Layout, *, pause_image: str = PAUSE_IMAGE, restrict_oom_score_adj: bool | None = None) -> str:
    """Return containerd's configuration (version 2, understood by 1.6 and 2.x).

    `restrict_oom_score_adj` None: only when this process may not lower scores (no CAP_SYS_RESOURCE).
    """
    restrict = not has_capability(CAP_SYS_RESOURCE) if restrict_oom_score_adj is None else restrict_oom_score_adj

    def quoted(value: object) -> str:
        return orjson.dumps(str(value)).decode()

    cri = '[plugins."io.containerd.grpc.v1.cri"'
    return "\n".join(
        (
            "version = 2",
            f"root = {quoted(layout.root)}",
            f"state = {quoted(layout.state)}",
            'disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", '
            '"io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt", '
            '"io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]',
            "[grpc]",
            f"  address = {quoted(layout.socket)}",
            "  max_recv_message_size = 67108864",
            "  max_send_message_size = 67108864",
            f"{cri}]",
            f"  sandbox_image = {quoted(pause_image)}",
            '  stream_server_address = "127.0.0.1"',
            '  stream_server_port = "0"',
            "  netns_mounts_under_state_dir = true",
            f"  restrict_oom_score_adj = {'true' if restrict else 'false'}",
            "  max_container_log_line_size = 16384",
            f"{cri}.cni]",
            f"  bin_dir = {quoted(cni_bin_dir())}",
            f"  conf_dir = {quoted(layout.cni_config)}",
            f"{cri}.containerd]",
            '  snapshotter = "overlayfs"',
            '  default_runtime_name = "runc"',
            f"{cri}.containerd.runtimes.runc]",
            '  runtime_type = "io.containerd.runc.v2"',
            f"{cri}.containerd.runtimes.runc.options]",
            "  SystemdCgroup = false",
            f"  Root = {quoted(layout.state / 'runc')}",
            "",
        )
    )


def has_capability(number: int) -> bool:
    """Return whether this process holds the capability `number` in its effective set."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


class Containerd:
    """One node's containerd below `data_dir`. Either the caller runs `arguments()` itself, or `start` and `stop` do."""

    def __init__(self, data_dir: Path, *, cgroup_root: str = "", pause_image: str = PAUSE_IMAGE, binary: str = "containerd") -> None:
        self.layout = Layout(Path(data_dir).resolve())
        self.cgroup_root = cgroup_root or self.layout.cgroup_root
        self._pause_image = pause_image
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def prepare(cls, data_dir: Path, *, cgroup_root: str = "", pause_image: str = PAUSE_IMAGE) -> Containerd:
        """Return a Containerd whose directories, configuration and cgroup root are made. Blocks. Raises ContainerdFailed."""
        containerd = cls(data_dir, cgroup_root=cgroup_root, pause_image=pause_image)
        containerd.write()
        return containerd

    @property
    def socket(self) -> Path:
        """Return the path of the socket that serves CRI and containerd's own API."""
        return self.layout.socket

    def arguments(self) -> list[str]:
        """Return the command line of the daemon. Raises ContainerdFailed when it is not installed."""
        binary = shutil.which(self._binary)
        if binary is None:
            raise ContainerdFailed(f"{self._binary} is not installed")
        return [binary, "--config", str(self.layout.config)]

    def write(self) -> None:
        """Make what the daemon needs before it starts. Blocks. Raises ContainerdFailed."""
        layout = self.layout
        if len(str(layout.socket)) > SOCKET_PATH_MAX:
            raise ContainerdFailed(f"the data directory's path is too long for a Unix socket: {layout.data_dir}")
        for directory in (layout.root, layout.state, layout.cni_config, layout.cni_data):
            directory.mkdir(parents=True, exist_ok=True)
        layout.config.write_text(render_config(layout, pause_image=self._pause_image))
        layout.cgroup_file.write_text(self.cgroup_root + "\n")
        Cgroups(self.cgroup_root).create()

    async def start(self, *, netns: str = "") -> None:
        """Start the daemon, or adopt the one that runs, and return when CRI answers. Raises ContainerdFailed.

        `netns` is the path of a network namespace to run in; by default the caller's.
        """
        await asyncio.get_running_loop().run_in_executor(None, self.write)
        if running_pid(self.layout) is None:
            self._spawn(netns)
        await self._wait_ready()

    def alive(self) -> bool:
        """Return whether the daemon that `start` began or adopted runs."""
        if self._process is not None and self._process.poll() is not None:
            return False
        return running_pid(self.layout) is not None

    async def stop(self) -> None:
        """End the daemon that `start` began; containers keep running under their shims. Not running is no error."""
        pid = running_pid(self.layout)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            await _wait_gone(pid, STOP_TIMEOUT_S)
        if self._process is not None:
            self._process.poll()
        self.layout.pid_file.unlink(missing_ok=True)

    def _spawn(self, netns: str) -> None:
        enter = ["nsenter", f"--net={netns}"] if netns else []
        with self.layout.log.open("ab") as output:
            self._process = subprocess.Popen(
                [*enter, *self.arguments()], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self.layout.pid_file.write_text(str(self._process.pid))
        log.info("containerd started", pid=self._process.pid, socket=str(self.socket))

    async def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            if self._process is not None and self._process.poll() is not None:
                raise ContainerdFailed(f"containerd ended with {self._process.returncode}: {_tail(self.layout.log)}")
            problem = await _ask(self.socket)
            if not problem:
                return
            if time.monotonic() > deadline:
                raise ContainerdFailed(f"containerd does not answer: {problem}: {_tail(self.layout.log)}")
            await asyncio.sleep(0.05)


async def _ask(socket: Path) -> str:
    """Return "" when CRI answers on `socket`, else what is wrong."""
    runtime = GrpcRuntime(str(socket))
    try:
        async with asyncio.timeout(2):
            await runtime.version()
        return ""
    except (CriError, ConnectionError, TimeoutError) as error:
        return str(error) or type(error).__name__
    finally:
        await runtime.close()


def running_pid(layout: Layout) -> int | None:
    """Return the pid of the containerd that runs with this layout's configuration, or None."""
    try:
        pid = int(layout.pid_file.read_text())
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if _is_running(pid) and str(layout.config).encode() in arguments else None


def teardown(data_dir: Path, netns: str = "") -> None:
    """Stop what runs below `data_dir` and remove what the node left on the machine; the files in `data_dir` stay. Blocks.

    `netns` is the path of the node's network namespace when it has one. Works on a healthy node, on one whose containerd was
    killed, and on one that was torn down before. A containerd that somebody else supervises is used, and left to them.
    """
    layout = Layout(Path(data_dir).resolve())
    sandboxes = asyncio.run(_end_containers(layout))
    _sweep(layout, sandboxes)
    cni.teardown(layout.data_dir, netns)
    interface.remove(netns)
    if layout.proxy_file.exists():
        # The proxy's rules outlive it on purpose, so that a successor takes over without a gap; here there will be none.
        enter = ["nsenter", f"--net={netns}"] if netns else []
        subprocess.run([*enter, sys.executable, "-m", "korch", "proxy", "--cleanup"], capture_output=True, check=False)
        layout.proxy_file.unlink()


async def _end_containers(layout: Layout) -> list[str]:
    sandboxes: list[str] = []
    if not await _ask(layout.socket):
        sandboxes = await _remove_sandboxes(str(layout.socket))
    await Containerd(layout.data_dir).stop()
    return sandboxes


async def _remove_sandboxes(socket: str) -> list[str]:
    runtime = GrpcRuntime(socket)
    try:
        sandboxes = await runtime.list_sandboxes()
        containers = await runtime.list_containers()
        gate = asyncio.Semaphore(4)

        async def remove(sandbox_id: str) -> None:
            async with gate:
                for container in containers:
                    if container.sandbox_id == sandbox_id:
                        await runtime.stop_container(container.id, 0)
                await runtime.stop_sandbox(sandbox_id)
                await runtime.remove_sandbox(sandbox_id)

        results = await asyncio.gather(*(remove(one.id) for one in sandboxes), return_exceptions=True)
        for one, result in zip(sandboxes, results, strict=True):
            if isinstance(result, BaseException):
                log.warning("sandbox not removed through CRI; it is swept away", sandbox=one.id, error=str(result))
        return [one.id for one in sandboxes]
    except (CriError, ConnectionError, grpc.aio.AioRpcError) as error:
        log.warning("containerd does not list its sandboxes; they are swept away", error=str(error))
        return []
    finally:
        await runtime.close()


def _sweep(layout: Layout, sandboxes: list[str]) -> None:
    """Remove by hand what containerd did not. Blocks."""
    addresses = [
        file.read_text().strip().removeprefix("unix://") for file in layout.state.glob("io.containerd.runtime.v2.task/*/*/address")
    ]
    sandboxes = sandboxes + [file.parent.name for file in layout.state.glob("io.containerd.runtime.v2.task/*/*/address")]
    cgroup_root = layout.cgroup_file.read_text().strip() if layout.cgroup_file.exists() else layout.cgroup_root
    cgroups = Cgroups(cgroup_root)
    cgroups.kill()
    _kill_shims(layout)
    for address in addresses:
        Path(address).unlink(missing_ok=True)
    for _ in range(3):
        if not _unmount_below(layout.data_dir):
            break
    if not cgroups.remove():
        log.warning("some control groups are still busy", cgroup=cgroup_root)
    if CNI_RESULTS.is_dir():
        for file in CNI_RESULTS.iterdir():
            if file.name.startswith(f"{layout.cni_network}-") or any(f"-{one}-" in file.name for one in sandboxes):
                file.unlink(missing_ok=True)
    for directory in (SHIM_SOCKETS, SHIM_SOCKETS.parent, CNI_RESULTS, CNI_RESULTS.parent):
        with contextlib.suppress(OSError):
            directory.rmdir()  # Only when empty: somebody else's containerd may use them too.


def _kill_shims(layout: Layout) -> None:
    """Kill the shims that were started by this layout's containerd: they carry its address on their command line."""
    ours = f"{layout.socket}".encode()
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        pids = [pid for pid, arguments in _processes() if b"containerd-shim" in arguments[0] and ours in arguments]
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _processes() -> list[tuple[int, list[bytes]]]:
    found: list[tuple[int, list[bytes]]] = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                found.append((int(entry), Path("/proc", entry, "cmdline").read_bytes().split(b"\0")))
    return found


def _unmount_below(directory: Path) -> bool:
    """Detach every mount at or below `directory`, innermost first; return whether there was one."""
    prefix = str(directory)
    points: list[str] = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point == prefix or point.startswith(prefix + "/"):
            points.append(point)
    for point in reversed(points):
        done = subprocess.run(["umount", "-l", point], capture_output=True, text=True)
        if done.returncode != 0:
            log.warning("mount not removed", mount=point, error=done.stderr.strip())
    return bool(points)


async def _wait_gone(pid: int, timeout_s: float) -> None:
    """Await the end of a process that may be nobody's child here; after `timeout_s` it is killed."""
    deadline = time.monotonic() + timeout_s
    while _is_running(pid):
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.02)


def _is_running(pid: int) -> bool:
    """Return whether the process lives; a zombie, whose parent has not looked yet, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _tail(path: Path, size: int = 2000) -> str:
    try:
        return path.read_bytes()[-size:].decode(errors="replace")
    except OSError:
        return ""
