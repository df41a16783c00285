"""Quantities such as `250m`, `1.5Gi` or `2e3`: exact fixed-point numbers with nine decimals, parsed and printed as upstream does.

Arithmetic is done on plain integers: `value` for countable things (bytes, pods), `milli` for CPU. Both round up, since whoever
asks for a little must not get nothing. Mirrors apimachinery's `resource.Quantity`.
"""

from __future__ import annotations

import functools

from korch._core import native

# The same few amounts stand in nearly all objects.
_REMEMBERED = 2048


def value(text: str | int | float) -> int:
    """Return the quantity in whole units, rounded up (away from zero). Raises ValueError."""
    return _value(str(text))


def milli(text: str | int | float) -> int:
    """Return the quantity in thousandths, rounded up (away from zero). Raises ValueError."""
    return _milli(str(text))


def canonical(text: str | int | float) -> str:
    """Return the stored form: `1000m` becomes `1`, `1.5Gi` becomes `1536Mi`, `0.5` becomes `500m`. Raises ValueError."""
    return native.quantity_canonical(str(text))


def from_milli(milli_units: int) -> str:
    """Return the canonical form of `milli_units` thousandths, such as `250m` or `2`."""
    return canonical(f"{milli_units}m")


def from_bytes(count: int) -> str:
    """Return `count` bytes in the canonical binary form, such as `64Mi`; a count below 1024 has no suffix."""
    for power, suffix in enumerate(("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")):
        if power == 6 or count == 0 or count % 1024 ** (power + 1):
            return f"{count // 1024**power}{suffix}"
    return str(count)


@functools.lru_cache(maxsize=_REMEMBERED)
def _value(text: str) -> int:
    return native.quantity_value(text)


@functools.lru_cache(maxsize=_REMEMBERED)
def _milli(text: str) -> int:
    return native.quantity_milli(text)
