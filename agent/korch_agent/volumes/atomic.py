"""Writing a set of files so that a reader sees either all of the old ones or all of the new ones.

The files lie in a directory named by the time of writing; the link `..data` points to it and is replaced by rename(2); what
users see are links by way of `..data`. Only links of names that come or go change outside of it. Mirrors kubelet's AtomicWriter.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

DATA = "..data"


class File(msgspec.Struct, frozen=True):
    """Content and permission bits of one file, and its owner if it has one of its own."""

    content: bytes
    mode: int = 0o644
    user: int | None = None


def write(directory: Path, files: Mapping[str, File], *, group: int | None = None) -> bool:
    """Make `directory` show exactly `files` (relative path -> file); return whether anything changed. Blocks.

    `group` owns the files when given. Raises OSError; ValueError for a path that leaves the directory.
    """
    for path in files:
        if path.startswith("/") or ".." in path.split("/") or path.split("/")[0].startswith(".."):
            raise ValueError(f"invalid path: {path}")
    present = directory / DATA
    if present.is_symlink() and _read(present) == {path: (file.content, file.mode) for path, file in files.items()}:
        return False
    old = os.readlink(present) if present.is_symlink() else None
    fresh = Path(tempfile.mkdtemp(prefix="..2", dir=directory))
    fresh.chmod(0o755)
    for path, file in files.items():
        target = fresh / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(file.content)
        if group is not None or file.user is not None:
            os.chown(target, -1 if file.user is None else file.user, -1 if group is None else group)
        target.chmod(file.mode)
    if group is not None:
        for parent, _, _ in os.walk(fresh):
            os.chown(parent, -1, group)
    link = directory / "..data_tmp"
    with contextlib.suppress(FileNotFoundError):
        link.unlink()
    link.symlink_to(fresh.name)
    link.rename(present)
    _update_links(directory, files)
    if old is not None:
        shutil.rmtree(directory / old, ignore_errors=True)
    return True


def _update_links(directory: Path, files: Mapping[str, File]) -> None:
    wanted = {path.split("/")[0] for path in files}
    for name in wanted:
        link = directory / name
        if not link.is_symlink():
            link.symlink_to(f"{DATA}/{name}")
    for entry in os.listdir(directory):
        if not entry.startswith("..") and entry not in wanted and (directory / entry).is_symlink():
            (directory / entry).unlink()


def _read(data: Path) -> dict[str, tuple[bytes, int]]:
    found: dict[str, tuple[bytes, int]] = {}
    top = data.resolve()
    for parent, _, names in os.walk(top):
        for name in names:
            file = Path(parent, name)
            found[str(file.relative_to(top))] = (file.read_bytes(), file.stat().st_mode & 0o7777)
    return found
