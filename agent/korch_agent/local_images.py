"""Container images made from what this machine has, for clusters that reach no registry.

An image archive is a `docker save` tar: a manifest, one config and one layer, in file order that never changes, with zero
times, so that the same input gives the same digests. `build_pause_tar` compiles a pause program (or falls back to busybox);
`build_busybox_tar` holds Debian's busybox-static with a link for each applet.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

BUSYBOX_IMAGE = "docker.io/library/busybox:latest"
NEXT_BUSYBOX_IMAGE = "docker.io/library/busybox:next"
PAUSE_IMAGE = "registry.k8s.io/pause:3.10.2"

# Waits for a signal for ever and reaps the children that the pod's shared process namespace leaves to it.
_PAUSE_SOURCE = r"""
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void leave(int number) { (void)number; _exit(0); }
static void reap(int number) { (void)number; while (waitpid(-1, 0, WNOHANG) > 0) { } }
int main(void) {
  signal(SIGINT, leave);
  signal(SIGTERM, leave);
  signal(SIGCHLD, reap);
  for (;;) pause();
}
"""


class ImageToolMissing(RuntimeError):
    """A program that an image is made from is not installed."""


def build_busybox_tar(path: Path, *, image: str = BUSYBOX_IMAGE, names: Sequence[str] = ()) -> Path:
    """Write an image archive with busybox at `path` and return it; `names` are further tags. Blocks.

    Raises ImageToolMissing when no static busybox is installed.
    """
    binary = _busybox()
    applets = subprocess.run([binary, "--list"], check=True, capture_output=True, text=True).stdout.split()
    files: dict[str, bytes | str] = {"bin/busybox": Path(binary).read_bytes()}
    files |= {f"bin/{applet}": "/bin/busybox" for applet in applets if applet != "busybox"}
    files["etc/passwd"] = (
        b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
    )
    files["etc/group"] = b"root:x:0:\ndaemon:x:1:\nnobody:x:65534:\n"
    directories = ("bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr", "usr/bin", "var", "var/www")
    write_image(path, [image, *names], files, directories=directories, command=["sh"])
    return path


def build_pause_tar(path: Path, *, image: str = PAUSE_IMAGE) -> Path:
    """Write an image archive with a static pause program at `path` and return it. Blocks.

    Raises ImageToolMissing when there is neither a C compiler nor busybox.
    """
    pause = _compile(_PAUSE_SOURCE)
    if pause is not None:
        write_image(path, [image], {"pause": pause}, entrypoint=["/pause"])
    else:
        busybox = Path(_busybox()).read_bytes()
        write_image(path, [image], {"bin/busybox": busybox}, directories=("bin",), entrypoint=["/bin/busybox", "sleep", "2147483647"])
    return path


def write_image(
    path: Path,
    names: Sequence[str],
    files: Mapping[str, bytes | str],
    *,
    directories: Sequence[str] = (),
    entrypoint: Sequence[str] = (),
    command: Sequence[str] = (),
    environment: Sequence[str] = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",),
    user: str = "",
    working_dir: str = "/",
) -> None:
    """Write a one-layer image archive. `files` maps a path to its content (mode 0755), or to the target of a symbolic link."""
    layer = _layer(files, directories)
    layer_digest = hashlib.sha256(layer).hexdigest()
    config = {
        "architecture": _architecture(),
        "os": "linux",
        "config": {
            "Env": list(environment),
            "Entrypoint": list(entrypoint) or None,
            "Cmd": list(command) or None,
            "WorkingDir": working_dir,
            "User": user,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
        "history": [{"created_by": "korch"}],
    }
    config_bytes = json.dumps(config, sort_keys=True).encode()
    config_name = f"{hashlib.sha256(config_bytes).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": list(names), "Layers": [f"{layer_digest}/layer.tar"]}]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        _add(archive, f"{layer_digest}/layer.tar", layer)
        _add(archive, config_name, config_bytes)
        _add(archive, "manifest.json", json.dumps(manifest).encode())


def _layer(files: Mapping[str, bytes | str], directories: Sequence[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in directories:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(entry)
        for name, content in files.items():
            _add(archive, name, content)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes | str) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode = 0o755
    if isinstance(content, str):
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, content, 0o777
        archive.addfile(entry)
    else:
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))


def _busybox() -> str:
    found = shutil.which("busybox")
    if found is None:
        raise ImageToolMissing("busybox is not installed; install busybox-static")
    return found


def _compile(source: str) -> bytes | None:
    """Return `source` compiled to a static executable, or None without a working C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as directory:
        code, program = Path(directory, "pause.c"), Path(directory, "pause")
        code.write_text(source)
        done = subprocess.run([compiler, "-Os", "-static", "-s", "-o", str(program), str(code)], capture_output=True)
        return program.read_bytes() if done.returncode == 0 else None


def _architecture() -> str:
    import platform

    return {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}.get(platform.machine(), platform.machine())


def main(arguments: Sequence[str]) -> None:
    """Make the images that a node needs, and a second busybox tag for trying rollouts, in the directory given, where missing."""
    directory = Path(arguments[0])
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / "pause.tar").exists():
        build_pause_tar(directory / "pause.tar")
    if not (directory / "busybox.tar").exists():
        build_busybox_tar(directory / "busybox.tar", names=[NEXT_BUSYBOX_IMAGE])


if __name__ == "__main__":
    main(sys.argv[1:])
