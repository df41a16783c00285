"""What is wrong in a configuration or a template is said with file, line and reason, and before anything runs."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner

from korch.cmd.main import main
from korch.lab.bench.template import TemplateError, compile_template

CASE = """
- name: T
  workloadTemplate:
  - opcode: createNodes
    count: 1
  {op}
  workloads:
  - name: w
    params: {{pods: 3, text: x}}
"""
NODE = "kind: Node\nmetadata:\n  generateName: n-\nstatus:\n  capacity:\n    cpu: {cpu}\n"


def refused(tmp_path: Path, text: str, *more: str) -> str:
    """Return what `korch bench run` says about a configuration that must not run."""
    (tmp_path / "config.yaml").write_text(textwrap.dedent(text).lstrip("\n"))
    found = CliRunner().invoke(main, ["bench", "run", str(tmp_path / "config.yaml"), "--level", "engine", *more])
    assert found.exit_code == 2, found.output
    return found.output.strip().splitlines()[-1].removeprefix("Error: ").replace(f"{tmp_path}/", "")


@pytest.mark.parametrize(
    ("operation", "said"),
    [
        ("- opcode: createNode", "config.yaml:5: unknown opcode 'createNode'"),
        ("- opcode: createPods\n    cuont: 1", "config.yaml:5: Object contains unknown field `cuont`"),
        ("- opcode: createPods\n    count: many", "config.yaml:6: Expected `int`, got `str`"),
        ("- opcode: createPods\n    count: -1", "config.yaml:6: invalid count=-1; should be non-negative"),
        (
            "- opcode: createPods\n    countParam: pods",
            "config.yaml:6: invalid countParam='pods': it must be the name of a parameter after a $",
        ),
        ("- opcode: createPods\n    countParam: $nothing", "config.yaml:6: T/w: parameter nothing is undefined"),
        ("- opcode: createPods\n    countParam: $text", "config.yaml:6: T/w: parameter text has the wrong type str"),
        ("- opcode: createPods\n    count: 1\n    podTemplatePath: no.yaml", "config.yaml:7: T/w: template file no.yaml does not exist"),
        ("- opcode: createPods\n    count: 1\n    count: 2", "config.yaml:7: key 'count' already set in map"),
        (
            "- opcode: createPods\n    count: 1\n    collectMetrics: true\n    skipWaitToCompletion: true",
            "config.yaml:5: collectMetrics and skipWaitToCompletion cannot be true at the same time",
        ),
        ("- opcode: sleep\n    duration: 5 parsecs", "config.yaml:6: time: invalid duration '5 parsecs'"),
        ("- opcode: barrier\n    stageRequirement: Done", "config.yaml:6: invalid StageRequirement Done"),
        ("- opcode: churn\n    mode: sometimes", "config.yaml:6: invalid mode: sometimes. must be one of [recreate create]"),
        ("- opcode: stopCollectingMetrics", "config.yaml:5: T/w: missing startCollectingMetrics operation before stopping"),
        (
            "- opcode: createNodes\n    count: 1\n    labelNodePrepareStrategy: {labelKey: a, labelValues: []}",
            "config.yaml:7: labelValues must not be empty",
        ),
    ],
)
def test_a_wrong_operation_is_named_by_its_line(tmp_path: Path, operation: str, said: str) -> None:
    assert refused(tmp_path, CASE.format(op=operation)) == said


@pytest.mark.parametrize(
    ("cpu", "said"),
    [
        ("-4", "node.yaml:6: status.capacity[cpu]: Invalid value: '-4': must be greater than or equal to 0"),
        ("lots", "node.yaml:6: status.capacity[cpu]: quantities must match the regular expression"),
        (
            "4\n  allocatable:\n    cpu: 5",
            "node.yaml:6: status.allocatable[cpu]: Invalid value: '5': must be less than or equal to the capacity 4",
        ),
        ("{{.cores}}", "node.yaml:6: {{.cores}} has no value"),
        ("{{Fewer .Index}}", "node.yaml:6: function 'Fewer' not defined"),
        ("{{if .Index}}1", "node.yaml:6: unexpected end of the template: {{end}} is missing"),
        ("[", "node.yaml:"),
    ],
)
def test_an_impossible_node_is_named_by_its_line(tmp_path: Path, cpu: str, said: str) -> None:
    (tmp_path / "node.yaml").write_text(NODE.format(cpu=cpu))
    assert refused(tmp_path, CASE.format(op="- opcode: createNodes\n    count: 1\n    nodeTemplatePath: node.yaml")).startswith(said)


def test_a_template_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text(NODE.format(cpu=4))
    operation = "- opcode: createPods\n    count: 1\n    podTemplatePath: node.yaml"
    assert refused(tmp_path, CASE.format(op=operation)) == "node.yaml:1: a Pod is expected, not a Node"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1", "config.yaml:1: a list of test cases is expected"),
        ("- name: T\n  workloads: []\n", "config.yaml:1: Object missing required field `workloadTemplate`"),
        (
            "- name: T\n  workloadTemplate: [{opcode: sleep}]\n  workloads: [{name: w}, {name: w}]\n",
            "config.yaml:3: T: workload name w is not unique",
        ),
        (
            "- name: T\n  workloadTemplate: [{opcode: sleep}]\n  workloads:\n  - name: w\n    threshold: -1\n",
            "config.yaml:5: invalid Threshold=-1; should be non-negative",
        ),
        (
            "- name: T\n  schedulerConfigPath: no.yaml\n  workloadTemplate: [{opcode: sleep}]\n  workloads: [{name: w}]\n",
            "config.yaml:2: T/w: scheduler configuration no.yaml does not exist",
        ),
        ("- {", "config.yaml:2: did not find expected node content"),
    ],
)
def test_a_wrong_test_case_is_named_by_its_line(tmp_path: Path, text: str, said: str) -> None:
    assert refused(tmp_path, text) == said


def test_unknown_workloads_and_files_are_refused(tmp_path: Path) -> None:
    text = CASE.format(op="- opcode: sleep")
    assert refused(tmp_path, text, "--workload", "T/v") == "config.yaml: no workload 'T/v'; the test cases are T"
    gone = CliRunner().invoke(main, ["bench", "run", str(tmp_path / "gone.yaml")])
    assert gone.exit_code == 2 and "gone.yaml:1: No such file or directory" in gone.output


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("a {{.Index}} b", "a 7 b"),
        ("{{DivideInt .Index 2}} {{Mod .Index 4}} {{AddInt 1 2 .Index}} {{MultiplyInt 2 3}} {{SubtractInt 1 3}}", "3 3 10 6 -2"),
        ("{{AddFloat 0.5 1}} {{DivideFloat .Index 2}}", "1.5 3.5"),
        ("{{if .no}}yes{{else if eq .text `x`}}x{{else}}no{{end}}", "x"),
        ('{{if ge .Index 7}}{{or .no "default"}}{{end}}', "default"),
        ("{{$n := .Index | Int}}{{range $i := 2}}{{$i}}/{{$n}} {{end}}", "0/7 1/7 "),
        ("{{range $i, $v := .list}}{{$i}}={{$v}};{{end}}", "0=a;1=b;"),
        ("{{range .none}}x{{else}}empty{{end}}", "empty"),
        ("{{with .text}}[{{.}}]{{end}}", "[x]"),
        ("{{(or .list nil) | JSON}}", '["a","b"]'),
        ("a  {{- /* nothing */ -}}  b", "ab"),
        ("{{AddInt 8000 (Mod .Index (DivideInt 6 2))}}", "8001"),
    ],
)
def test_templates_render_as_gos_do(template: str, expected: str) -> None:
    assert compile_template(template).render({"Index": 7, "text": "x", "list": ["a", "b"]}) == expected


@pytest.mark.parametrize(
    "template", ["{{", "{{end}}", "{{.a b}}", "{{1 | }}", "{{(.a}}", "{{define `x`}}{{end}}", "{{DivideInt 1 0}}", "{{Int `x`}}"]
)
def test_templates_that_mean_nothing_are_errors(template: str) -> None:
    with pytest.raises(TemplateError):
        compile_template(template).render({"a": 1})
