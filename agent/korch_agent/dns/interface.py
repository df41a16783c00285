"""The dummy interface that carries the cluster's DNS address on a node, so that the node itself answers there."""

from __future__ import annotations

import subprocess

from korch_agent.dns.server import INTERFACE


def add(address: str) -> None:
    """Give `address` to this network namespace's own dummy interface, made if missing. Blocks. Raises OSError."""
    # Some kernels come without dummy devices; a bridge without ports carries an address just as well.
    if _ip("link", "show", INTERFACE) and _ip("link", "add", INTERFACE, "type", "dummy"):
        _must("link", "add", INTERFACE, "type", "bridge")
    _must("address", "replace", f"{address}/32", "dev", INTERFACE)
    _must("link", "set", INTERFACE, "up")


def remove(netns: str = "") -> None:
    """Remove the interface, in the namespace at the path `netns` or in this one; a missing one is no error. Blocks."""
    enter = ["nsenter", f"--net={netns}", "--"] if netns else []
    subprocess.run([*enter, "ip", "link", "delete", INTERFACE], capture_output=True, check=False)


def _ip(*arguments: str) -> str:
    """Run ip; return "" or what it complained about."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip() or "failed"


def _must(*arguments: str) -> None:
    complaint = _ip(*arguments)
    if complaint:
        raise OSError(f"ip {' '.join(arguments)}: {complaint}")
