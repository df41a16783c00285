"""What both controllers that write EndpointSlices do the same way: create, change and delete slices of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from korch.api.errors import ApiError, NotFound
from korch.api.gvk import ENDPOINT_SLICES, ResourceRef
from korch.api.meta import name_of, namespace_of, owner_reference, uid_of
from korch.client.controller import Controller
from korch.client.protocol import DeleteOptions
from korch.controllers.services.packing import Group
from korch.controllers.workload.controller import is_namespace_ending

Object = dict[str, Any]


class SliceController(Controller):
    """A controller of slices; a key is that of the Service. All methods raise ApiError and faults of the network."""

    async def create_slice(
        self, key: str, owner: Object, kind: ResourceRef, group: Group, endpoints: Sequence[Object], metadata: Object
    ) -> None:
        """Create a slice of `owner`, an object of `kind`; does nothing in a namespace that is being deleted."""
        body = {
            "apiVersion": ENDPOINT_SLICES.api_version,
            "kind": ENDPOINT_SLICES.kind,
            "metadata": {
                "generateName": f"{name_of(owner)}-",
                "namespace": namespace_of(owner),
                "ownerReferences": [owner_reference(owner, kind.kind, kind.api_version)],
                **metadata,
            },
            "addressType": group.family,
            "ports": group.port_list(),
            "endpoints": endpoints,
        }
        try:
            self.wrote(key, ENDPOINT_SLICES, await self.client.create(ENDPOINT_SLICES, body, namespace=namespace_of(owner)))
        except ApiError as error:
            if not is_namespace_ending(error):
                raise

    async def update_slice(self, key: str, one: Object, endpoints: Sequence[Object] | None, metadata: Object) -> None:
        """Give a slice other metadata and, unless None, other endpoints."""
        body = {**one, "metadata": {**one["metadata"], **metadata}}
        if endpoints is not None:
            body["endpoints"] = endpoints
        self.wrote(key, ENDPOINT_SLICES, await self.client.update(ENDPOINT_SLICES, body, name=name_of(one), namespace=namespace_of(one)))

    async def delete_slice(self, key: str, one: Object) -> None:
        """Delete a slice, if it is still that one."""
        options = DeleteOptions(uid=uid_of(one))
        try:
            stored = await self.client.delete(ENDPOINT_SLICES, name_of(one), namespace=namespace_of(one), options=options)
        except NotFound:
            return
        self.wrote(key, ENDPOINT_SLICES, stored)
