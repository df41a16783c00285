"""What DaemonSets take on a node that was not there before: it has that much less to give to others."""

from __future__ import annotations

from collections.abc import Sequence

from korch.api import quantity
from korch.api.meta import Object, at
from korch.api.pods import amounts, requests
from korch.controllers.nodes.eligibility import should_run, with_daemon_tolerations


def with_daemons(node: Object, daemon_sets: Sequence[Object]) -> Object:
    """Return the node with its allocatable resources less what the pods of these DaemonSets will take there."""
    left = amounts(at(node, "status", "allocatable"))
    for one in daemon_sets:
        template = at(one, "spec", "template")
        spec = at(template, "spec")
        if not spec or not should_run(with_daemon_tolerations(spec), node)[0]:
            continue
        for name, amount in ({"pods": 1} | requests(template)).items():
            left[name] = max(0, left.get(name, 0) - amount)
    allocatable = {name: quantity.from_milli(amount) if name == "cpu" else str(amount) for name, amount in left.items()}
    return {**node, "status": {**node["status"], "allocatable": allocatable}}
