"""Tells in every ResourceQuota's status how much of it is in use.

Watches quotas, the kinds that quotas usually count, and from then on those that one names (`count/widgets.example.com`); writes the quotas'
status. Invariant: `status.hard` is `spec.hard`, and
`status.used` is the sum over the namespace as it was when it was last counted: after every change, and every five minutes. Admission does
not rely on it. Mirrors upstream pkg/controller/resourcequota.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from korch.api import quota
from korch.api.gvk import (
    CONFIG_MAPS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    REPLICATION_CONTROLLERS,
    RESOURCE_QUOTAS,
    SECRETS,
    SERVICES,
    ResourceRef,
)
from korch.api.meta import at, key_of, name_of, namespace_of
from korch.client.controller import Controller, Requeue, Watch, namespaces
from korch.client.informer import Informers
from korch.client.projections import Meta
from korch.client.protocol import Client, ListOptions
from korch.controllers.collecting.kinds import discover
from korch.controllers.workload.controller import decode_object, same_key
from korch.runtime.context import Runtime

Object = dict[str, Any]

RESYNC_S = 300.0
_COUNTED = (PODS, SERVICES, PERSISTENT_VOLUME_CLAIMS, CONFIG_MAPS, SECRETS, REPLICATION_CONTROLLERS)


class ResourceQuotaController(Controller):
    """Reconciles one quota a key."""

    name = "resourcequota-controller"
    workers = 2
    watches = (
        Watch(RESOURCE_QUOTAS, keys="quota_and_neighbours", decode=decode_object, indexes={"namespace": namespaces}),
        *(Watch(one, keys="quotas_of_namespace") for one in _COUNTED),
    )

    def __init__(self, client: Client, informers: Informers, runtime: Runtime) -> None:
        super().__init__(client, informers, runtime)
        # Kinds that are followed because a quota names them.
        self._named: set[ResourceRef] = set()

    def quota_and_neighbours(self, obj: Object) -> Iterable[str]:
        """Map a quota to itself and to those beside it, which may count quotas."""
        return {*same_key(obj), *(key_of(one) for one in self._in_namespace(namespace_of(obj)))}

    def quotas_of_namespace(self, obj: Meta) -> Iterable[str]:
        """Map an object to the quotas of its namespace."""
        return [key_of(one) for one in self._in_namespace(obj.namespace)]

    def _in_namespace(self, namespace: str) -> Iterable[Object]:
        return self.informer(RESOURCE_QUOTAS).by_index("namespace", namespace)

    async def reconcile(self, key: str) -> Requeue | None:
        found = self.informer(RESOURCE_QUOTAS).get_by_key(key)
        if found is None:
            return None
        hard = at(found, "spec", "hard") or {}
        used = dict.fromkeys(hard, 0)
        for resource in await self._kinds_of(hard):
            names = quota.names_for(resource.group, resource.plural, hard)
            page = await self.client.list(resource, ListOptions(namespace=namespace_of(found)))
            for obj in (orjson.loads(raw) for raw in page.items):
                if quota.is_selected(found, resource.group, resource.plural, obj):
                    for name, amount in quota.usage(resource.group, resource.plural, obj).items():
                        if name in names:
                            used[name] += amount
        shown = {name: quota.shown(name, amount) for name, amount in used.items()}
        status = {"hard": hard, "used": shown}
        if (found.get("status") or {}) != status:
            body = {**found, "status": status}
            written = await self.client.update(
                RESOURCE_QUOTAS, body, name=name_of(found), namespace=namespace_of(found), subresource="status"
            )
            self.wrote(key, RESOURCE_QUOTAS, written)
        return Requeue(RESYNC_S)

    async def _kinds_of(self, hard: Iterable[str]) -> list[ResourceRef]:
        """Return the kinds that have to be listed for these names, custom ones among them."""
        wanted: dict[tuple[str, str], ResourceRef] = {}
        for resource in (*_COUNTED, RESOURCE_QUOTAS):
            if quota.names_for(resource.group, resource.plural, hard):
                wanted[resource.group, resource.plural] = resource
        named = {tuple(name.removeprefix("count/").partition(".")[::2]) for name in hard if name.startswith("count/")}
        if named - {(plural, group) for group, plural in wanted}:
            for one in (await discover(self.client)).kinds:
                is_countable = one.ref.namespaced and {"list", "watch"} <= set(one.verbs)
                if is_countable and (one.ref.plural, one.ref.group) in named and (one.ref.group, one.ref.plural) not in wanted:
                    wanted[one.ref.group, one.ref.plural] = one.ref
                    self._count_from_now_on(one.ref)
        return list(wanted.values())

    def _count_from_now_on(self, resource: ResourceRef) -> None:
        if resource in self._named:
            return
        self._named.add(resource)

        def recount(obj: Meta) -> None:
            for key in self.quotas_of_namespace(obj):
                self.enqueue(key)

        self.informers.informer(resource).on(add=recount, delete=recount)
