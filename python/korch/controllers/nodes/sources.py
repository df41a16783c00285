"""What the node controllers follow: nodes, their leases, and pods by the node they are bound to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from korch.api.meta import at

Object = dict[str, Any]

LEASE_NAMESPACE = "kube-node-lease"
BY_NODE = "node"


def node_names(pod: Object) -> Iterable[str]:
    """Index pods by the node they are bound to."""
    name = at(pod, "spec", "nodeName")
    return (name,) if name else ()
