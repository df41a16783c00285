"""Asking the supervisor of a cluster on this machine: one JSON line there, one JSON line back, over its Unix socket.

Blocking, and without asyncio, because the commands that ask are short and should start fast.
"""

from __future__ import annotations

import socket
from typing import Any

import orjson

from korch.cmd.layout import Layout


def ask(layout: Layout, request: dict[str, Any], *, timeout_s: float = 30) -> dict[str, Any] | None:
    """Return the supervisor's answer, or None when no supervisor runs for this data directory. Raises TimeoutError. Blocks."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(layout.control_socket))
            connection.sendall(orjson.dumps(request) + b"\n")
            with connection.makefile("rb") as answers:
                line = answers.readline()
        except (FileNotFoundError, ConnectionError):
            return None
    return orjson.loads(line) if line else None
