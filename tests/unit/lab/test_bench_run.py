"""Workloads of scheduler_perf's format are played to the end on both stages, and what was measured is written in every format."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet

from korch.cmd.main import main
from korch.lab.bench.configuration import read, select
from korch.lab.bench.plan import make_plan
from korch.lab.bench.progress import Progress
from korch.lab.bench.run import Level, run_plan

HERE = Path(__file__).parent / "workloads"
FILE = HERE / "performance-config.yaml"


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["bench", *map(str, arguments)])


def test_every_workload_of_the_directory_is_read_and_resolved() -> None:
    # KORCH_SCHEDULER_PERF may name a checkout of Kubernetes' own files.
    root = Path(os.environ.get("KORCH_SCHEDULER_PERF", HERE))
    files = [one for one in sorted(root.rglob("performance-config.yaml")) if "dra" not in one.relative_to(root).parts]
    plans = [make_plan(workload) for file in files for workload in read(file)]
    assert len(plans) >= 4 and all(plan.acts for plan in plans)


@pytest.mark.parametrize("level", ["engine", "cluster"])
async def test_every_operation_is_played(level: Level) -> None:
    (workload,) = select(read(FILE), ["Everything"])
    plan = make_plan(workload)
    if level == "engine":
        # Without an API nobody serves PodGroups.
        plan = type(plan)(**{**_fields(plan), "acts": [one for one in plan.acts if one.operation.opcode != "createPodGroups"]})
    outcome = await run_plan(plan, level, within_s=30)
    assert outcome.error == ""
    held, steady = outcome.measurements
    assert (held.name, held.bound) == ("Everything/small/held", 3)
    assert steady.name == "Everything/small/steady" and steady.bound >= 2
    assert len(held.pod_latencies_s) == 3 and all(one >= 0 for one in held.pod_latencies_s)
    assert sum(len(values) for result, values in steady.attempts_s.items() if result == "scheduled") >= 2


def _fields(plan: Any) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in ("workload", "scheduler_config", "unsupported", "warnings")}


@pytest.mark.parametrize("level", ["engine", "cluster"])
def test_thresholds_are_passed_or_missed_and_decide_the_exit_code(level: Level) -> None:
    reached = bench("run", FILE, "--workload", "Plain/reached", "--level", level, "-o", "json")
    assert reached.exit_code == 0, reached.output
    assert "threshold 0.001: passed" in reached.stderr
    missed = bench("run", FILE, "--workload", "Plain/[mt]*", "--level", level, "-o", "json")
    assert missed.exit_code == 1
    assert "SchedulingThroughput" in missed.stderr and "threshold 1e+09: missed" in missed.stderr
    assert "scheduler_pod_scheduling_duration_seconds" in missed.stderr and "threshold 1e-09: missed" in missed.stderr


def test_a_durable_cluster_runs_too() -> None:
    assert bench("run", FILE, "--workload", "Plain/reached", "--durable").exit_code == 0


def test_json_is_what_upstreams_dashboard_reads() -> None:
    document = json.loads(bench("run", FILE, "--workload", "Plain/reached", "-o", "json").stdout)
    assert document["version"] == "v1"
    items = document["dataItems"]
    assert {frozenset(one["labels"]) for one in items} == {frozenset({"Name", "Metric", "result"})}
    by_metric = {(one["labels"]["Metric"], one["labels"]["result"]): one for one in items}
    throughput = by_metric["SchedulingThroughput", "not applicable"]
    assert throughput["unit"] == "pods/s" and set(throughput["data"]) == {"Average", "Perc50", "Perc90", "Perc95", "Perc99"}
    assert throughput["labels"]["Name"] == "Plain/reached/namespace-2"
    assert by_metric["scheduler_scheduling_attempt_duration_seconds", "scheduled"]["unit"] == "ms"
    assert by_metric["process_cpu_per_pod", "not applicable"]["data"]["Average"] > 0


def test_tables_files_and_pages_show_the_same_values(tmp_path: Path) -> None:
    values: dict[str, set[str]] = {}
    for form in ("csv", "parquet", "html"):
        path = tmp_path / form
        assert bench("run", FILE, "--workload", "Plain/reached", "-o", form, "--output-file", path).exit_code == 0
        if form == "csv":
            values[form] = {row["metric"] for row in csv.DictReader(io.StringIO(path.read_text()))}
        elif form == "parquet":
            table = parquet.read_table(path)
            values[form] = set(table.column("metric").to_pylist())
            assert table.schema.names == ["name", "metric", "labels", "bucket", "at_s", "value", "unit"]
        else:
            page = path.read_text()
            values[form] = {one for one in values["csv"] if one in page}
            assert "Plain/reached" in page and "passed" in page and "<script" not in page
    assert values["csv"] == values["parquet"] == values["html"] and "SchedulingThroughput" in values["csv"]


def test_the_table_and_the_list_name_workloads() -> None:
    assert "Plain/reached/namespace-2  SchedulingThroughput" in bench("run", FILE, "--workload", "Plain/reached").stdout
    listed = bench("run", FILE, "--list", "--labels", "-short").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["WORKLOAD", "Plain/reached", "Plain/missed", "Plain/too-slow/of-latency"]
    assert listed[1].split()[1:] == ["0.001", "performance"]


def result(path: Path, **averages: float) -> Path:
    items = [
        {"data": {"Average": value, "Perc99": value}, "unit": "pods/s", "labels": {"Name": name, "Metric": "SchedulingThroughput"}}
        for name, value in averages.items()
    ]
    path.write_text(json.dumps({"version": "v1", "dataItems": items}))
    return path


def test_two_results_are_compared_as_ratios(tmp_path: Path) -> None:
    before, after = result(tmp_path / "a", x=100, y=50, gone=1), result(tmp_path / "b", x=85, y=60, new=1)
    shown = bench("compare", before, after)
    assert shown.exit_code == 0
    assert [line.split()[0::6] for line in shown.stdout.splitlines()] == [["WORKLOAD", "RATIO"], ["x", "0.850"], ["y", "1.200"]]
    assert f"only in {before}: gone" in shown.stderr and f"only in {after}: new" in shown.stderr
    assert bench("compare", before, after, "--fail-below", "0.8").exit_code == 0
    failed = bench("compare", before, after, "--fail-below", "0.9")
    assert failed.exit_code == 1 and "x: SchedulingThroughput is 0.850 times as good" in failed.stderr


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("{}")
    refused = bench("compare", wrong, result(tmp_path / "b", x=1))
    assert refused.exit_code == 2 and "is not a result of scheduler_perf" in refused.output


async def test_a_pod_that_fits_nowhere_ends_the_workload_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text((HERE / "templates" / "large-pod.yaml").read_text().replace("generateName: large-", "name: giant"))
    (tmp_path / "c.yaml").write_text(
        "- name: T\n  workloadTemplate:\n  - {opcode: createNodes, count: 1}\n"
        "  - {opcode: createPods, count: 1, podTemplatePath: pod.yaml}\n  workloads: [{name: w}]\n"
    )
    for level in ("engine", "cluster"):
        outcome = await run_plan(make_plan(read(tmp_path / "c.yaml")[0]), level, within_s=0.3)
        assert outcome.error == "op 1 (createPods): after 0.3 s 1 pods wait, namespace-1/giant among them"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_line_on_a_terminal_and_nothing_elsewhere() -> None:
    terminal, file = Terminal(), io.StringIO()
    for out in (terminal, file):
        progress = Progress(out)
        for done in (0, 1, 2):
            progress.show("T/w 1/2 createPods", done, 2, "pods")
        progress.clear()
    shown = terminal.getvalue()
    assert "T/w 1/2 createPods [########################] 2/2 pods" in shown
    assert "\n" not in shown and shown.endswith("\r\x1b[K")
    assert file.getvalue() == ""
