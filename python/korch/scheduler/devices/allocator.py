"""Searches devices for claims on a node: for each claim, request and device in turn the first that fits, taking steps back until all fit.

The first full solution is taken, so what is found depends on the order of pools and devices only. Mirrors the stable allocator of
dynamic-resource-allocation/structured: exact counts and all devices, prioritized alternatives, matching attributes, admin access, taints
and shared counters of partitionable devices. Devices for several users at once (consumable capacity) are given to one user only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from korch.scheduler.devices.pools import Counters, Device, DeviceId, Pool
from korch.scheduler.devices.selectors import SelectorError, Selectors

Object = dict[str, Any]
# A claim's result has at most so many devices.
RESULTS_MAX = 32


class AllocationError(Exception):
    """The claims cannot be allocated on the node for a reason that has a name."""


class InvalidPool(AllocationError):
    """A pool of this node is invalid, and others had not enough; another node may still do."""


class _TooMany(Exception):
    """An alternative would need more devices than a claim may get."""


@dataclass(frozen=True)
class _Request:
    """A request, or one alternative of a request. `name` is how results and constraints call it; `all_devices` are those of a request
    for all, each beside its pool."""

    parent: str
    name: str
    spec: Object
    device_class: Object
    all_devices: tuple[tuple[Pool, Device], ...] | None

    @property
    def count(self) -> int:
        return len(self.all_devices) if self.all_devices is not None else self.spec.get("count", 1)

    @property
    def is_admin(self) -> bool:
        return bool(self.spec.get("adminAccess"))

    def is_meant_by(self, names: Sequence[str]) -> bool:
        return not names or self.parent in names or self.name in names


@dataclass
class _Search:
    """A claim while devices are looked for. `requests` has the alternatives of each request, one where there are none."""

    claim: Object
    requests: list[list[_Request]]
    given: list[tuple[_Request, Device]] = field(default_factory=list[tuple[_Request, Device]])

    @property
    def name(self) -> str:
        meta = self.claim["metadata"]
        return f"{meta['namespace']}/{meta['name']}"


class Allocator:
    """Allocates on one node. `taken` are devices in use anywhere, `classes` the DeviceClasses by name."""

    def __init__(
        self, node: Object, pools: Sequence[Pool], taken: frozenset[DeviceId], classes: Mapping[str, Object], selectors: Selectors
    ) -> None:
        self._node = node
        self._all = pools
        self._pools: list[tuple[Pool, list[Device]]] = []
        for pool in pools:
            devices = [one for one in pool.devices if one.is_on(node)]
            if devices:
                self._pools.append((pool, devices))
        self._taken = taken
        self._classes = classes
        self._selectors = selectors
        self._giving: dict[DeviceId, int] = {}
        self._searches: list[_Search] = []
        self._left: dict[tuple[str, str], Counters] = {}

    def allocate(self, claims: Sequence[Object]) -> list[Object] | None:
        """Return status.allocation for each claim, or None when the node has not what they want. Raises AllocationError."""
        self._searches = [self._prepare(claim) for claim in claims]
        try:
            is_found = self._give(0, 0)
        except _TooMany:
            is_found = False
        if not is_found:
            if any(pool.invalid for pool, _ in self._pools):
                raise InvalidPool("invalid resource pools were encountered")
            return None
        return [self._result(search) for search in self._searches]

    def _prepare(self, claim: Object) -> _Search:
        search = _Search(claim, [])
        for request in (claim["spec"].get("devices") or {}).get("requests") or ():
            name = request["name"]
            if "exactly" in request:
                search.requests.append([self._request(search, name, name, request["exactly"])])
            else:
                alternatives = request.get("firstAvailable") or ()
                search.requests.append([self._request(search, name, f"{name}/{one['name']}", one) for one in alternatives])
        least = 0
        for alternatives in search.requests:
            count = min((one.count for one in alternatives), default=0)
            if least + count > RESULTS_MAX:
                words = f"adding {count} devices exceeds the claim limit of {RESULTS_MAX}, with {least} already accounted for"
                raise AllocationError(f"claim {search.name}, request {alternatives[0].parent}: {words}")
            least += count
        return search

    def _request(self, search: _Search, parent: str, name: str, spec: Object) -> _Request:
        where = f"claim {search.name}, request {name.rpartition('/')[2]}"
        device_class = self._classes.get(spec.get("deviceClassName", ""))
        if device_class is None:
            missing = spec.get("deviceClassName", "")
            words = f'deviceclass.resource.k8s.io "{missing}" not found'
            raise AllocationError(f"{where}: could not retrieve device class {missing}: {words}")
        request = _Request(parent, name, spec, device_class, None)
        if spec.get("allocationMode", "ExactCount") != "All":
            return request
        for pool, _ in self._pools:
            if pool.is_incomplete or pool.invalid:
                state = "being updated" if pool.is_incomplete else "invalid"
                words = f"asks for all devices, but resource pool {pool.driver}/{pool.name} is currently {state}"
                raise AllocationError(f"{where}: {words}")
        every = tuple((pool, device) for pool, devices in self._pools for device in devices if self._is_selected(search, request, device))
        return _Request(parent, name, spec, device_class, every)

    def _give(self, at: int, request_at: int) -> bool:
        """Find devices from this request of this claim on."""
        if at == len(self._searches):
            return True
        search = self._searches[at]
        if request_at == len(search.requests):
            try:
                return self._give(at + 1, 0)
            except _TooMany:
                return False
        alternatives = search.requests[request_at]
        is_too_many = True
        for request in alternatives:
            try:
                if self._give_devices(at, request_at, request, 0):
                    return True
            except _TooMany:
                continue
            is_too_many = False
        if is_too_many and alternatives:
            raise _TooMany
        return False

    def _give_devices(self, at: int, request_at: int, request: _Request, number: int) -> bool:
        """Find the device of this number and all that follow."""
        search = self._searches[at]
        if request.all_devices is not None and not request.all_devices:
            return False
        if number == request.count:
            return self._give(at, request_at + 1)
        if request.count - number > RESULTS_MAX - len(search.given):
            raise _TooMany
        if request.all_devices is not None:
            pool, device = request.all_devices[number]
            return self._try(at, request_at, request, number, pool, device)
        for pool, devices in self._pools:
            if pool.is_incomplete or pool.invalid:
                continue
            for device in devices:
                if (
                    self._is_free(at, request, device)
                    and self._is_selected(search, request, device)
                    and self._try(at, request_at, request, number, pool, device)
                ):
                    return True
        return False

    def _try(self, at: int, request_at: int, request: _Request, number: int, pool: Pool, device: Device) -> bool:
        """Give the device and go on; take it back when that leads nowhere."""
        search = self._searches[at]
        if not self._is_free(at, request, device) or _is_tainted(device, request) or not _agrees(search, request, device):
            return False
        counters = device.counters
        left = self._counters(pool) if counters else {}
        if any(left[name] < amount for name, amount in counters.items()):
            return False
        for name, amount in counters.items():
            left[name] -= amount
        self._giving[device.id] = self._giving.get(device.id, 0) + 1
        search.given.append((request, device))
        try:
            if self._give_devices(at, request_at, request, number + 1):
                return True
        except _TooMany:
            self._take_back(search, device, left, counters)
            raise
        self._take_back(search, device, left, counters)
        return False

    def _take_back(self, search: _Search, device: Device, left: Counters, counters: Counters) -> None:
        search.given.pop()
        self._giving[device.id] -= 1
        for name, amount in counters.items():
            left[name] += amount

    def _is_free(self, at: int, request: _Request, device: Device) -> bool:
        if request.is_admin:
            return all(one is not device for _, one in self._searches[at].given)
        return device.id not in self._taken and not self._giving.get(device.id)

    def _counters(self, pool: Pool) -> Counters:
        """Return what is left of a pool's counters."""
        key = pool.driver, pool.name
        left = self._left.get(key)
        if left is None:
            left = self._left[key] = dict(pool.counters)
            for device in pool.devices:
                if device.id in self._taken:
                    for name, amount in device.counters.items():
                        left[name] -= amount
        return left

    def _is_selected(self, search: _Search, request: _Request, device: Device) -> bool:
        of_class = (request.device_class.get("spec") or {}).get("selectors") or ()
        for whose, selectors in (
            (f"class {request.device_class['metadata']['name']}", of_class),
            (f"claim {search.name}", request.spec.get("selectors") or ()),
        ):
            for number, selector in enumerate(selectors):
                try:
                    if not self._selectors.matches(device, selector["cel"]["expression"]):
                        return False
                except SelectorError as error:
                    on = f" on device {'/'.join(device.id)}" if "runtime" in str(error) else ""
                    raise AllocationError(f"{whose}: selector #{number}{on}: {error}") from error
        return True

    def _result(self, search: _Search) -> Object:
        results: list[Object] = []
        for request, device in search.given:
            driver, pool, name = device.id
            result: Object = {"request": request.name, "driver": driver, "pool": pool, "device": name}
            if request.is_admin:
                result["adminAccess"] = True
            if tolerations := request.spec.get("tolerations"):
                result["tolerations"] = tolerations
            results.append(result)
        devices: Object = {"results": results}
        if config := _config(search):
            devices["config"] = config
        allocation: Object = {"devices": devices}
        if selector := _node_selector([device for _, device in search.given]):
            allocation["nodeSelector"] = selector
        return allocation


def _is_tainted(device: Device, request: _Request) -> bool:
    """Return whether a taint of the device keeps the request away."""
    tolerations: Sequence[Object] = request.spec.get("tolerations") or ()
    return any(
        taint.get("effect") in ("NoSchedule", "NoExecute") and not any(_tolerates(one, taint) for one in tolerations)
        for taint in device.spec.get("taints") or ()
    )


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")


def _agrees(search: _Search, request: _Request, device: Device) -> bool:
    """Return whether the claim's constraints allow the device beside those given already."""
    for constraint in (search.claim["spec"].get("devices") or {}).get("constraints") or ():
        names: Sequence[str] = constraint.get("requests") or ()
        if not request.is_meant_by(names):
            continue
        others = [one for other, one in search.given if other.is_meant_by(names)]
        if name := constraint.get("matchAttribute"):
            value = _attribute(device, name)
            if value is None or any(_attribute(one, name) != value for one in others):
                return False
        elif name := constraint.get("distinctAttribute"):
            value = _attribute(device, name)
            if value is None or any(_attribute(one, name) == value for one in others):
                return False
    return True


def _attribute(device: Device, name: str) -> Object | None:
    """Return an attribute by its full name; the driver's own may stand without their domain."""
    attributes: Object = device.spec.get("attributes") or {}
    if name in attributes:
        return attributes[name]
    domain, _, local = name.rpartition("/")
    return attributes.get(local) if domain == device.id[0] else None


def _config(search: _Search) -> list[Object]:
    """Return the configuration of classes and claim, as far as it is about what was given."""
    chosen: dict[str, _Request] = {request.parent: request for request, _ in search.given}
    for alternatives in search.requests:
        if alternatives and len(alternatives) == 1:
            chosen.setdefault(alternatives[0].parent, alternatives[0])
    requests = [chosen[one[0].parent] for one in search.requests if one and one[0].parent in chosen]
    found: list[Object] = []
    of_class: dict[str, list[Object]] = {}
    for request in requests:
        name = request.device_class["metadata"]["name"]
        if name in of_class:
            for config in of_class[name]:
                config["requests"].append(request.name)
            continue
        configs: Sequence[Object] = (request.device_class.get("spec") or {}).get("config") or ()
        of_class[name] = [{"source": "FromClass", "requests": [request.name], **config} for config in configs]
        found += of_class[name]
    for config in (search.claim["spec"].get("devices") or {}).get("config") or ():
        names = config.get("requests") or []
        if not names or any(one.is_meant_by(names) for one in requests):
            found.append({"source": "FromClaim", **config})
    for config in found:
        # What is about all requests says so by naming none.
        if config.get("requests") and all(one.is_meant_by(config["requests"]) for one in requests):
            del config["requests"]
    return found


def _node_selector(devices: Sequence[Device]) -> Object | None:
    """Return where all the devices can be used; None: everywhere."""
    fields: list[Object] = []
    expressions: list[Object] = []
    for device in devices:
        if device.node_name:
            only = {"key": "metadata.name", "operator": "In", "values": [device.node_name]}
            return {"nodeSelectorTerms": [{"matchFields": [only]}]}
        for term in (device.node_selector or {}).get("nodeSelectorTerms") or ():
            fields += [one for one in term.get("matchFields") or () if one not in fields]
            expressions += [one for one in term.get("matchExpressions") or () if one not in expressions]
    term = {key: value for key, value in (("matchFields", fields), ("matchExpressions", expressions)) if value}
    return {"nodeSelectorTerms": [term]} if term else None
