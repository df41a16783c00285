"""Whatever is wrong with what is handed in is said with file, line and reason."""

from __future__ import annotations

import gzip
import sqlite3
from pathlib import Path

import orjson
import pytest
from tests.unit.lab.worlds import nodes, pod

from korch.lab.cluster import Cluster, load
from korch.lab.machines import GPU_MILLI, read_nodes, read_shape
from korch.lab.manifests import read_workload
from korch.lab.policies import read_config, read_policies
from korch.lab.source import BadInput, seconds
from korch.lab.traces import Machine, read_trace
from korch.lab.workload import Workload


def _file(directory: Path, name: str, text: str) -> str:
    (directory / name).write_text(text)
    return str(directory / name)


def _rows(workload: Workload) -> list[tuple[str, float, float, dict[str, str]]]:
    requests = [one["spec"]["containers"][0]["resources"]["requests"] for one in workload.templates]
    columns = zip(workload.names, workload.arrivals_s, workload.durations_s, workload.kinds, strict=True)
    return [(name, arrival, duration, requests[kind]) for name, arrival, duration, kind in columns]


# ---- nodes ----


def test_a_shape_says_what_a_node_has():
    [one, two] = read_nodes(["2 x 32cpu,128Gi,8gpu,pods=50,zone=a,label:disk=ssd,taint:team=x:NoSchedule,example.com/fpga=2"])
    assert two["metadata"]["name"] == "node-1"
    assert one["status"]["allocatable"] == {"pods": "50", "cpu": "32", "memory": "128Gi", "nvidia.com/gpu": "8", "example.com/fpga": "2"}
    assert one["metadata"]["labels"] == {"kubernetes.io/hostname": "node-0", "topology.kubernetes.io/zone": "a", "disk": "ssd"}
    assert one["spec"]["taints"] == [{"key": "team", "value": "x", "effect": "NoSchedule"}]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0cpu,1Gi", "a node needs cpu"),
        ("4cpu", "a node needs memory"),
        ("4cpu,-1Gi", "memory is -1Gi: must not be negative"),
        ("4cpu,128", "128 of memory is less than 1Mi; give a suffix, such as 128Gi"),
        ("4cpu,1Gi,pods=0", "a node that takes no pods is of no use"),
        ("4cpu,cpu=2,1Gi", "cpu is given twice"),
        ("4cpu,1Gi,1.5gpu", "nvidia.com/gpu is 1.5: extended resources are whole numbers"),
        ("4cpu,lots", "'lots' is no quantity"),
        ("4cpu,1Gi,taint:a=b:Never", "is not of the form taint:key=value:Effect"),
    ],
)
def test_an_impossible_shape_is_refused(text: str, reason: str):
    with pytest.raises(BadInput) as error:
        read_shape(text)
    assert str(error.value).startswith(f"node shape '{text}': ")
    assert reason in str(error.value)


def test_nodes_from_a_file_are_refused_with_their_line(tmp_path: Path):
    good = _file(tmp_path, "openb.csv", "sn,cpu_milli,memory_mib,gpu,model\nopenb-node-1,96000,786432,8,V100M32\n")
    [node] = read_nodes([good])
    assert node["status"]["allocatable"][GPU_MILLI] == "8000"
    assert node["metadata"]["labels"]["gpu-model"] == "V100M32"
    bad = _file(tmp_path, "bad.csv", "name,cpu,memory\na,4,8Gi\nb,-4,8Gi\n")
    with pytest.raises(BadInput, match=r"bad\.csv:3: cpu is '-4': must not be negative"):
        read_nodes([bad])
    with pytest.raises(BadInput, match="two nodes are named a"):
        read_nodes([_file(tmp_path, "twice.csv", "name,cpu,memory\na,4,8Gi\na,4,8Gi\n")])
    with pytest.raises(BadInput, match="say how many of which shape"):
        read_nodes(["many"])


# ---- korch's own trace ----


def test_a_trace_of_our_own_columns(tmp_path: Path):
    text = "arrival_s,cpu,memory,duration_s,name,count,priority,gpu,selector\n5,500m,1Gi,10,b,1,,,\n1.5,2,4Gi,,a,2,7,1,disk=ssd\n"
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text.encode()))
    found = read_trace(tmp_path / "t.csv.gz")
    large = {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1"}
    forever = float("inf")
    assert _rows(found) == [("a-0", 1.5, forever, large), ("a-1", 1.5, forever, large), ("b", 5, 10, {"cpu": "500m", "memory": "1Gi"})]
    assert found.templates[found.kinds[0]]["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert found.priority(found.kinds[0]) == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arrival_s,cpu\n1,2\n", "t.csv:1: no column memory; there are arrival_s, cpu"),
        ("arrival_s,cpu,memory,durations\n1,2,1Gi,3\n", "t.csv:1: unknown column durations; known are "),
        ("arrival_s,cpu,memory,duration_s\n1,2,1Gi,3\n2,2,1Gi,-3\n", "t.csv:3: duration_s is -3: must not be negative"),
        ("arrival_s,cpu,memory\n1,2,1Gi\n,2,1Gi\n", "t.csv:3: arrival_s is empty"),
        ("arrival_s,cpu,memory\n1,2,1Gi\n\n1,2\n", "t.csv:4: 2 cells where there are 3 columns"),
        ("arrival_s,cpu,memory\n1,two,1Gi\n", "t.csv:2: cpu is 'two': "),
        ("arrival_s,cpu,memory\nnan,2,1Gi\n", "t.csv:2: arrival_s is 'nan': not a finite number"),
        ("arrival_s,cpu,memory,name\n1,2,1Gi,a\n1,2,1Gi,a\n", "t.csv:3: a second task named a"),
        ("arrival_s,cpu,memory,selector\n1,2,1Gi,ssd\n", "t.csv:2: selector is 'ssd': must be key=value;key=value"),
        ("", "t.csv: the file is empty"),
        ("arrival_s,cpu,memory\n", "t.csv: no task in it; 0 rows have gaps"),
    ],
)
def test_a_bad_trace_is_refused_with_file_line_and_reason(tmp_path: Path, text: str, message: str):
    with pytest.raises(BadInput) as error:
        read_trace(_file(tmp_path, "t.csv", text))
    assert str(error.value).removeprefix(f"{tmp_path}/").startswith(message)


def test_rows_with_gaps_are_left_out_and_counted_when_that_is_wanted(tmp_path: Path):
    path = _file(tmp_path, "t.csv", "arrival_s,cpu,memory\n1,2,1Gi\n,2,1Gi\n3,,1Gi\n4,2,1Gi\n")
    found = read_trace(path, skips_gaps=True)
    assert (list(found.arrivals_s), found.skipped) == ([1, 4], 2)


# ---- public traces ----


def test_alibabas_batch_tasks_become_their_instances(tmp_path: Path):
    path = _file(tmp_path, "b.csv", "M1,2,j_1,A,Terminated,100,160,50,1.5\nR2_1,1,j_1,A,Running,120,0,100,\n")
    with pytest.raises(BadInput, match=r"b\.csv:2: plan_mem is empty"):
        read_trace(path, "alibaba")
    found = read_trace(path, "alibaba", machine=Machine.of("64cpu,100Gi"), skips_gaps=True)
    wants = {"cpu": "500m", "memory": "1536Mi"}
    assert _rows(found) == [("j_1.M1.1-0", 0, 60, wants), ("j_1.M1.1-1", 0, 60, wants)]


def test_alibabas_gpu_tasks_of_2020(tmp_path: Path):
    path = _file(tmp_path, "p.csv", "job,tensorflow,1.0,Terminated,1739162.0,1739200.0,600.0,29.296875,50.0,MISC\n")
    assert _rows(read_trace(path, "alibaba")) == [
        ("job.tensorflow.1-0", 0, 38, {"cpu": "6000m", "memory": "27940Mi", GPU_MILLI: "500"}),
    ]
    bad = _file(tmp_path, "n.csv", "job,tensorflow,1.0,Terminated,200.0,100.0,600.0,29.2,50.0,MISC\n")
    with pytest.raises(BadInput, match=r"n\.csv:1: end_time 100 is before start_time 200: a negative duration"):
        read_trace(bad, "alibaba")


def test_alibabas_openb_pods(tmp_path: Path):
    head = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n"
    body = "p1,88000,327680,8,1000,,Burstable,Succeeded,9437497,10769854,9437497\n"
    body += "p2,4000,15258,1,220,A|B,LS,Running,9679175,9973826,9679175\n"
    found = read_trace(_file(tmp_path, "o.csv", head + body), "alibaba")
    assert _rows(found) == [
        ("p1", 0, 1332357, {"cpu": "88000m", "memory": "327680Mi", GPU_MILLI: "8000"}),
        ("p2", 241678, 294651, {"cpu": "4000m", "memory": "15258Mi", GPU_MILLI: "220"}),
    ]
    affinity = found.templates[1]["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert affinity["nodeSelectorTerms"][0]["matchExpressions"] == [{"key": "gpu-model", "operator": "In", "values": ["A", "B"]}]
    with pytest.raises(BadInput, match=r"m\.csv:1: no column memory_mib"):
        read_trace(_file(tmp_path, "m.csv", "name,cpu_milli\nx,1\n"), "alibaba")


def test_azures_vm_table(tmp_path: Path):
    text = "vm1,s,d,300,600,90,10,80,Unknown,2,4\nvm2,s,d,0,900,90,10,80,Interactive,>24,>64\n"
    assert _rows(read_trace(_file(tmp_path, "v.csv", text), "azure")) == [
        ("vm2", 0, 900, {"cpu": "30000m", "memory": "66757Mi"}),
        ("vm1", 300, 300, {"cpu": "2000m", "memory": "3815Mi"}),
    ]
    with pytest.raises(BadInput, match=r"w\.csv:1: vmdeleted 200 is before vmcreated 300"):
        read_trace(_file(tmp_path, "w.csv", "vm1,s,d,300,200,90,10,80,Unknown,2,4\n"), "azure")


def test_azures_packing_trace(tmp_path: Path):
    path = tmp_path / "packing.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE vmType (id, vmTypeId, machineId, core, memory, hdd, ssd, nic)")
    connection.execute("CREATE TABLE vm (vmId, tenantId, vmTypeId, priority, starttime, endtime)")
    connection.execute("INSERT INTO vmType VALUES (1, 7, 1, 0.5, 0.25, 0, 0, 0), (2, 7, 2, 0.1, 0.1, 0, 0, 0)")
    connection.execute("INSERT INTO vm VALUES (1, 1, 7, 0, -1.5, 0.5), (2, 1, 7, 1, 1, NULL), (3, 1, 7, 1, -2, -1)")
    connection.commit()
    connection.close()
    found = read_trace(path, "azure", machine=Machine.of("64cpu,256Gi"))
    half = {"cpu": "32000m", "memory": "65536Mi"}
    assert _rows(found) == [("vm-1", 0, 43200, half), ("vm-2", 86400, float("inf"), half)]
    assert [found.priority(kind) for kind in found.kinds] == [1000, 0]
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO vm VALUES (4, 1, 8, 0, 1, 2)")
    connection.commit()
    connection.close()
    with pytest.raises(BadInput, match=r"packing\.sqlite, table vm:4: vmTypeId 8 has no size in vmType"):
        read_trace(path, "azure")


_BORG = "time,type,collection_id,instance_index,resource_request.cpus,resource_request.memory,priority,missing_type,alloc_collection_id\n"


def test_borgs_instances_run_as_long_as_their_longest_run(tmp_path: Path):
    rows = [
        "1000000,0,1,0,0.5,0.25,200,0,0", "2000000,SCHEDULE,1,0,,,200,0,0", "5000000,EVICT,1,0,,,200,0,0", "5000000,0,1,0,0.5,0.25,200,0,0",
        "6000000,3,1,0,,,200,0,0", "16000000,6,1,0,,,200,0,0", "3000000,0,2,0,0.1,0.1,100,0,9", "4000000,0,3,1,0.25,0.125,0,0,0",
        "5000000,3,3,1,,,0,0,0",
    ]  # fmt: skip
    found = read_trace(_file(tmp_path, "i.csv", _BORG + "\n".join(rows) + "\n"), "borg", machine=Machine.of("64cpu,256Gi"))
    assert _rows(found) == [
        ("1-0", 0, 10, {"cpu": "32000m", "memory": "65536Mi"}),
        ("3-1", 3, float("inf"), {"cpu": "16000m", "memory": "32768Mi"}),
    ]


def test_borgs_events_as_lines_of_json(tmp_path: Path):
    request = {"cpus": 0.5, "memory": 0.25}
    events = [{"type": "SUBMIT", "time": "0", "resource_request": request}, {"type": 3, "time": "1000000"}, {"type": 6, "time": "9000000"}]
    lines = [orjson.dumps({"collection_id": "1", "instance_index": 0} | one).decode() for one in events]
    assert [row[:3] for row in _rows(read_trace(_file(tmp_path, "i.json", "\n".join(lines)), "borg"))] == [("1-0", 0, 8)]
    with pytest.raises(BadInput, match=r"j\.json:2: no field collection_id"):
        read_trace(_file(tmp_path, "j.json", lines[0] + '\n{"time": 1, "type": 2}\n'), "borg")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["2000000,3,1,0,0.5,0.2,0,0,0"], "i.csv:2: instance 0 of collection 1 was never submitted"),
        (["1,0,1,0,0.5,0.2,0,0,0"], "i.csv:2: instance 0 of collection 1 was never scheduled"),
        (["1,0,1,0,0.5,0.2,0,0,0", "2,3,1,0,0.5,0.2,0,4,0"], "i.csv:2: instance 0 of collection 1 has an event that was made up"),
        (["9,0,1,0,0.5,0.2,0,0,0", "9000000,3,1,0,,,0,0,0", "2,6,1,0,,,0,0,0"], "i.csv:4: FINISH at 2e-06 s is before SCHEDULE at 9 s"),
        (["9,17,1,0,0.5,0.2,0,0,0"], "i.csv:2: type is '17': unknown"),
    ],
)
def test_gaps_in_a_borg_trace_are_named(tmp_path: Path, rows: list[str], message: str):
    with pytest.raises(BadInput) as error:
        read_trace(_file(tmp_path, "i.csv", _BORG + "\n".join(rows) + "\n"), "borg")
    assert message in str(error.value)


# ---- policies ----


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["profils: []"], 'p.yaml:3: strict decoding error: unknown field "profils"'),
        (["profiles:", "- schedulerName: a", "  plugin: {}"], 'p.yaml:5: strict decoding error: unknown field "profiles[0].plugin"'),
        (
            ["profiles:", "- pluginConfig:", "  - name: NodeResourcesFit", "    args:", "      strategy: {}"],
            'p.yaml:7: strict decoding error: unknown field "profiles[0].pluginConfig[0].args.strategy"',
        ),
        (
            ["profiles:", "- plugins: {filter: {enabled: [{name: Nope}]}}"],
            'p.yaml:4: profiles[0].plugins: Invalid value: "Nope"',
        ),
        (["percentageOfNodesToScore: 101"], 'p.yaml:3: percentageOfNodesToScore: Invalid value: "101"'),
        (["extenders:", "- urlPrefix: http://x"], "p.yaml:3: extenders: a webhook cannot be asked in a simulation"),
        (["a: [1"], "p.yaml:4: "),
    ],
)
def test_a_bad_policy_is_refused_with_its_line(tmp_path: Path, lines: list[str], message: str):
    head = ["apiVersion: kubescheduler.config.k8s.io/v1", "kind: KubeSchedulerConfiguration"]
    with pytest.raises(BadInput) as error:
        read_config(_file(tmp_path, "p.yaml", "\n".join([*head, *lines]) + "\n"))
    assert str(error.value).removeprefix(f"{tmp_path}/").startswith(message)


def test_policies_are_named_by_their_files(tmp_path: Path):
    text = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"
    paths = [_file(tmp_path, name, text) for name in ("a.yaml", "b.yaml")]
    assert [one.name for one in read_policies(paths)] == ["a", "b"]
    assert [one.name for one in read_policies([])] == ["default"]


# ---- workloads and clusters ----

_DEPLOYMENT = """\
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 1000
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  template:
    metadata:
      labels: {app: web}
      annotations: {korch.dev/arrival: 1m30s, korch.dev/duration: 2h}
    spec:
      priorityClassName: high
      containers: [{name: c, resources: {requests: {cpu: 500m}}}]
"""


def test_a_deployment_becomes_its_pods(tmp_path: Path):
    found = read_workload(_file(tmp_path, "w.yaml", _DEPLOYMENT), Cluster())
    assert _rows(found) == [(f"web-{number}", 90, 7200, {"cpu": "500m"}) for number in range(2)]
    assert (found.key(0), found.priority(0)) == ("shop/web-0", 1000)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("replicas: 2", "replicas: -2", "w.yaml:9: Deployment web: -2 pods: must be a whole number that is not negative"),
        ("priorityClassName: high", "priorityClassName: top", "w.yaml:16: Deployment web: no PriorityClass with name top was found"),
        ("cpu: 500m", "cpu: -1", "w.yaml:11: web: requests of cpu: must be greater than or equal to 0"),
        ("cpu: 500m", "cpu: much", "w.yaml:17: Deployment: spec.template.spec.containers[0].resources.requests.cpu: quantities must match"),
        ("korch.dev/duration: 2h", "korch.dev/duration: soon", "w.yaml:14: Deployment web: korch.dev/duration: 'soon' is no time"),
        ("kind: Deployment", "kind: Gateway", "w.yaml:7: Gateway makes no pods that a simulation knows of"),
        ("metadata: {name: web, namespace: shop}", "metadata: {}", "w.yaml:8: Deployment: metadata.name: Required value"),
        ("replicas: 2", "replicas: [", "w.yaml:"),
    ],
)
def test_a_bad_workload_is_refused_with_its_line(tmp_path: Path, old: str, new: str, message: str):
    assert old in _DEPLOYMENT
    with pytest.raises(BadInput) as error:
        read_workload(_file(tmp_path, "w.yaml", _DEPLOYMENT.replace(old, new)), Cluster())
    assert str(error.value).removeprefix(f"{tmp_path}/").startswith(message)


def test_jobs_and_daemonsets_become_as_many_pods_as_they_have(tmp_path: Path):
    spec = {"containers": [{"name": "c"}]}
    job = {"kind": "Job", "metadata": {"name": "j"}, "spec": {"parallelism": 5, "completions": 3, "template": {"spec": spec}}}
    daemon = {"kind": "DaemonSet", "metadata": {"name": "d"}, "spec": {"template": {"spec": spec | {"nodeSelector": {"disk": "ssd"}}}}}
    path = _file(tmp_path, "w.yaml", orjson.dumps({"kind": "List", "items": [job, daemon]}).decode())
    found = read_workload(path, nodes("2 x 4cpu,8Gi,label:disk=ssd", "1 x 4cpu,8Gi"))
    assert found.names == ["j-0", "j-1", "j-2", "d-node-a-0", "d-node-a-1"]


def test_a_snapshot_is_read_whether_kubectl_or_korch_wrote_it(tmp_path: Path):
    ended = pod("done") | {"status": {"phase": "Succeeded"}}
    items = [*nodes("1 x 4cpu,8Gi").nodes, pod("a", "node-0"), ended, {"kind": "PriorityClass", "metadata": {"name": "x"}, "value": 5}]
    path = _file(tmp_path, "s.json", orjson.dumps({"kind": "List", "items": items}).decode())
    found = load(path)
    assert ([one["metadata"]["name"] for one in found.pods], found.priorities()["x"]) == (["a"], 5)
    bad = [{"kind": "Node", "metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "-1"}}}]
    with pytest.raises(BadInput, match=r"b\.json, item 1: node n: status\.allocatable\.cpu is -1: must not be negative"):
        load(_file(tmp_path, "b.json", orjson.dumps({"kind": "List", "items": bad}).decode()))
    with pytest.raises(BadInput, match=r"c\.json:1: not JSON"):
        load(_file(tmp_path, "c.json", "{"))
    with pytest.raises(BadInput, match=r"nowhere\.json: No such file or directory"):
        load(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("items", 1, "metadata", "name"), 5, "item 2: Pod: metadata.name: json: cannot unmarshal number into Go struct field"),
        (("items", 1, "spec", "priority"), "high", "item 2: Pod: spec.priority: json: cannot unmarshal string into Go struct field"),
        (
            ("items", 1, "metadata", "ownerReferences"),
            "me",
            "item 2: Pod: metadata.ownerReferences: json: cannot unmarshal string into Go struct field",
        ),
        (("items", 0, "metadata", "labels"), [1], "item 1: Node: metadata.labels: json: cannot unmarshal array into Go struct field"),
        (("items", 1, "apiVersion"), 5, "item 2: Pod: apiVersion is 5: must be a string"),
        (
            ("items", 1, "spec", "containers", 0, "ports"),
            [{"hostPort": -1}],
            "item 2: a: hostPort -1: must be between 1 and 65535, inclusive",
        ),
        (("items",), 5, "item 1: not a Kubernetes object: it has no kind"),
    ],
)
def test_an_object_with_fields_of_wrong_types_is_refused(tmp_path: Path, path: tuple[str | int, ...], value: object, message: str):
    whole = orjson.loads(orjson.dumps({"kind": "List", "items": [*nodes("1 x 4cpu,8Gi").nodes, pod("a", "node-0")]}))
    place = whole
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(BadInput) as error:
        load(_file(tmp_path, "s.json", orjson.dumps(whole).decode()))
    assert message in str(error.value)


def test_nulls_in_a_snapshot_are_read_as_the_api_server_reads_them(tmp_path: Path):
    one = pod("a", "node-0") | {"status": None}
    one["metadata"] = one["metadata"] | {"labels": {"app": None}, "creationTimestamp": None}
    items = [*nodes("1 x 4cpu,8Gi").nodes, one]
    [found] = load(_file(tmp_path, "s.json", orjson.dumps({"kind": "List", "items": items}).decode())).pods
    assert found["metadata"]["labels"] == {"app": ""} and "creationTimestamp" not in found["metadata"]


@pytest.mark.parametrize(("text", "found"), [("90", 90), ("1m30s", 90), ("2h", 7200), ("1d1h", 90000), ("0.5s", 0.5)])
def test_times_are_read(text: str, found: float):
    assert seconds(text) == found


@pytest.mark.parametrize("text", ["", "soon", "-5s", "5x"])
def test_what_is_no_time_is_refused(text: str):
    with pytest.raises(ValueError, match="is no time such as"):
        seconds(text)
