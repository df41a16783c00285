"""`korch bench run FILE`: workloads of a scheduler_perf configuration file, against the engine alone or a whole control plane."""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import os
import platform
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from korch.lab.bench.configuration import Workload, read, select
from korch.lab.bench.plan import Plan, make_plan
from korch.lab.bench.result import Outcome, to_csv, to_json, to_parquet
from korch.lab.bench.run import Level, run_plan
from korch.lab.bench.source import ConfigError
from korch.runtime.log import configure

_FORMATS = ("table", "json", "csv", "parquet", "html")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--workload", "patterns", multiple=True, metavar="NAME", help="TestCase or TestCase/Workload, with * and ?; may be given again."
)
@click.option("--labels", default="", help="Only workloads with these labels, such as `performance,-short`.")
@click.option("--list", "lists", is_flag=True, help="Show all workloads, and run none.")
@click.option("--level", type=click.Choice(["engine", "cluster"]), default="cluster", show_default=True, help="What is measured.")
@click.option("-o", "--output", type=click.Choice(_FORMATS), default="table", show_default=True)
@click.option("--output-file", type=click.Path(dir_okay=False, path_type=Path), help="Where the output goes; standard output by default.")
@click.option("--durable", is_flag=True, help="Keep the cluster's store on disk, with an fsync before each answer.")
@click.option("--timeout", default=600.0, show_default=True, help="Seconds that one operation may wait for its pods.")
def run(
    file: Path,
    patterns: tuple[str, ...],
    labels: str,
    lists: bool,
    level: Level,
    output: str,
    output_file: Path | None,
    durable: bool,
    timeout: float,
) -> None:
    """Run workloads of a scheduler_perf configuration file. Everything is checked before anything runs.

    Exit code 1 when a workload fails or misses its threshold, 2 for a file or a name that is wrong."""
    configure(level="error")
    if output == "parquet" and output_file is None:
        raise click.UsageError("-o parquet needs --output-file")
    chosen = _chosen(file, patterns, labels)
    if lists:
        click.echo(_listed(chosen))
        return
    plans = _plans(chosen)
    outcomes: list[Outcome] = []
    for plan in plans:
        with ExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="korch-bench-")) if durable else None
            outcomes.append(asyncio.run(run_plan(plan, level, directory=directory, within_s=timeout)))
        _say(outcomes[-1])
        # One workload's garbage must not be collected on another's time.
        gc.collect()
    _write(outcomes, output, output_file, level)
    if any(one.error or not all(verdict.is_passed for verdict in one.verdicts) for one in outcomes):
        raise SystemExit(1)


def _chosen(file: Path, patterns: Sequence[str], labels: str) -> list[Workload]:
    try:
        return select(read(file), patterns, labels)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except LookupError as error:
        raise click.UsageError(f"{file}: {error.args[0]}") from error


def _plans(chosen: Sequence[Workload]) -> list[Plan]:
    try:
        plans = [make_plan(one) for one in chosen]
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    for plan in plans:
        for warning in plan.warnings:
            click.echo(f"warning: {warning}", err=True)
    return plans


def _listed(chosen: Sequence[Workload]) -> str:
    rows = [["WORKLOAD", "THRESHOLD", "LABELS"]]
    rows += [[one.full_name, f"{one.threshold:g}" if one.threshold else "-", ",".join(sorted(one.labels)) or "-"] for one in chosen]
    return _aligned(rows)


def _say(outcome: Outcome) -> None:
    if outcome.error:
        click.echo(f"{outcome.name}: {outcome.error}", err=True)
    for verdict in outcome.verdicts:
        value = "not measured" if verdict.value is None else f"{verdict.value:,.1f}"
        word = "passed" if verdict.is_passed else "missed"
        click.echo(f"{outcome.name}: {verdict.metric} {value}, threshold {verdict.threshold:g}: {word}", err=True)


def _write(outcomes: Sequence[Outcome], output: str, path: Path | None, level: Level) -> None:
    if output == "table":
        made = _table(outcomes).encode() + b"\n"
    elif output == "json":
        made = to_json(outcomes)
    elif output == "csv":
        made = to_csv(outcomes)
    elif output == "html":
        from korch.lab.bench.page import to_html

        made = to_html(outcomes, _facts(level))
    else:
        try:
            made = to_parquet(outcomes)
        except ImportError as error:
            raise click.ClickException("-o parquet needs pyarrow: pip install 'korch-cluster[lab]'") from error
    if path is None:
        click.echo(made, nl=False)
    else:
        path.write_bytes(made)


def _facts(level: Level) -> dict[str, str | int]:
    return {
        "korch": importlib.metadata.version("korch-cluster"),
        "level": level,
        "machine": f"{platform.machine()} {platform.system()} {platform.release()}",
        "cores": os.cpu_count() or 0,
        "load": f"{os.getloadavg()[0]:.1f}",
        "Python": platform.python_version(),
    }


def _table(outcomes: Sequence[Outcome]) -> str:
    buckets = ("Average", "Perc50", "Perc90", "Perc95", "Perc99")
    rows = [["WORKLOAD", "METRIC", *[one.upper() for one in buckets], "UNIT"]]
    for outcome in outcomes:
        for item in outcome.items:
            result = item.labels.get("result")
            metric = item.labels.get("Metric", "") + (f"[{result}]" if result else "")
            shown = [f"{item.data[one]:,.2f}" if one in item.data else "-" for one in buckets]
            if "Duration" in item.data:
                shown[0] = f"{item.data['Duration']:,.2f}"
            rows.append([item.labels.get("Name", ""), metric, *shown, item.unit])
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
