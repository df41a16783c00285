"""Adding nodes while pods wait and removing those that stay empty; see `events.Autoscaling` for the rules."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import orjson

from korch.api.meta import at
from korch.api.pods import amounts
from korch.lab.cluster import Cluster
from korch.lab.daemons import with_daemons
from korch.lab.events import Autoscaling, nodes_wanted
from korch.lab.policies import Policy
from korch.lab.workload import PodBytes

if TYPE_CHECKING:
    from korch.lab.simulation import Simulation

IDLE, BOOTED, SCAN = 3, 4, 5


class Growth:
    """The nodes that were added to one simulation. It pushes events of its three kinds, and is called when they are due."""

    def __init__(self, autoscaling: Autoscaling, cluster: Cluster, policy: Policy, simulation: Simulation) -> None:
        self._autoscaling = autoscaling
        self._daemon_sets = cluster.of_kind("DaemonSet")
        self._policy = policy
        self._simulation = simulation
        sample = with_daemons(autoscaling.shape.node("auto-sample"), self._daemon_sets)
        has = amounts(at(sample, "status", "allocatable"))
        self._sample = orjson.dumps(sample)
        self._capacity = [has.get(name, 0) for name in simulation.ledger.resources]
        self._fits: dict[int, bool] = {}
        self._booting = 0
        self._made = 0
        # Nodes that are there, and how often each was found empty.
        self._own: dict[int, int] = {}
        self._is_scan_planned = self._is_scan_due = False
        self._futile_at = -1

    def scan(self) -> None:
        """Let the next `look` order nodes: what came at this instant must have been used first."""
        self._is_scan_planned, self._is_scan_due = False, True

    def look(self, now: float) -> None:
        """Order nodes if a scan is due, and plan the next one when pods wait and there may be more nodes."""
        if self._is_scan_due:
            self._is_scan_due = False
            self._order()
        is_full = len(self._own) + self._booting >= self._autoscaling.most
        if self._is_scan_planned or is_full or self._futile_at == self._simulation.enqueued:
            return
        self._is_scan_planned = True
        scan_s = self._autoscaling.scan_s
        self._simulation.push((math.floor(now / scan_s) + 1) * scan_s, SCAN)

    def _order(self) -> None:
        """Order as many nodes as the waiting pods need, at most as many as there may be."""
        simulation = self._simulation
        waiting = [simulation.tasks.kinds[task] for task in simulation.waiting_tasks()]
        fitting = [simulation.ledger.takes[kind] for kind in waiting if self._fits_when_empty(kind)]
        wanted = nodes_wanted(fitting, self._capacity, self._booting)
        wanted = min(wanted, self._autoscaling.most - len(self._own) - self._booting)
        for _ in range(wanted):
            simulation.push(simulation.now + self._autoscaling.boot_s, BOOTED)
        self._booting += wanted
        if not self._booting:
            self._futile_at = simulation.enqueued

    def booted(self) -> None:
        """Let an ordered node come."""
        self._booting -= 1
        node = with_daemons(self._autoscaling.shape.node(f"auto-{self._made}"), self._daemon_sets)
        self._made += 1
        number = self._simulation.node_added(node)
        self._simulation.outcome.nodes_added += 1
        self._own[number] = 0
        self.became_empty(number)

    def became_empty(self, node: int) -> None:
        """Note that the last pod left a node; it goes if it is still empty later."""
        if node in self._own:
            self._own[node] += 1
            self._simulation.push(self._simulation.now + self._autoscaling.idle_s, IDLE, node, self._own[node])

    def remove_if_idle(self, node: int, times_empty: int) -> None:
        """Remove a node that was empty all the while since it became so for the `times_empty`th time."""
        simulation = self._simulation
        if self._own.get(node) == times_empty and simulation.ledger.is_empty(node) and simulation.ledger.is_up[node]:
            del self._own[node]
            simulation.node_down(node)
            simulation.outcome.nodes_removed += 1
            self._futile_at = -1

    def _fits_when_empty(self, kind: int) -> bool:
        known = self._fits.get(kind)
        if known is None:
            engine = self._policy.engine()
            engine.upsert([self._sample], [])
            pod = PodBytes(self._simulation.tasks.templates[kind]).of("sample")
            known = self._fits[kind] = bool(engine.schedule([pod], now_ms=0, seed=0)[0].node)
        return known
