"""subPath mounts: a file or directory inside a volume, found without leaving the volume.

A container may plant links in a volume that it shares, so the path is walked one component at a time, never through a link that
leads outside of the volume. Mirrors kubelet's subpath mounter in its effect.
"""

from __future__ import annotations

import os
from pathlib import Path

from korch_agent.pods.security import ConfigError


def resolve(volume: Path, sub_path: str, *, create: bool = True) -> Path:
    """Return the path of `sub_path` inside `volume`, making missing directories. Blocks. Raises ConfigError."""
    if sub_path.startswith("/") or ".." in sub_path.split("/"):
        raise ConfigError(f"failed to prepare subPath: {sub_path!r} must be a relative path without '..'", "CreateContainerConfigError")
    top = Path(os.path.realpath(volume))
    at = top
    for part in [part for part in sub_path.split("/") if part not in ("", ".")]:
        at = Path(os.path.realpath(at / part))
        if at != top and top not in at.parents:
            raise ConfigError(f"failed to prepare subPath for volumeMount: {sub_path!r} leads outside of the volume")
        if not at.exists():
            if not create:
                raise ConfigError(f"failed to prepare subPath for volumeMount: {sub_path!r} does not exist")
            owner = at.parent.stat()
            at.mkdir(mode=0o750)
            at.chmod(owner.st_mode & 0o7777)
            os.chown(at, -1, owner.st_gid)
    return at
