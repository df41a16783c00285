"""Devices as drivers publish them: pools, each of them the ResourceSlices of one driver, one name and the newest generation.

Mirrors dynamic-resource-allocation/structured (GatherPools), without derived attributes and compatibility groups.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from korch.api.quantity import milli

Object = dict[str, Any]
# Driver, pool, device.
DeviceId = tuple[str, str, str]
# By counter set and counter, in thousandths.
Counters = dict[tuple[str, str], int]


@dataclass(frozen=True, eq=False)
class Device:
    """A device of a slice; `node_name`, `node_selector` and `all_nodes` say where it is, whoever of the two says so."""

    id: DeviceId
    spec: Object
    node_name: str
    node_selector: Object | None
    all_nodes: bool

    @property
    def counters(self) -> Counters:
        """Return what it takes of its pool's shared counters."""
        return {
            (one["counterSet"], name): milli(str(counter["value"]))
            for one in self.spec.get("consumesCounters") or ()
            for name, counter in (one.get("counters") or {}).items()
        }

    def is_on(self, node: Object) -> bool:
        """Return whether a node can use it."""
        if self.node_name:
            return self.node_name == node["metadata"]["name"]
        return self.all_nodes or (self.node_selector is not None and matches_node(self.node_selector, node))


@dataclass(frozen=True, eq=False)
class Pool:
    """The devices of a pool. An incomplete one lacks slices that are yet to be published; of an invalid one nothing is given."""

    driver: str
    name: str
    devices: tuple[Device, ...]
    counters: Counters
    is_incomplete: bool = False
    invalid: str = ""


class Slices:
    """All ResourceSlices, put together to pools when somebody asks."""

    def __init__(self) -> None:
        self._slices: dict[str, Object] = {}
        self._pools: list[Pool] | None = None

    def upsert(self, found: Object) -> None:
        """Take in a slice."""
        self._slices[found["metadata"]["name"]] = found
        self._pools = None

    def remove(self, name: str) -> None:
        """Forget a slice that is gone."""
        self._slices.pop(name, None)
        self._pools = None

    def pools(self) -> list[Pool]:
        """Return all pools, by driver and name."""
        if self._pools is None:
            self._pools = gather(self._slices.values())
        return self._pools


def gather(slices: Iterable[Object]) -> list[Pool]:
    """Put slices together to pools, leaving out those of older generations."""
    by_pool: defaultdict[tuple[str, str], list[Object]] = defaultdict(list)
    for one in sorted(slices, key=lambda one: one["metadata"]["name"]):
        by_pool[one["spec"]["driver"], one["spec"]["pool"]["name"]].append(one["spec"])
    return [_pool(driver, name, specs) for (driver, name), specs in sorted(by_pool.items())]


def _pool(driver: str, name: str, specs: list[Object]) -> Pool:
    newest = max(spec["pool"].get("generation", 0) for spec in specs)
    specs = [spec for spec in specs if spec["pool"].get("generation", 0) == newest]
    devices = tuple(_device(driver, name, spec, device) for spec in specs for device in spec.get("devices") or ())
    counters = {
        (one["name"], counter): milli(str(value["value"]))
        for spec in specs
        for one in spec.get("sharedCounters") or ()
        for counter, value in (one.get("counters") or {}).items()
    }
    return Pool(
        driver,
        name,
        devices,
        counters,
        is_incomplete=len(specs) != specs[0]["pool"].get("resourceSliceCount", 0),
        invalid=_what_is_wrong(devices, counters),
    )


def _device(driver: str, pool: str, spec: Object, device: Object) -> Device:
    where = device if spec.get("perDeviceNodeSelection") else spec
    identity = (driver, pool, device["name"])
    return Device(identity, device, where.get("nodeName") or "", where.get("nodeSelector"), bool(where.get("allNodes")))


def _what_is_wrong(devices: Iterable[Device], counters: Mapping[tuple[str, str], int]) -> str:
    seen: set[DeviceId] = set()
    sets = {name for name, _ in counters}
    for device in devices:
        if device.id in seen:
            return f"duplicate device name {device.id[2]}"
        seen.add(device.id)
        for counter_set, counter in device.counters:
            if counter_set not in sets:
                return f"counter set {counter_set} not found"
            if (counter_set, counter) not in counters:
                return f"counter {counter} not found in counter set {counter_set}"
    return ""


def matches_node(selector: Object, node: Object) -> bool:
    """Return whether a core/v1 NodeSelector selects the node: one of its terms, and of that all requirements."""
    labels: dict[str, str] = node["metadata"].get("labels") or {}
    fields = {"metadata.name": node["metadata"]["name"]}
    for term in selector.get("nodeSelectorTerms") or ():
        expressions, on_fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
        is_empty = not expressions and not on_fields
        if not is_empty and all(_holds(one, labels) for one in expressions) and all(_holds(one, fields) for one in on_fields):
            return True
    return False


def _holds(requirement: Object, values: Mapping[str, str]) -> bool:
    value, wanted = values.get(requirement["key"]), requirement.get("values") or []
    match requirement["operator"]:
        case "In":
            return value in wanted
        case "NotIn":
            return value not in wanted
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator:
            try:
                number, bound = int(value or ""), int(wanted[0])
            except (ValueError, IndexError):
                return False
            return number > bound if operator == "Gt" else number < bound
        case _:
            return False
