"""Gives every namespace its ServiceAccount `default`, and gives it back when somebody deletes it.

Watches namespaces and ServiceAccounts; writes ServiceAccounts. Invariant: an active namespace has the account; a terminating one is
left alone. Mirrors upstream pkg/controller/serviceaccount/serviceaccounts_controller.go.
"""

from __future__ import annotations

from typing import Any

from korch.api.errors import AlreadyExists, ApiError, NotFound
from korch.api.gvk import NAMESPACES, SERVICE_ACCOUNTS
from korch.api.meta import at, is_deleting
from korch.client.controller import Controller, Requeue, Watch
from korch.client.projections import Meta
from korch.controllers.workload.controller import decode_object, is_namespace_ending, same_key

DEFAULT = "default"


def namespace_key(obj: Meta) -> tuple[str]:
    """Map an object to its namespace's key."""
    return (obj.namespace,)


def is_active(namespace: dict[str, Any]) -> bool:
    """Whether new objects may be put into the namespace."""
    return not is_deleting(namespace) and at(namespace, "status", "phase") != "Terminating"


class ServiceAccountController(Controller):
    """Reconciles one namespace a key."""

    name = "service-account-controller"
    watches = (
        Watch(NAMESPACES, keys=same_key, decode=decode_object),
        Watch(SERVICE_ACCOUNTS, keys=namespace_key, field_selector=f"metadata.name={DEFAULT}"),
    )

    async def reconcile(self, key: str) -> Requeue | None:
        namespace = self.informer(NAMESPACES).get_by_key(key)
        if namespace is None or not is_active(namespace) or self.informer(SERVICE_ACCOUNTS).get(key, DEFAULT) is not None:
            return None
        body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": DEFAULT, "namespace": key}}
        try:
            self.wrote(key, SERVICE_ACCOUNTS, await self.client.create(SERVICE_ACCOUNTS, body, namespace=key))
        except (AlreadyExists, NotFound):
            return None
        except ApiError as error:
            if not is_namespace_ending(error):
                raise
        return None
