"""Publishes the cluster's certificate authority to every namespace, as ConfigMap `kube-root-ca.crt`, and repairs it when it is changed.

Watches namespaces and those ConfigMaps; writes the ConfigMaps. Pods need it to trust the API server.
Mirrors upstream pkg/controller/certificates/rootcacertpublisher.
"""

from __future__ import annotations

from korch.api.errors import AlreadyExists, ApiError, NotFound
from korch.api.gvk import CONFIG_MAPS, NAMESPACES
from korch.api.meta import annotations_of, at
from korch.client.controller import Controller, Requeue, Watch
from korch.client.informer import Informers
from korch.client.protocol import Client
from korch.controllers.config import ControllerConfig
from korch.controllers.serviceaccount import is_active
from korch.controllers.workload.controller import decode_object, is_namespace_ending, same_key
from korch.runtime.context import Runtime

NAME = "kube-root-ca.crt"
DESCRIPTION = "kubernetes.io/description"
_TEXT = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service "
    "IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."
)


def namespace_key(obj: dict[str, object]) -> tuple[str]:
    """Map an object to its namespace's key."""
    return (at(obj, "metadata", "namespace"),)


class RootCaController(Controller):
    """Reconciles one namespace a key."""

    name = "root-ca-certificate-publisher-controller"
    watches = (
        Watch(NAMESPACES, keys=same_key, decode=decode_object),
        Watch(CONFIG_MAPS, keys=namespace_key, decode=decode_object, field_selector=f"metadata.name={NAME}"),
    )

    def __init__(self, client: Client, informers: Informers, runtime: Runtime, config: ControllerConfig) -> None:
        super().__init__(client, informers, runtime)
        self._data = {"ca.crt": config.root_ca_pem}

    async def reconcile(self, key: str) -> Requeue | None:
        namespace = self.informer(NAMESPACES).get_by_key(key)
        if namespace is None or not is_active(namespace) or not self._data["ca.crt"]:
            return None
        present = self.informer(CONFIG_MAPS).get(key, NAME)
        note = {DESCRIPTION: _TEXT}
        try:
            if present is None:
                body = {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": NAME, "namespace": key, "annotations": note},
                    "data": self._data,
                }
                stored = await self.client.create(CONFIG_MAPS, body, namespace=key)
            elif present.get("data") != self._data or not note.items() <= annotations_of(present).items():
                metadata = {**present["metadata"], "annotations": {**annotations_of(present), **note}}
                body = {**present, "metadata": metadata, "data": self._data}
                stored = await self.client.update(CONFIG_MAPS, body, name=NAME, namespace=key)
            else:
                return None
        except (AlreadyExists, NotFound):
            return None
        except ApiError as error:
            if not is_namespace_ending(error):
                raise
            return None
        self.wrote(key, CONFIG_MAPS, stored)
        return None
