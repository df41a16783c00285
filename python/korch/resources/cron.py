"""Whether a text is a cron schedule: five fields, or one of the `@` words. Mirrors the grammar of robfig/cron's standard parser."""

from __future__ import annotations

import re

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
# lowest, highest, names (the first name stands for the lowest)
_FIELDS = ((0, 59, ()), (0, 23, ()), (1, 31, ()), (1, 12, _MONTHS), (0, 6, _DAYS))
_WORDS = frozenset({"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"})
_EVERY = re.compile(r"@every ([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+")


def schedule_error(text: str) -> str:
    """Return why `text` is no schedule, an empty string when it is one."""
    if text.startswith("@"):
        return "" if text in _WORDS or _EVERY.fullmatch(text) else f"unrecognized descriptor: {text}"
    parts = text.split()
    if len(parts) != len(_FIELDS):
        return f"expected exactly {len(_FIELDS)} fields, found {len(parts)}: [{' '.join(parts)}]"
    for part, (lowest, highest, words) in zip(parts, _FIELDS, strict=True):
        for item in part.split(","):
            if error := _item_error(item, lowest, highest, words):
                return error
    return ""


def _item_error(item: str, lowest: int, highest: int, words: tuple[str, ...]) -> str:
    span, slash, step = item.partition("/")
    if slash and (not step.isdigit() or step == "0"):
        return f"step of range should be a positive number: {item}" if step == "0" else f"failed to parse int from {step}: {item}"
    if span in ("*", "?"):
        return ""
    first, dash, last = span.partition("-")
    bounds: list[int] = []
    for bound in (first, last) if dash else (first,):
        value = words.index(bound.lower()) + lowest if bound.lower() in words else int(bound) if bound.isdigit() else None
        if value is None:
            return f"failed to parse int from {bound}: {item}"
        bounds.append(value)
    if bounds[0] < lowest:
        return f"beginning of range ({bounds[0]}) below minimum ({lowest}): {item}"
    if bounds[-1] > highest:
        return f"end of range ({bounds[-1]}) above maximum ({highest}): {item}"
    if bounds[0] > bounds[-1]:
        return f"beginning of range ({bounds[0]}) beyond end of range ({bounds[-1]}): {item}"
    return ""
