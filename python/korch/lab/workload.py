"""What is to run: tasks, each a pod that comes at a time, wants to run for a time, and looks like one of a few templates.

Tasks are kept in columns, because a day of a large cluster has a million of them. A template is a whole Pod object without a name;
all tasks of a template are alike to the scheduler. Times are seconds from the begin of the simulation.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from korch.api.meta import Object, at

FOREVER = math.inf
GPU = "nvidia.com/gpu"


@dataclass(slots=True, eq=False)
class Workload:
    """Tasks by number: `names`, `arrivals_s`, `durations_s` (infinite for one that runs until it is stopped) and `kinds`, the number of
    each task's template. `skipped` counts rows of a trace that were left out because something was missing in them."""

    templates: list[Object] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    arrivals_s: array[float] = field(default_factory=lambda: array("d"))
    durations_s: array[float] = field(default_factory=lambda: array("d"))
    kinds: array[int] = field(default_factory=lambda: array("i"))
    skipped: int = 0
    _known: dict[Any, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def template(self, pod: Object) -> int:
        """Return the number of the template that looks like `pod`, which is taken in if it is new."""
        key = orjson.dumps(pod, option=orjson.OPT_SORT_KEYS)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = len(self.templates)
            self.templates.append(pod)
        return known

    def sized(self, requests: Mapping[str, str], *, priority: int = 0, gpu_models: Sequence[str] = ()) -> int:
        """Return the number of the template of a pod that asks for `requests`, made if need be.

        `gpu_models` restricts it to nodes whose label `gpu-model` is one of these."""
        key = (tuple(sorted(requests.items())), priority, tuple(gpu_models))
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self.template(sized_pod(requests, priority=priority, gpu_models=gpu_models))
        return known

    def add(self, name: str, template: int, arrival_s: float = 0.0, duration_s: float = FOREVER) -> None:
        """Take in one task. Names must differ within a namespace; that is the caller's concern."""
        self.names.append(name)
        self.kinds.append(template)
        self.arrivals_s.append(arrival_s)
        self.durations_s.append(duration_s)

    def extend(self, other: Workload) -> None:
        """Take in all tasks of another workload."""
        numbers = [self.template(one) for one in other.templates]
        self.names.extend(other.names)
        self.kinds.extend(numbers[kind] for kind in other.kinds)
        self.arrivals_s.extend(other.arrivals_s)
        self.durations_s.extend(other.durations_s)
        self.skipped += other.skipped

    def priority(self, template: int) -> int:
        """Return the priority that the pods of a template have."""
        return at(self.templates[template], "spec", "priority") or 0

    def namespace(self, template: int) -> str:
        """Return the namespace that the pods of a template are in."""
        return at(self.templates[template], "metadata", "namespace") or "default"

    def key(self, task: int) -> str:
        """Return `namespace/name` of a task's pod."""
        return f"{self.namespace(self.kinds[task])}/{self.names[task]}"


def sized_pod(requests: Mapping[str, str], *, priority: int = 0, gpu_models: Sequence[str] = ()) -> Object:
    """Return a Pod without a name that asks for `requests` and for nothing else."""
    spec: Object = {"priority": priority, "containers": [{"name": "task", "resources": {"requests": dict(requests)}}]}
    if gpu_models:
        expression = {"key": "gpu-model", "operator": "In", "values": list(gpu_models)}
        required = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
        spec["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "default"}, "spec": spec}


class PodBytes:
    """The JSON of a template's pods, made by putting a name between its parts: decoding and encoding each would cost too much."""

    def __init__(self, template: Object) -> None:
        marked = template | {"metadata": {**template.get("metadata", {}), "name": _NAME, "uid": _NAME}}
        first, second, third = orjson.dumps(marked).split(_NAME.encode())
        self._parts = (first, second, third)

    def of(self, name: str) -> bytes:
        """Return the Pod of this name, which is its uid too."""
        encoded = orjson.dumps(name)[1:-1]
        return encoded.join(self._parts)


# No name in Kubernetes can hold an exclamation mark.
_NAME = "!name!"
