"""Durations as Go writes them: `1h30m`, `500ms`, `-1.5s`. Mirrors time.ParseDuration, its refusals included."""

from __future__ import annotations

import re

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)")
_SECONDS_MAX = (2**63 - 1) / 1e9


def parse_duration(text: str) -> float:
    """Return seconds. Raises ValueError with Go's message."""
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0.0
    seconds, position = 0.0, 0
    while position < len(rest):
        part = _PART.match(rest, position)
        if part is None:
            break
        number, unit = part.groups()
        if not unit:
            raise ValueError(f"time: missing unit in duration {quoted}")
        if unit not in _UNITS_S:
            raise ValueError(f'time: unknown unit "{unit}" in duration {quoted}')
        seconds += float(number) * _UNITS_S[unit]
        position = part.end()
    if not rest or position < len(rest) or seconds > _SECONDS_MAX:
        raise ValueError(f"time: invalid duration {quoted}")
    return -seconds if text.startswith("-") else seconds
