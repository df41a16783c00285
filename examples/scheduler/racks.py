"""A scheduler plugin: pods stay on the rack that their label `rack` names, and fill its nodes one after the other.

Run it as a second scheduler, for pods with `schedulerName: racks`, from this directory:

    PYTHONPATH=. korch scheduler --kubeconfig ~/.kube/config --config scheduler.yaml
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from korch.scheduler.plugins import NodeTable, Object, Plugin


class Racks(Plugin):
    """`label` of the arguments is the nodes' label that says on which rack they are."""

    name = "Racks"

    def __init__(self, args: Mapping[str, Any]) -> None:
        self._label: str = args.get("label", "rack")

    def concerns(self, pod: bytes) -> bool:
        return b'"rack"' in pod

    def filter(self, pod: Object, nodes: NodeTable) -> Sequence[str]:
        wanted = (pod["metadata"].get("labels") or {}).get("rack")
        if wanted is None:
            return [""] * len(nodes)
        return ["" if rack == wanted else "node(s) on another rack" for rack in nodes.labels(self._label)]

    def score(self, pod: Object, nodes: NodeTable) -> Sequence[int]:
        total, used = nodes.allocatable("cpu"), nodes.requested("cpu")
        return [int(100 * used[at] / total[at]) if total[at] else 0 for at in range(len(nodes))]
