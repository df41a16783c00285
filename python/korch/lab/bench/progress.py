"""One line on a terminal that says how far a workload is; nothing where nobody looks."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

_EVERY_S = 0.1
_WIDTH = 24


@dataclass(slots=True)
class Progress:
    """Written to standard error when that is a terminal."""

    out: TextIO = field(default_factory=lambda: sys.stderr)
    _shown_at: float = 0.0
    _counted: list[tuple[float, int]] = field(default_factory=list)

    def show(self, title: str, done: int, total: int, unit: str) -> None:
        """Say that `done` of `total` are there; often called, seldom shown."""
        now = time.monotonic()
        if not self.out.isatty() or (now - self._shown_at < _EVERY_S and done < total):
            return
        self._shown_at = now
        self._counted = [*self._counted[-20:], (now, done)]
        (first_at, first), span = self._counted[0], now - self._counted[0][0]
        rate = (done - first) / span if span > 0 and done >= first and first_at < now else 0.0
        full = _WIDTH * done // max(1, total)
        bar = "#" * full + "." * (_WIDTH - full)
        self.out.write(f"\r\x1b[K{title} [{bar}] {done:,}/{total:,} {unit} {rate:,.0f}/s")
        self.out.flush()

    def clear(self) -> None:
        """Take the line away."""
        self._counted.clear()
        if self.out.isatty():
            self.out.write("\r\x1b[K")
            self.out.flush()
