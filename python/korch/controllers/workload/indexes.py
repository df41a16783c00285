"""Sets of completion indexes in the short text of a Job's status: `0,3-5,7`.

Mirrors orderedIntervals of pkg/controller/job/indexed_job_utils.go.
"""

from __future__ import annotations

from collections.abc import Iterable


def parse_indexes(text: str | None, completions: int) -> set[int]:
    """Return the indexes below `completions` that `text` lists; parts that cannot be read are left out, as upstream does."""
    found: set[int] = set()
    for part in (text or "").split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and (not last or last.isdecimal()):
            found.update(range(int(first), min(int(last or first) + 1, completions)))
    return {one for one in found if one < completions}


def format_indexes(indexes: Iterable[int]) -> str:
    """Return the text of the set: single numbers, pairs as two numbers, longer runs as `first-last`."""
    runs: list[list[int]] = []
    for one in sorted(indexes):
        if runs and runs[-1][1] == one - 1:
            runs[-1][1] = one
        else:
            runs.append([one, one])
    return ",".join(str(first) if first == last else f"{first},{last}" if last == first + 1 else f"{first}-{last}" for first, last in runs)
