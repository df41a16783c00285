"""Mounts of the machine: tmpfs for volumes that must not touch the disk. System calls, no programs are started."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

MS_NOSUID, MS_NODEV = 0x2, 0x4
MNT_DETACH = 0x2

_libc = ctypes.CDLL(None, use_errno=True)


def mount_tmpfs(target: Path, *, size_bytes: int = 0, mode: int = 0o755) -> None:
    """Mount an empty tmpfs of at most `size_bytes` (0: half of memory) on the directory `target`. Raises OSError."""
    options = f"mode={mode:o}" + (f",size={size_bytes}" if size_bytes else "")
    result = _libc.mount(b"tmpfs", os.fsencode(target), b"tmpfs", ctypes.c_ulong(MS_NOSUID | MS_NODEV), options.encode())
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def unmount(target: Path) -> None:
    """Detach whatever is mounted on `target`. Raises OSError."""
    if _libc.umount2(os.fsencode(target), MNT_DETACH) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def is_mounted(target: Path) -> bool:
    """Return whether something is mounted on the directory `target`."""
    try:
        return os.stat(target).st_dev != os.stat(target.parent).st_dev
    except FileNotFoundError:
        return False


def mounts_below(directory: Path) -> list[Path]:
    """Return every mount point at or below `directory`, innermost first."""
    prefix = str(directory)
    found: list[Path] = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point == prefix or point.startswith(prefix + "/"):
            found.append(Path(point))
    return found[::-1]
