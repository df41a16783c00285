"""Keeps as many pods alive as a ReplicationController asks for: a ReplicaSet in an older dress, whose selector is a plain map.

Watches ReplicationControllers and pods; writes pods and ReplicationController status. Mirrors upstream pkg/controller/replication.
"""

from __future__ import annotations

from typing import Any

from korch.api import selectors
from korch.api.gvk import PODS, REPLICATION_CONTROLLERS
from korch.api.meta import at
from korch.controllers.replicaset import ReplicaSetController
from korch.controllers.workload.controller import watch_dependents, watch_own


class ReplicationControllerController(ReplicaSetController):
    """Reconciles one ReplicationController a key."""

    name = "replication-controller"
    resource = REPLICATION_CONTROLLERS
    watches = (watch_own(REPLICATION_CONTROLLERS), watch_dependents(PODS))

    def selector_of(self, owner: dict[str, Any]) -> selectors.Requirements:
        chosen = at(owner, "spec", "selector")
        return selectors.from_label_selector({"matchLabels": chosen} if chosen else None)
