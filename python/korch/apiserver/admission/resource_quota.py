"""ResourceQuota: nothing is created, and nothing grows, beyond what the quotas of its namespace allow.

What is in use is counted from the store at the time of asking, so that what was deleted is free again at once; writes that were
admitted and are not visible yet are counted too. Namespaces without quotas cost one look at an empty range.
Mirrors plugin/pkg/admission/resourcequota.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

from korch.api import quota as quotas
from korch.api.errors import Forbidden
from korch.apiserver.admission import AdmissionRequest
from korch.apiserver.records import Records
from korch.resources.core import resourcequota
from korch.resources.resource import Resource
from korch.runtime.clock import Clock

if TYPE_CHECKING:
    from korch.apiserver.pod_recipes import PodFacts

Object = dict[str, Any]

# An admitted write that has not become visible after this long has failed.
_PENDING_S = 5.0
_REMEMBERED = 20_000


class ResourceQuota:
    """Counts at the very end of admission, when the object is as it will be stored."""

    def __init__(self, records: Records, clock: Clock) -> None:
        self._records = records
        self._clock = clock
        # (kind's prefix, namespace) -> key -> (the object, until when it counts without being visible)
        self._pending: dict[tuple[bytes, str], dict[bytes, tuple[Object, float]]] = {}

    def admit(self, request: AdmissionRequest) -> None:
        """Raise Forbidden when a quota is exceeded, or when a pod does not say what a quota must know."""
        resource = request.resource
        if request.obj is None or request.subresource not in ("", "resize") or not resource.namespaced or resource.is_virtual:
            return
        found = self._quotas(request.namespace)
        if not found:
            return
        applies = False
        for quota in (orjson.loads(value) for value in found):
            names = quotas.names_for(resource.group, resource.plural, (quota.get("spec") or {}).get("hard") or ())
            if names and quotas.is_selected(quota, resource.group, resource.plural, request.obj):
                self._check(request, quota, names)
                applies = True
        if applies and request.operation == "CREATE" and not request.is_dry_run:
            self._remember(request)

    def pod_footing(self, pod: PodFacts) -> object | None:
        """Return that there are no quotas; where there are, each pod counts."""
        return None if self._quotas(pod.namespace) else True

    def _quotas(self, namespace: str) -> Sequence[bytes]:
        return self._records.storage.range(resourcequota.RESOURCE.key_prefix(namespace)).values

    def _check(self, request: AdmissionRequest, quota: Object, names: set[str]) -> None:
        resource, obj = request.resource, request.obj or {}
        group, plural = resource.group, resource.plural
        name = quota["metadata"]["name"]
        if plural == "pods" and not group and request.operation == "CREATE":
            lacking = quotas.missing_limits(obj, names)
            if lacking:
                told = "; ".join(f"{one} for: {','.join(dict.fromkeys(lacking[one]))}" for one in sorted(lacking))
                raise _refusal(request, f"failed quota: {name}: must specify {told}")
        wanted = quotas.usage(group, plural, obj)
        if request.old is not None:
            before = quotas.usage(group, plural, request.old) if quotas.is_selected(quota, group, plural, request.old) else {}
            wanted = {key: amount - before.get(key, 0) for key, amount in wanted.items()}
        wanted = {key: amount for key, amount in wanted.items() if key in names and amount > 0}
        if not wanted:
            return
        used = self._used(request, quota)
        hard = {key: quotas.amount_of(text) for key, text in quota["spec"]["hard"].items() if key in wanted}
        over = sorted(key for key, amount in wanted.items() if used.get(key, 0) + amount > hard[key])
        if over:
            parts = [
                f"{label}: " + ",".join(f"{key}={quotas.shown(key, amounts.get(key, 0))}" for key in over)
                for label, amounts in (("requested", wanted), ("used", used), ("limited", hard))
            ]
            raise _refusal(request, f"exceeded quota: {name}, {', '.join(parts)}")

    def _used(self, request: AdmissionRequest, quota: Object) -> dict[str, int]:
        resource, namespace = request.resource, request.namespace
        prefix = resource.key_prefix(namespace)
        page = self._records.storage.range(prefix)
        scoped = bool(quota["spec"].get("scopes") or quota["spec"].get("scopeSelector"))
        total: dict[str, int] = {}
        for value in page.values:
            if not scoped or quotas.is_selected(quota, resource.group, resource.plural, orjson.loads(value)):
                _add(total, _usage(resource.group, resource.plural, value))
        for obj in self._unseen(resource, namespace, set(page.keys)):
            if quotas.is_selected(quota, resource.group, resource.plural, obj):
                _add(total, tuple(quotas.usage(resource.group, resource.plural, obj).items()))
        return total

    def _remember(self, request: AdmissionRequest) -> None:
        obj = request.obj or {}
        key = request.resource.key(request.namespace, obj["metadata"]["name"])
        pending = self._pending.setdefault((request.resource.key_prefix(), request.namespace), {})
        pending[key] = (orjson.loads(orjson.dumps(obj)), self._clock.monotonic() + _PENDING_S)

    def _unseen(self, resource: Resource, namespace: str, visible: set[bytes]) -> Sequence[Object]:
        place = (resource.key_prefix(), namespace)
        now = self._clock.monotonic()
        kept = {key: one for key, one in self._pending.get(place, {}).items() if key not in visible and one[1] > now}
        if kept:
            self._pending[place] = kept
        else:
            self._pending.pop(place, None)
        return [obj for obj, _ in kept.values()]


@lru_cache(maxsize=_REMEMBERED)
def _usage(group: str, plural: str, value: bytes) -> tuple[tuple[str, int], ...]:
    return tuple(quotas.usage(group, plural, orjson.loads(value)).items())


def _add(total: dict[str, int], amounts: Sequence[tuple[str, int]]) -> None:
    for name, amount in amounts:
        total[name] = total.get(name, 0) + amount


def _refusal(request: AdmissionRequest, why: str) -> Forbidden:
    name = request.name or (request.obj or {}).get("metadata", {}).get("name") or ""
    return Forbidden(request.resource.group, request.resource.plural, name, why)
