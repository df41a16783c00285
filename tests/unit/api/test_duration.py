"""Ages in kubectl's words."""

import pytest

from korch.api.duration import human_duration, since

MINUTE, HOUR, DAY = 60, 3600, 86400
YEAR = 365 * DAY


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-2, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (10 * MINUTE, "10m"),
        (3 * HOUR - 1, "179m"),
        (3 * HOUR, "3h"),
        (3 * HOUR + 5 * MINUTE, "3h5m"),
        (8 * HOUR, "8h"),
        (48 * HOUR - 1, "47h"),
        (2 * DAY, "2d"),
        (2 * DAY + 3 * HOUR, "2d3h"),
        (8 * DAY, "8d"),
        (2 * YEAR - 1, "729d"),
        (2 * YEAR, "2y"),
        (2 * YEAR + 5 * DAY, "2y5d"),
        (8 * YEAR, "8y"),
    ],
)
def test_a_span_is_shown_in_at_most_two_units(seconds: int, shown: str) -> None:
    assert human_duration(seconds) == shown


def test_without_a_time_the_age_is_unknown() -> None:
    assert since(None, 0) == "<unknown>"
    assert since("yesterday", 0) == "<unknown>"
    assert since("2027-01-15T07:55:00Z", 1_800_000_000) == "5m"
