"""Nodes as the strategies of createNodes leave them.

Upstream makes a node and then changes it in a second call; here it is made as it will be. Mirrors scheduler_perf's PrepareNodeStrategy.
"""

from __future__ import annotations

from typing import Any

from korch.lab.bench.operation import CreateNodes, NodeAllocatable

Object = dict[str, Any]
HOSTNAME = "kubernetes.io/hostname"


def prepared(node: Object, operation: CreateNodes, index: int) -> None:
    """Complete a node that has its name, in place. `index` counts all nodes of the workload."""
    metadata = node["metadata"]
    labels = metadata["labels"] = {**(metadata.get("labels") or {}), HOSTNAME: metadata["name"]}
    status = node.setdefault("status", {})
    # As the API server's default: who reserves nothing has everything to give.
    status["allocatable"] = {**(status.get("capacity") or {}), **(status.get("allocatable") or {})}
    if (strategy := operation.label_node_prepare_strategy) is not None:
        labels[strategy.label_key] = strategy.label_values[index % len(strategy.label_values)]
    elif (unique := operation.unique_node_label_strategy) is not None:
        labels[unique.label_key] = f"value-{index}"
    elif operation.node_allocatable_strategy is not None:
        status["allocatable"] |= operation.node_allocatable_strategy.node_allocatable


def csi_node(name: str, strategy: NodeAllocatable) -> Object:
    """Return the CSINode of a node that can attach so many volumes."""
    drivers = [
        {"name": driver, "nodeID": name, "allocatable": {"count": limit.count}} for driver, limit in strategy.csi_node_allocatable.items()
    ]
    annotations = {"storage.alpha.kubernetes.io/migrated-plugins": ",".join(strategy.migrated_plugins)}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSINode",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"drivers": drivers},
    }
