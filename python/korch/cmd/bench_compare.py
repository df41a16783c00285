"""`korch bench compare A B`: two results in scheduler_perf's JSON, ours or upstream's, as ratios."""

from __future__ import annotations

from pathlib import Path

import click

from korch.lab.bench.comparison import Row, compare
from korch.lab.bench.result import DataItem, read_json


@click.command("compare")
@click.argument("before", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("after", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--all", "shows_all", is_flag=True, help="Show every percentile, not the averages alone.")
@click.option("--fail-below", type=float, help="Exit with 1 when a workload is less than so many times as good: 0.9 allows a tenth.")
@click.option(
    "--metric", "metrics", multiple=True, default=("SchedulingThroughput",), show_default=True, help="What --fail-below is about."
)
def compare_results(before: Path, after: Path, shows_all: bool, fail_below: float | None, metrics: tuple[str, ...]) -> None:
    """Show what AFTER measured in terms of BEFORE. A ratio above 1 is a larger value."""
    found = compare(_items(before), _items(after))
    rows = [["WORKLOAD", "METRIC", "BUCKET", "BEFORE", "AFTER", "UNIT", "RATIO"]]
    rows += [_shown(one) for one in found.rows if shows_all or one.bucket in ("Average", "Duration")]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for name in found.only_before:
        click.echo(f"only in {before}: {name}", err=True)
    for name in found.only_after:
        click.echo(f"only in {after}: {name}", err=True)
    if not found.rows:
        raise click.ClickException("the results have no workload in common")
    worse = found.worse_than(fail_below, metrics) if fail_below is not None else []
    for one in worse:
        click.echo(f"{one.name}: {one.metric} is {one.gain:.3f} times as good, {fail_below:g} is asked for", err=True)
    if worse:
        raise SystemExit(1)


def _items(path: Path) -> list[DataItem]:
    try:
        return read_json(path)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _shown(row: Row) -> list[str]:
    ratio = "-" if row.ratio is None else f"{row.ratio:.3f}"
    return [row.name, row.metric, row.bucket, f"{row.before:,.2f}", f"{row.after:,.2f}", row.unit, ratio]
