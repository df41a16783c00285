"""`korch simulate`: what would happen, on virtual time, with korch's own scheduler."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import orjson

from korch.lab import arrow, export
from korch.lab.cluster import Cluster, load
from korch.lab.drain import Drained, Outcome, drain
from korch.lab.events import Autoscaling, Failure, RandomFailures
from korch.lab.fit import Fit, fewest_nodes, place_all
from korch.lab.machines import read_nodes, read_shape
from korch.lab.manifests import read_workload
from korch.lab.policies import Policy, read_policies
from korch.lab.simulation import Options
from korch.lab.simulation import simulate as run_simulation
from korch.lab.source import BadInput, Place, seconds
from korch.lab.traces import FORMATS, Machine, read_trace
from korch.lab.workload import Workload

# A question that was answered with no: pods do not fit, or a drain leaves pods pending or blocked.
EXIT_NO = 1


@dataclass
class _Inputs:
    """Everything that was handed in, read and found good."""

    cluster: Cluster
    workload: Workload
    policies: list[Policy]
    output: str


@click.command()
@click.option("--cluster", "cluster_file", help="A snapshot (korch snapshot, or kubectl get nodes,pods,... -o json).")
@click.option("--nodes", multiple=True, help="'N x SHAPE' such as '100 x 32cpu,128Gi', or a CSV file; may be repeated.")
@click.option("--workload", "workload_file", help="A YAML file of pods, Deployments, Jobs and so on.")
@click.option("--trace", "trace_file", help="A recorded workload.")
@click.option("--format", "trace_format", type=click.Choice(FORMATS), default="korch", show_default=True, help="Of the trace.")
@click.option("--trace-machine", default="64cpu,256Gi", show_default=True, help="What 1.0 is in a trace that counts in machines.")
@click.option("--skip-gaps", is_flag=True, help="Leave out rows of a trace in which something is missing, and say how many.")
@click.option("--policy", "policies", multiple=True, help="A KubeSchedulerConfiguration; repeated: side by side.")
@click.option("--seed", default=0, show_default=True, help="For everything that is drawn.")
@click.option("--until", help="End at this time: 90s, 15m, 2h, 1d.")
@click.option("--fail", "failures", multiple=True, help="NODE@TIME or NODE@TIME+REPAIR: a node fails.")
@click.option("--mtbf", help="Mean time between failures of each node.")
@click.option("--mttr", default="10m", show_default=True, help="After this time a node that failed by --mtbf is back.")
@click.option("--restart-delay", default="0s", show_default=True, help="After this time a pod that was stopped comes again.")
@click.option("--autoscale", help="'MAX x SHAPE': add up to so many nodes while pods wait.")
@click.option("--boot", default="2m", show_default=True, help="How long a node that is added takes to come.")
@click.option("--idle", default="10m", show_default=True, help="A node that was added goes after being empty for so long.")
@click.option("--fit", "asks_fit", is_flag=True, help="Answer whether the pods fit, without time passing.")
@click.option("--fewest", help="Answer how many nodes of this SHAPE are needed beside the others so that the pods fit.")
@click.option("--drain", "drained", help="Answer what happens when these nodes (NODE,...) are drained.")
@click.option("-o", "--output", default="", help="html, csv, parquet or json to standard output, or a directory for all of them.")
def simulate(**given: Any) -> None:
    """Run a workload on a cluster that is described in files, on virtual time, under one or several scheduler policies.

    Without a question the workload is run to its end and the policies are compared. Exit code 1: the answer to --fit or --drain is
    no; 2: something that was handed in is wrong, which is said with file, line and reason before anything runs."""
    try:
        inputs = _read(given)
        if given["drained"] is not None:
            sys.exit(_answer_drain(inputs, [one.strip() for one in given["drained"].split(",") if one.strip()]))
        if given["fewest"] is not None:
            _answer_fewest(inputs, given["fewest"])
            return
        if given["asks_fit"]:
            sys.exit(_answer_fit(inputs))
        options = _options(given, inputs.cluster)
        _write([run_simulation(inputs.cluster, inputs.workload, policy, options) for policy in inputs.policies], inputs)
    except BadInput as error:
        raise click.UsageError(str(error)) from error
    except (OSError, ImportError) as error:
        raise click.ClickException(str(error)) from error


def _read(given: dict[str, Any]) -> _Inputs:
    questions = [name for name in ("asks_fit", "fewest", "drained") if given[name]]
    if len(questions) > 1:
        raise click.UsageError("ask one of --fit, --fewest and --drain at a time")
    if questions and given["output"] not in ("", "json"):
        raise click.UsageError(f"-o {given['output']}: the answer to a question is text, or json")
    if not given["cluster_file"] and not given["nodes"]:
        raise click.UsageError("give --cluster or --nodes")
    cluster = load(given["cluster_file"]) if given["cluster_file"] else Cluster()
    cluster.nodes += read_nodes(given["nodes"])
    names = [one["metadata"]["name"] for one in cluster.nodes]
    if len(set(names)) != len(names):
        raise BadInput(Place("--nodes"), "a node has the name of one in the snapshot")
    workload = Workload()
    if given["workload_file"]:
        workload.extend(read_workload(given["workload_file"], cluster))
    if given["trace_file"]:
        machine = Machine.of(given["trace_machine"])
        workload.extend(read_trace(given["trace_file"], given["trace_format"], machine=machine, skips_gaps=given["skip_gaps"]))
    if workload.skipped:
        click.echo(f"{workload.skipped} rows with gaps were left out", err=True)
    if given["drained"] is None and not len(workload) and not cluster.pods:
        raise click.UsageError("give --workload or --trace")
    policies = read_policies(given["policies"])
    _prepare(given["output"])
    return _Inputs(cluster, workload, policies, given["output"])


def _prepare(output: str) -> None:
    """Find out before anything runs whether results can be written. Raises ImportError, OSError."""
    if output == "parquet":
        arrow.load()
    elif output not in ("", *export.FORMATS):
        Path(output).mkdir(parents=True, exist_ok=True)


def _options(given: dict[str, Any], cluster: Cluster) -> Options:
    known = {one["metadata"]["name"] for one in cluster.nodes}
    failures = tuple(_failure(text, known) for text in given["failures"])
    drawn = RandomFailures(_time("--mtbf", given["mtbf"]), _time("--mttr", given["mttr"])) if given["mtbf"] else None
    if drawn is not None and drawn.mean_s_between <= 0:
        raise BadInput(Place("--mtbf"), f"{given['mtbf']!r}: nodes must work for some time")
    autoscaling = None
    if given["autoscale"]:
        most, has_shape, shape = given["autoscale"].partition("x")
        if not has_shape or not most.strip().isdigit():
            raise BadInput(Place(f"--autoscale {given['autoscale']!r}"), "say how many at most of which shape, such as '10 x 32cpu,128Gi'")
        boot, idle = _time("--boot", given["boot"]), _time("--idle", given["idle"])
        autoscaling = Autoscaling(read_shape(shape.strip()), int(most), boot, idle)
    until = _time("--until", given["until"]) if given["until"] else float("inf")
    return Options(
        seed=given["seed"],
        until_s=until,
        failures=failures,
        random_failures=drawn,
        autoscaling=autoscaling,
        restart_delay_s=_time("--restart-delay", given["restart_delay"]),
    )


def _time(option: str, text: str) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        raise BadInput(Place(option), str(error)) from error


def _failure(text: str, known: set[str]) -> Failure:
    place = Place(f"--fail {text!r}")
    node, has_time, when = text.rpartition("@")
    if not has_time:
        raise BadInput(place, "not of the form NODE@TIME or NODE@TIME+REPAIR")
    if node not in known:
        raise BadInput(place, f'nodes "{node}" not found')
    at, repairs, repair = when.partition("+")
    return Failure(node, _time(str(place), at), _time(str(place), repair) if repairs else None)


def _answer_fit(inputs: _Inputs) -> int:
    found = [place_all(inputs.cluster, inputs.workload, policy) for policy in inputs.policies]
    if inputs.output == "json":
        click.echo(_json([{"policy": one.policy, "fits": one.fits, "placed": one.placed, "refused": one.refused} for one in found]))
    else:
        click.echo("\n".join(_fit_text(one) for one in found))
    return 0 if all(one.fits for one in found) else EXIT_NO


def _fit_text(found: Fit) -> str:
    total = len(found.placed) + len(found.refused)
    lines = [f"{found.policy}: {'all' if found.fits else len(found.placed)} of {total} pods fit"]
    lines += [f"  {count} do not: {words}" for words, count in found.reasons()]
    return "\n".join(lines)


def _answer_fewest(inputs: _Inputs, text: str) -> None:
    shape = read_shape(text)
    found = [(policy.name, fewest_nodes(inputs.cluster, inputs.workload, shape, policy)) for policy in inputs.policies]
    if inputs.output == "json":
        rows = [
            {"policy": name, "shape": one.shape, "nodes": one.count, "proved": one.is_proved, "tried": one.tried} for name, one in found
        ]
        click.echo(_json(rows))
        return
    for name, one in found:
        proof = "no smaller number would do" if one.is_proved else "the numbers closest below were tried and do not do"
        click.echo(f"{name}: {one.count} nodes of {one.shape} are needed ({proof})")


def _answer_drain(inputs: _Inputs, nodes: Sequence[str]) -> int:
    found = [drain(inputs.cluster, nodes, policy) for policy in inputs.policies]
    if inputs.output == "json":
        rows = [
            {
                "policy": one.policy,
                "rounds": one.rounds,
                "preempted": one.preempted,
                "moves": [
                    {"pod": move.pod, "from": move.from_node, "outcome": move.outcome.value, "to": move.to_node, "why": move.why}
                    for move in one.moves
                ],
            }
            for one in found
        ]
        click.echo(_json(rows))
    else:
        click.echo("\n".join(_drain_text(one) for one in found))
    is_clean = all(one.count(outcome) == 0 for one in found for outcome in (Outcome.PENDING, Outcome.BLOCKED, Outcome.LOST))
    return 0 if is_clean else EXIT_NO


def _drain_text(found: Drained) -> str:
    counts = ", ".join(f"{found.count(one)} {one.value}" for one in Outcome if found.count(one))
    lines = [f"{found.policy}: {counts or 'no pod to move'}, in {found.rounds} rounds of evictions"]
    for move in found.moves:
        where = f" to {move.to_node}" if move.to_node else ""
        lines.append(f"  {move.pod} on {move.from_node} {move.outcome.value}{where}{f': {move.why}' if move.why else ''}")
    lines += [f"  {key} preempted" for key in found.preempted]
    return "\n".join(lines)


def _write(runs: list[Any], inputs: _Inputs) -> None:
    match inputs.output:
        case "":
            click.echo(export.side_by_side(runs))
        case "html":
            click.echo(export.html(runs), nl=False)
        case "csv":
            click.echo(export.tasks_csv(runs), nl=False)
        case "json":
            click.echo(export.summary(runs), nl=False)
        case "parquet":
            click.echo(export.parquet(runs), nl=False)
        case directory:
            names = export.write_all(runs, Path(directory))
            click.echo(export.side_by_side(runs))
            click.echo(f"{', '.join(names)} in {directory}", err=True)


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2)
