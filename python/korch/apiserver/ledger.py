"""Which Service has which address and node port, kept in the store beside the Services, for several servers on one store.

Every address and every port is a key of its own, written in the commit that writes the Service, on the condition that the key is free:
so two servers that pick the same one at the same moment cannot both succeed, whatever they believe, and nothing needs a lock or a
repair. Which are taken is read from the store (its mirror), so a server knows of the others' allocations without being told.
A server that is alone keeps them in memory instead, and derives them from the Services when it starts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import orjson

from korch._core import native
from korch.api.errors import ApiError
from korch.storage import Storage

if TYPE_CHECKING:
    from korch._core._native import Op

_ADDRESSES = b"/registry/ranges/serviceips/"
_PORTS = b"/registry/ranges/servicenodeports/"


class AllocationLost(ApiError):
    """Another server took the address or port in the same moment; the request is to be made again."""

    def __init__(self) -> None:
        super().__init__(500, "InternalError", "failed to allocate a serviceIP or nodePort: another server took it in the same moment")


class Ledger:
    """The allocations in `storage`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def has_address(self, address: str) -> bool:
        return self._storage.get(_ADDRESSES + address.encode()) is not None

    def has_port(self, port: int) -> bool:
        return self._storage.get(_PORTS + str(port).encode()) is not None

    def taking(self, service: str, addresses: Iterable[str], ports: Iterable[int]) -> list[Op]:
        """Return the operations that enter them for `service` (namespace/name), each on the condition that it is free."""
        value = orjson.dumps({"service": service})
        return [(key, value, 0, -1, {}, {}, ()) for key in _keys(addresses, ports)]

    def freeing(self, addresses: Iterable[str], ports: Iterable[int]) -> list[Op]:
        """Return the operations that strike them out, each on the condition that it is as it was read."""
        found = ((key, self._storage.get(key)) for key in _keys(addresses, ports))
        return [(key, None, record.mod_revision, -1, {}, {}, ()) for key, record in found if record is not None]

    async def enter(self, holders: dict[str, tuple[set[str], set[int]]]) -> None:
        """Enter what Services (namespace/name) hold and no entry says, as after a restore from a server that was alone."""
        for service, (addresses, ports) in holders.items():
            missing = [op for op in self.taking(service, addresses, ports) if self._storage.get(op[0]) is None]
            for op in missing:
                try:
                    await self._storage.commit([op])
                except native.KeyExists:
                    continue


def _keys(addresses: Iterable[str], ports: Iterable[int]) -> list[bytes]:
    return [_ADDRESSES + one.encode() for one in sorted(addresses)] + [_PORTS + str(one).encode() for one in sorted(ports)]
