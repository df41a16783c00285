"""What each process of a starting cluster loads: the heavy libraries stay out until something needs them."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Each costs a tenth of a second or more, and its memory, in every process that imports it.
HTTP = {"aiohttp", "fastapi", "pydantic", "grpc"}
PARSERS = {"jwt", "cryptography", "prometheus_client"}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("korch.cmd.main", HTTP | PARSERS | {"asyncio", "orjson", "yaml"}),
        ("korch.cmd.up", HTTP | PARSERS | {"asyncio", "yaml"}),
        ("korch.cmd.status", HTTP | PARSERS | {"asyncio", "yaml"}),
        ("korch.cmd.supervise", HTTP | PARSERS | {"yaml"}),
        ("korch.cmd.server", HTTP),
    ],
)
def test_a_process_loads_only_what_it_needs_to_start(module: str, unwanted: set[str]) -> None:
    script = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert unwanted.isdisjoint(loaded)
