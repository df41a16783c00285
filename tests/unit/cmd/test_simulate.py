"""The command `korch simulate`: answers, exit codes, and files that are the same every time."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet

from korch.cmd.main import main
from korch.lab import Options, fewest_nodes, read_nodes, read_shape, read_trace, simulate
from korch.lab.cluster import Cluster

TRACE = "arrival_s,cpu,memory,duration_s,name\n0,3,1Gi,10,a\n2,2,1Gi,5,b\n3,1,1Gi,1,c\n"
PACKED = """\
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles:
- pluginConfig:
  - name: NodeResourcesFit
    args: {scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 1}]}}
"""


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["simulate", *(str(one) for one in arguments)])


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    (tmp_path / "t.csv").write_text(TRACE)
    return tmp_path / "t.csv"


def test_a_run_is_told_as_figures(trace: Path):
    found = _run("--nodes", "1 x 4cpu,16Gi", "--trace", trace, "-o", "json")
    assert found.exit_code == 0
    [run] = json.loads(found.stdout)["runs"]
    assert (run["tasks"], run["started"], run["end, s"], run["pending s, max"]) == (3, 3, 15, 8)
    text = _run("--nodes", "1 x 4cpu,16Gi", "--trace", trace).stdout
    assert ["pending", "s,", "max", "8"] in [line.split() for line in text.splitlines()]


def test_policies_stand_side_by_side_and_every_file_is_the_same_twice(trace: Path, tmp_path: Path):
    (tmp_path / "packed.yaml").write_text(PACKED)
    (tmp_path / "plain.yaml").write_text("\n".join(PACKED.splitlines()[:2]))
    given = ("--nodes", "2 x 4cpu,16Gi", "--trace", trace, "--policy", tmp_path / "plain.yaml", "--policy", tmp_path / "packed.yaml")
    given = (*given, "--mtbf", "20s", "--mttr", "3s", "--seed", "5")
    for name in ("one", "two"):
        found = _run(*given, "-o", tmp_path / name)
        assert found.exit_code == 0, found.output
    names = ["nodes.csv", "report.html", "samples.csv", "samples.parquet", "summary.json", "tasks.csv", "tasks.parquet"]
    assert sorted(one.name for one in (tmp_path / "one").iterdir()) == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    report = (tmp_path / "one" / "report.html").read_text()
    assert "plain" in report and "packed" in report and "<script" not in report
    rows = list(csv.DictReader((tmp_path / "one" / "tasks.csv").open()))
    table = parquet.read_table(tmp_path / "one" / "tasks.parquet")
    assert [row["name"] for row in rows] == table.column("name").to_pylist() == ["a", "b", "c"] * 2
    assert [float(row["start_s"]) for row in rows] == table.column("start_s").to_pylist()


def test_another_seed_draws_other_failures(trace: Path):
    given = ("--nodes", "2 x 4cpu,16Gi", "--trace", trace, "--mtbf", "5s", "--mttr", "1s", "-o", "csv")
    assert _run(*given, "--seed", "1").stdout == _run(*given, "--seed", "1").stdout
    assert _run(*given, "--seed", "1").stdout != _run(*given, "--seed", "2").stdout


def test_fit_is_answered_by_the_exit_code_too(trace: Path):
    assert _run("--nodes", "2 x 4cpu,16Gi", "--trace", trace, "--fit").exit_code == 0
    found = _run("--nodes", "1 x 4cpu,16Gi", "--trace", trace, "--fit")
    assert found.exit_code == 1
    assert found.stdout.splitlines()[0] == "default: 2 of 3 pods fit"
    [answer] = json.loads(_run("--nodes", "1 x 4cpu,16Gi", "--trace", trace, "--fit", "-o", "json").stdout)
    assert (answer["fits"], list(answer["refused"])) == (False, ["default/b"])


def test_the_fewest_nodes_are_named(trace: Path):
    found = _run("--nodes", "1 x 4cpu,16Gi", "--trace", trace, "--fewest", "2cpu,8Gi")
    assert found.exit_code == 0
    assert found.stdout == "default: 1 nodes of 2cpu,8Gi are needed (no smaller number would do)\n"


def test_a_drain_says_where_each_pod_goes(tmp_path: Path):
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u", "controller": True}
    container = {"name": "c", "resources": {"requests": {"cpu": "1"}}}
    pod = {"kind": "Pod", "metadata": {"name": "web", "namespace": "d", "ownerReferences": [owner]}}
    items = [*read_nodes(["2 x 4cpu,16Gi"]), {**pod, "spec": {"nodeName": "node-0", "containers": [container]}}]
    (tmp_path / "s.json").write_text(json.dumps({"kind": "List", "items": items}))
    found = _run("--cluster", tmp_path / "s.json", "--drain", "node-0")
    assert (found.exit_code, found.stdout) == (0, "default: 1 moved, in 1 rounds of evictions\n  d/web on node-0 moved to node-1\n")
    both = _run("--cluster", tmp_path / "s.json", "--drain", "node-0,node-1")
    assert both.exit_code == 1
    assert "d/web on node-0 pending: 0/2 nodes are available: 2 node(s) were unschedulable." in both.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--trace", "TRACE"), "give --cluster or --nodes"),
        (("--nodes", "1 x 4cpu,16Gi"), "give --workload or --trace"),
        (("--nodes", "1 x 4cpu", "--trace", "TRACE"), "node shape '4cpu': a node needs memory"),
        (("--nodes", "1 x 4cpu,16Gi", "--trace", "TRACE", "--fail", "x@3s"), "--fail 'x@3s': nodes \"x\" not found"),
        (("--nodes", "1 x 4cpu,16Gi", "--trace", "TRACE", "--until", "soon"), "--until: 'soon' is no time"),
        (("--nodes", "1 x 4cpu,16Gi", "--trace", "TRACE", "--autoscale", "4cpu,16Gi"), "say how many at most of which shape"),
        (
            ("--nodes", "1 x 4cpu,16Gi", "--trace", "TRACE", "--fit", "--drain", "node-0"),
            "ask one of --fit, --fewest and --drain at a time",
        ),
        (("--nodes", "1 x 4cpu,16Gi", "--trace", "nowhere.csv"), "nowhere.csv: No such file or directory"),
        (("--nodes", "1 x 4cpu,16Gi", "--trace", "TRACE", "--mtbf", "0"), "--mtbf: '0': nodes must work for some time"),
        (("--fit", "-o", "html"), "-o html: the answer to a question is text, or json"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(trace: Path, arguments: tuple[str, ...], message: str):
    found = _run(*(str(trace) if one == "TRACE" else one for one in arguments))
    assert found.exit_code == 2
    assert message in found.stderr
    assert found.stdout == ""


def test_the_same_is_there_for_python(trace: Path):
    cluster = Cluster(read_nodes(["1 x 4cpu,16Gi"]))
    run = simulate(cluster, read_trace(trace), options=Options(samples=3))
    assert run.tasks().column("end_s").to_pylist() == [10, 15, 4]
    assert run.samples_table().column("running").to_pylist() == [1, 2, 1, 1, 1, 0]
    assert run.nodes().column("capacity_cpu").to_pylist() == [4000]
    assert fewest_nodes(cluster, read_trace(trace), read_shape("4cpu,16Gi")).count == 1


def test_a_directory_that_cannot_be_made_is_refused_before_anything_runs(trace: Path):
    # The time is wrong as well, and is looked at just before the run.
    found = _run("--nodes", "1 x 4cpu,16Gi", "--trace", trace, "--until", "soon", "-o", trace / "inside")
    assert found.exit_code == 1
    assert "Not a directory" in found.stderr
