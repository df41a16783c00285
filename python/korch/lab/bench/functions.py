"""The functions that templates may call: Go's comparisons and logic, and the arithmetic of scheduler_perf.

Numbers may come as text, as they do in Go's benchmark; whole results print without a fraction. Mirrors scheduler_perf's template functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import orjson


def shown(value: Any) -> str:
    """Return a value as text/template prints it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _number(value: Any) -> float:
    """Return a number, or text that is one. Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"cannot cast {value!r} to a number")
    return float(value)


def _whole(value: Any) -> int:
    return math.trunc(_number(value))


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _product(*numbers: Any) -> float:
    return math.prod(_number(one) for one in numbers)


def _total(*numbers: Any) -> float:
    return sum(_number(one) for one in numbers)


def _or(*values: Any) -> Any:
    return next((one for one in values if one), values[-1])


def _and(*values: Any) -> Any:
    return next((one for one in values if not one), values[-1])


def _eq(first: Any, *others: Any) -> bool:
    return first in others


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else value[key]
    return value


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "AddFloat": _total,
    "AddInt": lambda *numbers: math.trunc(_total(*numbers)),
    "DivideFloat": lambda a, b: _number(a) / _number(b),
    "DivideInt": lambda a, b: math.trunc(_number(a) / _number(b)),
    "Int": _whole,
    "JSON": _json,
    # As in Go, the sign is the dividend's.
    "Mod": lambda a, b: math.trunc(math.fmod(_whole(a), _whole(b))) if _whole(b) else _whole(a) % 0,
    "MultiplyFloat": _product,
    "MultiplyInt": lambda *numbers: math.trunc(_product(*numbers)),
    "SubtractFloat": lambda a, b: _number(a) - _number(b),
    "SubtractInt": lambda a, b: math.trunc(_number(a) - _number(b)),
    "and": _and,
    "or": _or,
    "not": lambda value: not value,
    "eq": _eq,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "len": len,
    "index": _index,
    "print": lambda *values: "".join(shown(one) for one in values),
    "printf": lambda form, *values: form.replace("%v", "%s") % values,
}
