"""Fills the ClusterRoles that gather others: `rules` becomes the sum of the rules of all ClusterRoles that `aggregationRule` selects.

Watches and writes ClusterRoles. Invariant: an aggregated role holds every rule of the roles it selects once, in the order of their
names, and nothing else. Mirrors upstream pkg/controller/clusterroleaggregation.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from korch.api.gvk import CLUSTER_ROLES
from korch.api.meta import at, key_of, labels_of, name_of
from korch.api.validation import selector_matches
from korch.client.controller import Controller, Requeue, Watch
from korch.controllers.workload.controller import decode_object

Object = dict[str, Any]


class ClusterRoleAggregationController(Controller):
    """Reconciles one aggregated ClusterRole a key."""

    name = "clusterrole-aggregation-controller"
    workers = 1
    watches = (Watch(CLUSTER_ROLES, keys="aggregating_keys", decode=decode_object),)

    def aggregating_keys(self, _changed: Object) -> Iterable[str]:
        """Map any change to all aggregated roles: its labels may have made it a part of any of them, or no longer."""
        informer = self.informer(CLUSTER_ROLES)
        return [key_of(role) for role in informer.list() if role.get("aggregationRule")]

    async def on_start(self) -> None:
        for key in self.aggregating_keys({}):
            self.enqueue(key)

    async def reconcile(self, key: str) -> Requeue | None:
        informer = self.informer(CLUSTER_ROLES)
        role = informer.get_by_key(key)
        if role is None or not role.get("aggregationRule"):
            return None
        rules = gathered(role, informer.list())
        if rules != (role.get("rules") or []):
            self.wrote(key, CLUSTER_ROLES, await self.client.update(CLUSTER_ROLES, {**role, "rules": rules}, name=name_of(role)))
        return None


def gathered(role: Object, roles: Iterable[Object]) -> list[Object]:
    """Return the rules that `role` should have."""
    selectors = at(role, "aggregationRule", "clusterRoleSelectors") or ()
    rules: list[Object] = []
    for one in sorted(roles, key=name_of):
        if name_of(one) != name_of(role) and any(selector_matches(selector, labels_of(one)) for selector in selectors):
            for rule in one.get("rules") or ():
                if rule not in rules:
                    rules.append(rule)
    return rules
