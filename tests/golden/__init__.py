"""Whole answers, kept as files and compared to the letter. `KORCH_GOLDEN=write` writes them anew: read the difference, then commit."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

HERE = Path(__file__).resolve().parent


def check(name: str, text: str) -> None:
    """Compare `text` with the file `name` (a path below this directory)."""
    file = HERE / name
    if os.environ.get("KORCH_GOLDEN") == "write":
        file.write_text(text)
    assert file.exists(), f"{name} is missing: run with KORCH_GOLDEN=write"
    wanted = file.read_text()
    differences = "\n".join(difflib.unified_diff(wanted.splitlines(), text.splitlines(), "as it should be", "as it is", lineterm=""))
    assert text == wanted, f"{name} differs:\n{differences}"
