"""When a cron schedule is due: five fields or an `@` word, in a time zone, the way robfig/cron reckons.

Days: when both day fields are restricted either may match, otherwise both must. A local time that a clock change leaves out does not come
that day; one that comes twice is due twice. Whether a text is a schedule at all, validation says (`resources/cron.py`).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_BOUNDS: tuple[tuple[int, int, tuple[str, ...]], ...] = ((0, 59, ()), (0, 23, ()), (1, 31, ()), (1, 12, _MONTHS), (0, 6, _DAYS))
_WORDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|ms|s|m|h)")
_YEARS_MAX = 5
_HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Schedule:
    """A parsed schedule. `every_s` is the period of an `@every`, 0 for fields."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    # Whether a day field says "any".
    is_any_day: bool
    is_any_weekday: bool
    zone: tzinfo = UTC
    every_s: int = 0

    @staticmethod
    def parse(text: str, zone: tzinfo = UTC) -> Schedule:
        """Return the schedule. Raises ValueError."""
        if text.startswith("@every "):
            period_s = sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
            nothing: frozenset[int] = frozenset()
            return Schedule(nothing, nothing, nothing, nothing, nothing, False, False, zone, max(1, int(period_s)))
        fields = _WORDS.get(text, text).split()
        if len(fields) != len(_BOUNDS):
            raise ValueError(f"expected exactly {len(_BOUNDS)} fields, found {len(fields)}: [{' '.join(fields)}]")
        parsed = [_field(field, *bounds) for field, bounds in zip(fields, _BOUNDS, strict=True)]
        minutes, hours, days, months, weekdays = (one for one, _ in parsed)
        return Schedule(minutes, hours, days, months, weekdays, parsed[2][1], parsed[4][1], zone)

    def next(self, after: float) -> float | None:
        """Return when it is due first after `after` (both seconds since the epoch); None when not within five years."""
        if self.every_s:
            return math.floor(after) + self.every_s
        moment = (math.floor(after) // 60 + 1) * 60
        last = moment + _YEARS_MAX * 366 * 24 * _HOUR_S
        while moment <= last:
            local = datetime.fromtimestamp(moment, self.zone)
            if local.month not in self.months:
                following = datetime(local.year + local.month // 12, local.month % 12 + 1, 1, tzinfo=self.zone)
                moment = _later(moment, following)
            elif not self._has_day(local):
                midnight = datetime(local.year, local.month, local.day, tzinfo=self.zone) + timedelta(days=1)
                moment = _later(moment, midnight)
            elif local.hour not in self.hours:
                # On the clock of the world, so that an hour which comes twice is seen twice.
                moment += _HOUR_S - local.minute * 60 - local.second
            elif local.minute not in self.minutes:
                moment += 60
            else:
                return float(moment)
        return None

    def _has_day(self, local: datetime) -> bool:
        is_day, is_weekday = local.day in self.days, local.isoweekday() % 7 in self.weekdays
        return is_day and is_weekday if self.is_any_day or self.is_any_weekday else is_day or is_weekday


def _later(moment: int, wanted: datetime) -> int:
    """Return the moment of a local time; an hour on, where a clock change has put it into the past."""
    found = int(wanted.timestamp())
    return found if found > moment else moment + _HOUR_S


def _field(text: str, lowest: int, highest: int, words: tuple[str, ...]) -> tuple[frozenset[int], bool]:
    """Return the numbers that a field means, and whether it means any."""
    found: set[int] = set()
    is_any = False
    for item in text.split(","):
        span, slash, step_text = item.partition("/")
        step = int(step_text) if slash else 1
        if step < 1:
            raise ValueError(f"step of range should be a positive number: {item}")
        if span in ("*", "?"):
            first, last = lowest, highest
            is_any = is_any or step == 1
        else:
            left, dash, right = span.partition("-")
            first = _number(left, lowest, words)
            last = _number(right, lowest, words) if dash else highest if slash else first
        if first < lowest or last > highest or first > last:
            raise ValueError(f"range is not within {lowest}-{highest}: {item}")
        found.update(range(first, last + 1, step))
    return frozenset(found), is_any


def _number(text: str, lowest: int, words: tuple[str, ...]) -> int:
    if text.lower() in words:
        return words.index(text.lower()) + lowest
    if not text.isdigit():
        raise ValueError(f"failed to parse int from {text}")
    return int(text)
