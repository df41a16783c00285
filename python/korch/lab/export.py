"""Results as files: a report in HTML, tables as CSV or Parquet, figures as JSON. Equal results give equal bytes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson

from korch.lab import arrow
from korch.lab.report import Page, Series
from korch.lab.results import TASK_COLUMNS, Run

FORMATS = ("html", "csv", "parquet", "json")
GIBI = 1 << 30


def write_all(runs: Sequence[Run], directory: Path) -> list[str]:
    """Write report.html, summary.json, and tasks, samples and nodes as CSV, and as Parquet where pyarrow is installed.

    The directory is made if need be; files of the same names are replaced. Returns the names. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    files: dict[str, bytes] = {"report.html": html(runs), "summary.json": summary(runs), "tasks.csv": tasks_csv(runs)}
    files["samples.csv"] = _columns_csv([run.sample_columns() for run in runs])
    files["nodes.csv"] = _columns_csv([run.node_columns() for run in runs])
    for name, content in files.items():
        (directory / name).write_bytes(content)
    names = list(files)
    try:
        arrow.load()
    except ImportError:
        return names
    for name, tables in (("tasks", [one.tasks() for one in runs]), ("samples", [one.samples_table() for one in runs])):
        arrow.write_parquet(arrow.joined(tables), directory / f"{name}.parquet")
        names.append(f"{name}.parquet")
    return names


def summary(runs: Sequence[Run]) -> bytes:
    """Return the figures of the runs as JSON; what is not a number is null."""
    found = [{"policy": run.policy, "seed": run.seed, **{name: _finite(value) for name, value in run.summary().items()}} for run in runs]
    return orjson.dumps({"runs": found}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def tasks_csv(runs: Sequence[Run]) -> bytes:
    """Return what became of each task as CSV, one run after the other."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(TASK_COLUMNS)
    for run in runs:
        writer.writerows(run.task_rows())
    return text.getvalue().encode()


def parquet(runs: Sequence[Run]) -> bytes:
    """Return what became of each task as Parquet. Raises ImportError without pyarrow."""
    file = io.BytesIO()
    arrow.write_parquet(arrow.joined([one.tasks() for one in runs]), file)
    return file.getvalue()


def html(runs: Sequence[Run]) -> bytes:
    """Return the report: the figures side by side, then how everything went over time."""
    first = runs[0]
    facts = [("tasks", len(first.workload) - first.residents), ("pods from the begin", first.residents), ("seed", first.seed)]
    page = Page("korch simulate: " + " | ".join(run.policy for run in runs), [*facts, ("rows skipped", first.workload.skipped)])
    section = page.section("Policies side by side")
    names = list(first.summary())
    rows = [[name, *(run.summary()[name] for run in runs)] for name in names]
    section.table(["", *(run.policy for run in runs)], rows)
    for run in runs:
        if run.unchecked:
            section.text(
                f"The policy {run.policy} does not look at {', '.join(run.unchecked)}: nodes may have been given more than they have."
            )
    _time_section(page, runs)
    _waits_section(page, runs)
    for run in runs:
        reasons = _reasons(run)
        if reasons:
            page.section(f"Still waiting at the end: {run.policy}").table(["tasks", "because"], reasons)
    return page.html().encode()


def side_by_side(runs: Sequence[Run]) -> str:
    """Return the figures of the runs as text in columns."""
    from korch.lab.report import number

    names = list(runs[0].summary())
    table = [["", *(run.policy for run in runs)], *([name, *(number(run.summary()[name]) for run in runs)] for name in names)]
    widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))]
    lines: list[str] = []
    for first, *rest in table:
        cells = "".join("  " + cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        lines.append((first.ljust(widths[0]) + cells).rstrip())
    return "\n".join(lines)


def _time_section(page: Page, runs: Sequence[Run]) -> None:
    section = page.section("Over time")
    section.lines([_line(run, run.samples.pending) for run in runs], title="Pods that wait", x_label="s", is_stepped=True)
    section.lines([_line(run, run.samples.running) for run in runs], title="Pods that run", x_label="s", is_stepped=True)
    for name in runs[0].samples.used:
        if name != "pods":
            title = f"Share of {name} that is requested"
            section.lines([_line(run, run.samples.share(name)) for run in runs], title=title, x_label="s", is_stepped=True)
    for name in runs[0].samples.fragmentation:
        lines = [_line(run, run.samples.fragmentation[name], skips_gaps=True) for run in runs]
        section.lines(lines, title=f"Share of free {name} that the workload cannot use", x_label="s")
    imbalance = [_line(run, run.samples.imbalance) for run in runs]
    section.lines(imbalance, title="Standard deviation of requested CPU between nodes", x_label="s", is_stepped=True)
    if any(len(set(run.samples.nodes)) > 1 for run in runs):
        section.lines([_line(run, run.samples.nodes) for run in runs], title="Nodes", x_label="s", is_stepped=True)


def _waits_section(page: Page, runs: Sequence[Run]) -> None:
    series: list[Series] = []
    for run in runs:
        waits = run.waits_s()
        step = max(1, len(waits) // 1000)
        points = [(waits[at], (at + 1) / len(waits)) for at in range(0, len(waits), step)]
        series.append(Series(run.policy, [*points, (waits[-1], 1.0)] if waits else []))
    title = "Share of tasks that waited no longer"
    page.section("How long tasks waited").lines(series, title=title, x_label="s", is_stepped=True)


def _line(run: Run, values: Sequence[float], *, skips_gaps: bool = False) -> Series:
    points = list(zip(run.samples.time_s, map(float, values), strict=True))
    return Series(run.policy, [one for one in points if one[1] == one[1]] if skips_gaps else points)


def _reasons(run: Run) -> list[tuple[int, str]]:
    counts: dict[str, int] = {}
    for words in run.waiting.values():
        counts[words] = counts.get(words, 0) + 1
    return sorted(((count, words) for words, count in counts.items()), key=lambda item: (-item[0], item[1]))[:20]


def _columns_csv(tables: Iterable[dict[str, list[Any]]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    for index, table in enumerate(tables):
        if index == 0:
            writer.writerow(table)
        writer.writerows([_finite(cell) for cell in row] for row in zip(*table.values(), strict=True))
    return text.getvalue().encode()


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
