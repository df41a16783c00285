"""`korch bench`: scheduling benchmarks. Each subcommand is a file of its own, `bench_NAME.py`."""

from __future__ import annotations

import click

from korch.cmd.lazy import LazyGroup

# Subcommand -> module and attribute of its click command, in the order in which help shows them.
_COMMANDS = {"run": "korch.cmd.bench_run:run", "compare": "korch.cmd.bench_compare:compare_results"}
_HELP = {
    "run": "Run workloads of a scheduler_perf configuration file.",
    "compare": "Set two results side by side.",
}


@click.group(cls=LazyGroup, targets=_COMMANDS, summaries=_HELP)
def bench() -> None:
    """Measure scheduling with the workloads of Kubernetes' scheduler_perf."""
