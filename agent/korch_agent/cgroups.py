"""Control groups of one node: a root of its own, the quality-of-service parents below it, and limits, on cgroup v1 and v2.

A node keeps all its pods under one root (such as `/korch-1a2b3c4d`), so that nodes on one machine do not mix and taking the
node away is removing one subtree. Version 1 has a tree for each controller and cpuset must be filled by hand before use;
version 2 has one tree whose controllers are switched on level by level. A hybrid machine has version 1 trees plus a bare
version 2 tree at `unified`, in which runc makes the same paths.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
CONTROLLERS = ("cpu", "cpuset", "memory", "pids", "io", "hugetlb")
CPU_PERIOD_US = 100_000
SHARES_MIN = 2
SHARES_MAX = 262_144


class Cgroups:
    """The control groups below `root` (an absolute path inside every hierarchy)."""

    def __init__(self, root: str, *, mount: Path = MOUNT) -> None:
        self.root = "/" + root.strip("/")
        self._mount = mount
        self.is_v2 = (mount / "cgroup.controllers").exists()

    def create(self, path: str = "") -> None:
        """Make the group `root/path` in every hierarchy, ready to hold processes and children. Blocks; existing is no error."""
        relative = (self.root + "/" + path.strip("/")).strip("/")
        if self.is_v2:
            self._create_v2(relative)
            return
        for hierarchy in self._hierarchies():
            directory = hierarchy
            for part in relative.split("/"):
                directory = directory / part
                directory.mkdir(exist_ok=True)
                _inherit_cpuset(directory)

    def set_limits(self, path: str, *, cpu_shares: int | None, cpu_quota: int | None, memory_limit: int | None) -> None:
        """Write limits of the group `root/path`: shares, microseconds per 100 ms period (-1: none), bytes (-1: none)."""
        relative = (self.root + "/" + path.strip("/")).strip("/")
        if self.is_v2:
            directory = self._mount / relative
            if cpu_shares is not None:
                _write(directory / "cpu.weight", str(weight_of(cpu_shares)))
            if cpu_quota is not None:
                _write(directory / "cpu.max", f"{'max' if cpu_quota < 0 else cpu_quota} {CPU_PERIOD_US}")
            if memory_limit is not None:
                _write(directory / "memory.max", "max" if memory_limit < 0 else str(memory_limit))
            return
        if cpu_shares is not None:
            _write(self._mount / "cpu" / relative / "cpu.shares", str(cpu_shares))
        if cpu_quota is not None:
            _write(self._mount / "cpu" / relative / "cpu.cfs_period_us", str(CPU_PERIOD_US))
            _write(self._mount / "cpu" / relative / "cpu.cfs_quota_us", str(cpu_quota))
        if memory_limit is not None:
            _write(self._mount / "memory" / relative / "memory.limit_in_bytes", str(memory_limit))

    def remove(self, path: str = "") -> bool:
        """Remove the group and what is below it where no process is left; return whether all of it is gone. Blocks."""
        relative = (self.root + "/" + path.strip("/")).strip("/")
        gone = True
        for top in self._all_trees():
            directory = top / relative
            if directory.is_dir():
                gone = _remove_tree(directory) and gone
        return gone

    def kill(self, path: str = "", *, timeout_s: float = 5.0) -> None:
        """Kill every process in the group and below it, and wait until none is left. Blocks."""
        relative = (self.root + "/" + path.strip("/")).strip("/")
        deadline = time.monotonic() + timeout_s
        while pids := set(self._processes(relative)):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                return
            time.sleep(0.02)

    def memory_working_set(self, path: str) -> int | None:
        """Return bytes in use without inactive page cache, or None when the group is gone."""
        relative = (self.root + "/" + path.strip("/")).strip("/")
        base = self._mount / relative if self.is_v2 else self._mount / "memory" / relative
        try:
            used = int((base / ("memory.current" if self.is_v2 else "memory.usage_in_bytes")).read_text())
            key = "inactive_file" if self.is_v2 else "total_inactive_file"
            stat = dict(line.split() for line in (base / "memory.stat").read_text().splitlines())
        except (FileNotFoundError, OSError):
            return None
        return max(0, used - int(stat.get(key, 0)))

    def cpu_usage_ns(self, path: str) -> int | None:
        """Return CPU nanoseconds used so far, or None when the group is gone."""
        relative = (self.root + "/" + path.strip("/")).strip("/")
        try:
            if self.is_v2:
                stat = dict(line.split() for line in (self._mount / relative / "cpu.stat").read_text().splitlines())
                return int(stat["usage_usec"]) * 1000
            return int((self._mount / "cpuacct" / relative / "cpuacct.usage").read_text())
        except (FileNotFoundError, OSError):
            return None

    def _create_v2(self, relative: str) -> None:
        directory = self._mount
        for part in relative.split("/"):
            available = set((directory / "cgroup.controllers").read_text().split())
            for controller in CONTROLLERS:
                if controller in available:
                    _write(directory / "cgroup.subtree_control", f"+{controller}", missing_ok=True)
            directory = directory / part
            directory.mkdir(exist_ok=True)

    def _hierarchies(self) -> list[Path]:
        """Return the version 1 trees, each once: `cpu` may be a link to `cpu,cpuacct`."""
        seen: dict[str, Path] = {}
        for entry in sorted(self._mount.iterdir()):
            if entry.is_dir() and entry.name != "unified" and (entry / "cgroup.procs").exists():
                seen.setdefault(os.path.realpath(entry), entry)
        return list(seen.values())

    def _all_trees(self) -> list[Path]:
        if self.is_v2:
            return [self._mount]
        unified = self._mount / "unified"
        return self._hierarchies() + ([unified] if unified.is_dir() else [])

    def _processes(self, relative: str) -> Iterator[int]:
        for top in self._all_trees():
            for directory, _, _ in os.walk(top / relative):
                try:
                    yield from (int(line) for line in Path(directory, "cgroup.procs").read_text().split())
                except OSError:
                    continue  # The group vanished while we walked, or is a threaded one, whose parent lists its processes.


def shares_of(milli_cpu: int) -> int:
    """Return version 1 cpu.shares for thousandths of a CPU. Mirrors kubelet's MilliCPUToShares."""
    return SHARES_MIN if milli_cpu == 0 else max(SHARES_MIN, min(SHARES_MAX, milli_cpu * 1024 // 1000))


def quota_of(milli_cpu: int) -> int:
    """Return microseconds per period for thousandths of a CPU, at least 1,000; 0 stays 0 ("no limit")."""
    return 0 if milli_cpu == 0 else max(1000, milli_cpu * CPU_PERIOD_US // 1000)


def weight_of(shares: int) -> int:
    """Return version 2 cpu.weight for version 1 shares: the quadratic mapping through (2,1), (1024,100) and (262144,10000)."""
    if shares <= SHARES_MIN:
        return 1
    if shares >= SHARES_MAX:
        return 10_000
    log2 = math.log2(shares)
    return math.ceil(10 ** ((log2 * log2 + 125 * log2) / 612 - 7 / 34))


def _inherit_cpuset(directory: Path) -> None:
    """Copy cpus and mems of the parent: a version 1 cpuset group that has none accepts no process."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = directory / name
        if file.exists() and not file.read_text().strip():
            file.write_text((directory.parent / name).read_text())


def _write(file: Path, value: str, *, missing_ok: bool = False) -> None:
    try:
        file.write_text(value)
    except OSError:
        if not missing_ok:
            raise


def _remove_tree(directory: Path) -> bool:
    gone = True
    for parent, children, _ in os.walk(directory, topdown=False):
        for child in children:
            gone = _rmdir(Path(parent, child)) and gone
    return _rmdir(directory) and gone


def _rmdir(directory: Path) -> bool:
    # The kernel needs a moment to let go of a group whose last process just died.
    for _ in range(50):
        try:
            directory.rmdir()
            return True
        except FileNotFoundError:
            return True
        except OSError:
            time.sleep(0.01)
    return False
