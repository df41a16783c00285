"""Spans of time as tests write them: `40s`, `2m`, `1h30m`, `250ms`."""

from __future__ import annotations

import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def seconds(span: str | float) -> float:
    """Return `span` in seconds; numbers are seconds already. Raises ValueError for text that is no span."""
    if not isinstance(span, str):
        return float(span)
    parts = _PART.findall(span)
    if not parts or "".join(number + unit for number, unit in parts) != span:
        raise ValueError(f"not a span of time: {span!r} (write 40s, 2m, 1h30m or 250ms)")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
