"""LimitRanger: pods and claims get the defaults of their namespace's LimitRanges, and are refused beyond their bounds.

Mirrors plugin/pkg/admission/limitranger/admission.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from korch.api import pods, quantity
from korch.api.errors import Forbidden
from korch.api.meta import at
from korch.apiserver.admission import AdmissionRequest
from korch.apiserver.records import Records
from korch.resources.core import limitrange

if TYPE_CHECKING:
    from korch.apiserver.pod_recipes import PodFacts

Object = dict[str, Any]

_ANNOTATION = "kubernetes.io/limit-ranger"
_KINDS = (("containers", "container"), ("initContainers", "init container"))


class LimitRanger:
    """Looks at new pods and at claims."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def admit(self, request: AdmissionRequest) -> None:
        """Fill in a new pod; raise Forbidden with everything that is out of bounds."""
        is_pod = request.concerns("", "pods") and request.operation == "CREATE"
        is_resize = request.resource.plural == "pods" and request.subresource == "resize"
        is_claim = request.concerns("", "persistentvolumeclaims")
        if request.obj is None or not (is_pod or is_claim or is_resize):
            return
        ranges = [orjson.loads(value) for value in self._ranges(request.namespace)]
        items = [item for one in ranges for item in at(one, "spec", "limits") or ()]
        if not items:
            return
        if is_pod:
            for item in items:
                if item.get("type") == "Container":
                    _fill(request.obj, item)
        problems = [text for item in items for text in _problems(request.obj, item, is_claim=is_claim)]
        if problems:
            told = problems[0] if len(problems) == 1 else f"[{', '.join(dict.fromkeys(problems))}]"
            name = request.name or at(request.obj, "metadata", "generateName") or ""
            raise Forbidden("", request.resource.plural, name, told)

    def pod_footing(self, pod: PodFacts) -> object | None:
        """Return that there are no LimitRanges; where there are, each pod is looked at."""
        return None if self._ranges(pod.namespace) else True

    def _ranges(self, namespace: str) -> Sequence[bytes]:
        return self._records.storage.range(limitrange.RESOURCE.key_prefix(namespace)).values


def _fill(pod: Object, item: Object) -> None:
    """Give containers what the LimitRange says they ask for when they ask for nothing."""
    notes: list[str] = []
    for kind, word in _KINDS:
        for container in at(pod, "spec", kind) or ():
            for field, source in (("limits", "default"), ("requests", "defaultRequest")):
                given = {
                    name: value for name, value in (item.get(source) or {}).items() if name not in (at(container, "resources", field) or {})
                }
                if not given:
                    continue
                resources = container.setdefault("resources", {})
                resources[field] = {**(resources.get(field) or {}), **given}
                notes.append(f"{', '.join(sorted(given))} {field.removesuffix('s')} for {word} {container.get('name')}")
    if notes:
        notes.sort(key=lambda note: " limit for " in note)
        pod["metadata"].setdefault("annotations", {})[_ANNOTATION] = "LimitRanger plugin set: " + "; ".join(notes)


def _problems(obj: Object, item: Object, *, is_claim: bool) -> list[str]:
    kind = item.get("type")
    if is_claim:
        if kind != "PersistentVolumeClaim":
            return []
        requests = at(obj, "spec", "resources", "requests") or {}
        return [*_claim_bounds(item, requests)]
    if kind == "Container":
        containers = [one for field, _ in _KINDS for one in at(obj, "spec", field) or ()]
        return [
            text
            for one in containers
            for text in _bounds(item, at(one, "resources", "requests") or {}, at(one, "resources", "limits") or {})
        ]
    if kind == "Pod":
        return _bounds(item, _texts(pods.requests(obj)), _texts(pods.limits(obj)))
    return []


def _texts(amounts: Mapping[str, int]) -> dict[str, str]:
    def text(name: str, amount: int) -> str:
        if name == "cpu":
            return quantity.from_milli(amount)
        return quantity.from_bytes(amount) if name.startswith(("memory", "ephemeral", "hugepages")) else str(amount)

    return {name: text(name, amount) for name, amount in amounts.items()}


def _bounds(item: Object, requests: Mapping[str, Any], limits: Mapping[str, Any]) -> list[str]:
    kind, problems = item.get("type"), list[str]()
    for name, bound in (item.get("min") or {}).items():
        head = f"minimum {name} usage per {kind} is {quantity.canonical(bound)}"
        request, limit = requests.get(name), limits.get(name)
        if request is None:
            problems.append(f"{head}.  No request is specified")
        elif limit is not None and _milli(limit) < _milli(bound):
            problems.append(f"{head}, but limit is {quantity.canonical(limit)}")
        elif _milli(request) < _milli(bound):
            problems.append(f"{head}, but request is {quantity.canonical(request)}")
    for name, bound in (item.get("max") or {}).items():
        head = f"maximum {name} usage per {kind} is {quantity.canonical(bound)}"
        request, limit = requests.get(name), limits.get(name)
        if limit is None:
            problems.append(f"{head}.  No limit is specified")
        elif _milli(limit) > _milli(bound):
            problems.append(f"{head}, but limit is {quantity.canonical(limit)}")
        elif request is not None and _milli(request) > _milli(bound):
            problems.append(f"{head}, but request is {quantity.canonical(request)}")
    for name, bound in (item.get("maxLimitRequestRatio") or {}).items():
        request, limit = requests.get(name), limits.get(name)
        head = f"{name} max limit to request ratio per {kind} is {quantity.canonical(bound)}"
        if request is None or limit is None or not _milli(request) or not _milli(limit):
            problems.append(
                f"{head}, but no request is specified or request is 0"
                if not request
                else f"{head}, but no limit is specified or limit is 0"
            )
        elif _milli(limit) * 1000 > _milli(bound) * _milli(request):
            problems.append(f"{head}, but provided ratio is {_milli(limit) / _milli(request):f}")
    return problems


def _claim_bounds(item: Object, requests: Mapping[str, Any]) -> list[str]:
    kind, problems = item.get("type"), list[str]()
    for field, word, sign in (("min", "minimum", -1), ("max", "maximum", 1)):
        for name, bound in (item.get(field) or {}).items():
            head, request = f"{word} {name} usage per {kind} is {quantity.canonical(bound)}", requests.get(name)
            if request is None:
                problems.append(f"{head}.  No request is specified")
            elif (_milli(request) - _milli(bound)) * sign > 0:
                problems.append(f"{head}, but request is {quantity.canonical(request)}")
    return problems


def _milli(text: Any) -> int:
    return quantity.milli(text)
