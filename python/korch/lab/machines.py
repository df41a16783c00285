"""Nodes from a few words: `100 x 32cpu,128Gi` is a hundred of them.

A shape is a list of parts between commas: `32cpu`, `128Gi` (memory), `8gpu` (nvidia.com/gpu), `pods=110`, any resource as
`name=quantity`, `zone=a`, `label:key=value`, `taint:key=value:Effect`. `N x @node.yaml` takes the shape from a Node in a file.
A CSV file gives nodes one by one: columns name, cpu, memory and any of gpu, pods, zone, model; or the columns sn, cpu_milli,
memory_mib, gpu, model of the node lists of Alibaba's cluster-trace-gpu-v2023
(https://github.com/alibaba/clusterdata/tree/master/cluster-trace-gpu-v2023).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from korch.api import quantity
from korch.api.meta import Object, at
from korch.lab.source import BadInput, Place, Row, documents, first_row, table
from korch.lab.workload import GPU

PODS_MAX = "110"
ZONE = "topology.kubernetes.io/zone"
HOSTNAME = "kubernetes.io/hostname"
GPU_MODEL = "gpu-model"
# Thousandths of GPUs, added up over the node: traces with shared GPUs ask for parts of one.
GPU_MILLI = "korch.dev/gpu-milli"

_COUNTED = re.compile(r"\s*(\d+)\s*[x×]\s*(\S.*)")
_BARE = re.compile(r"(\d+(?:\.\d+)?)(cpus?|gpus?)")
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


@dataclass(frozen=True)
class Shape:
    """What a kind of node has to give (quantities by resource), and its labels and taints."""

    text: str
    resources: dict[str, str]
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[dict[str, str], ...] = ()

    def node(self, name: str) -> Object:
        """Return a Node of this shape."""
        metadata: Object = {"name": name, "labels": {HOSTNAME: name, **self.labels}}
        resources = {"pods": PODS_MAX, **self.resources}
        spec: Object = {"taints": [dict(one) for one in self.taints]} if self.taints else {}
        status: Object = {"allocatable": resources, "capacity": resources, "conditions": [{"type": "Ready", "status": "True"}]}
        return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec, "status": status}


def read_nodes(texts: Sequence[str]) -> list[Object]:
    """Return the nodes that `--nodes` options ask for, in their order. Raises BadInput."""
    nodes: list[Object] = []
    for index, text in enumerate(texts):
        counted = _COUNTED.fullmatch(text)
        if counted is not None:
            shape = read_shape(counted[2].strip())
            prefix = f"node-{chr(ord('a') + index)}" if len(texts) > 1 else "node"
            nodes += [shape.node(f"{prefix}-{number}") for number in range(int(counted[1]))]
        elif Path(text).suffix in (".csv", ".gz"):
            nodes += _listed(text)
        else:
            raise BadInput(Place(f"--nodes {text!r}"), "say how many of which shape, such as '3 x 32cpu,128Gi', or name a CSV file")
    _refuse_doubles(nodes)
    return nodes


def read_shape(text: str) -> Shape:
    """Return the shape that a text describes. Raises BadInput."""
    place = Place(f"node shape {text!r}")
    if text.startswith("@"):
        return _shape_of_file(text)
    resources: dict[str, str] = {}
    labels: dict[str, str] = {}
    taints: list[dict[str, str]] = []
    for part in (one.strip() for one in text.split(",")):
        name, has_value, value = part.partition("=")
        bare = _BARE.fullmatch(part)
        if bare is not None:
            _set(place, resources, "cpu" if bare[2].startswith("cpu") else GPU, bare[1])
        elif name.startswith("label:") and has_value:
            labels[name.removeprefix("label:")] = value
        elif name.startswith("taint:"):
            taints.append(_taint(place, part.removeprefix("taint:")))
        elif name == "zone" and has_value:
            labels[ZONE] = value
        elif has_value:
            _set(place, resources, name, value)
        else:
            _set(place, resources, "memory", part)
    return _checked(place, Shape(text, resources, labels, tuple(taints)))


def _set(place: Place, resources: dict[str, str], name: str, value: str) -> None:
    if name in resources:
        raise BadInput(place, f"{name} is given twice")
    try:
        amount = quantity.milli(value)
    except ValueError:
        raise BadInput(place, f"{value!r} is no quantity and no part of a shape such as 32cpu, 128Gi, 8gpu, pods=110, zone=a") from None
    if amount < 0:
        raise BadInput(place, f"{name} is {value}: must not be negative")
    resources[name] = value


def _checked(place: Place, shape: Shape) -> Shape:
    for name in ("cpu", "memory"):
        if quantity.milli(shape.resources.get(name, "0")) <= 0:
            raise BadInput(place, f"a node needs {name}")
    if quantity.value(shape.resources.get("pods", PODS_MAX)) < 1:
        raise BadInput(place, "a node that takes no pods is of no use")
    if quantity.value(shape.resources["memory"]) < 1 << 20:
        raise BadInput(place, f"{shape.resources['memory']} of memory is less than 1Mi; give a suffix, such as 128Gi")
    for name in (GPU, *(one for one in shape.resources if "/" in one)):
        if quantity.milli(shape.resources.get(name, "0")) % 1000:
            raise BadInput(place, f"{name} is {shape.resources[name]}: extended resources are whole numbers")
    return shape


def _taint(place: Place, text: str) -> dict[str, str]:
    rest, colon, effect = text.rpartition(":")
    if not colon or effect not in _EFFECTS or not rest:
        raise BadInput(place, f"taint:{text} is not of the form taint:key=value:Effect with an effect of {', '.join(_EFFECTS)}")
    key, _, value = rest.partition("=")
    return {"key": key, "effect": effect} | ({"value": value} if value else {})


def _shape_of_file(text: str) -> Shape:
    for document in documents(text[1:]):
        node = document.value
        if at(node, "kind") != "Node":
            continue
        resources = at(node, "status", "allocatable") or at(node, "status", "capacity")
        if not isinstance(resources, dict):
            raise BadInput(document.place("status"), "the Node has no status.allocatable")
        plain: dict[str, str] = {}
        for name, value in resources.items():
            _set(document.place("status", "allocatable", name), plain, name, str(value))
        labels = {key: value for key, value in (at(node, "metadata", "labels") or {}).items() if key != HOSTNAME}
        return _checked(document.place(), Shape(text, plain, labels, tuple(at(node, "spec", "taints") or ())))
    raise BadInput(Place(text[1:]), "no Node in it")


def _listed(path: str) -> list[Object]:
    if first_row(path)[:1] == ["sn"]:
        rows = table(path, needed=("sn", "cpu_milli", "memory_mib", "gpu", "model"))
        return [_alibaba(row).node(row.text("sn")) for row in rows]
    known = ("name", "cpu", "memory", "gpu", "pods", "zone", "model")
    return [_own(row).node(row.text("name")) for row in table(path, needed=known[:3], known=known)]


def _own(row: Row) -> Shape:
    resources = {"cpu": row.quantity("cpu"), "memory": row.quantity("memory")}
    for column, name in (("pods", "pods"), ("gpu", GPU)):
        if row.text(column, ""):
            resources[name] = row.quantity(column)
    labels = {label: row.text(column) for column, label in (("zone", ZONE), ("model", GPU_MODEL)) if row.text(column, "")}
    return _checked(row.place, Shape(str(row.place), resources, labels))


def _alibaba(row: Row) -> Shape:
    resources = {"cpu": f"{row.whole('cpu_milli')}m", "memory": f"{row.whole('memory_mib')}Mi", "pods": "250"}
    gpus, model = row.whole("gpu"), row.text("model", "")
    if gpus:
        resources |= {GPU: str(gpus), GPU_MILLI: str(gpus * 1000)}
    return _checked(row.place, Shape(str(row.place), resources, {GPU_MODEL: model} if model and model != "nan" else {}))


def _refuse_doubles(nodes: Sequence[Object]) -> None:
    seen: set[str] = set()
    for node in nodes:
        name = node["metadata"]["name"]
        if name in seen:
            raise BadInput(Place("--nodes"), f"two nodes are named {name}")
        seen.add(name)
