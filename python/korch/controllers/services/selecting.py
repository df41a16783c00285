"""What the controllers of Endpoints and of EndpointSlices share: they follow Services and the pods that these select, at a bounded pace."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from korch.api.gvk import PODS, SERVICES
from korch.api.meta import key_of, labels_of, namespace_of
from korch.client.controller import Controller, Watch
from korch.client.informer import Informers
from korch.client.protocol import Client
from korch.controllers.services import membership
from korch.controllers.workload.controller import decode_object, same_key
from korch.controllers.workload.ownership import NAMESPACE, OWNER_INDEXES
from korch.controllers.workload.pacing import Pacer
from korch.controllers.workload.pods import decode_pod
from korch.runtime.context import Runtime

Object = dict[str, Any]

SERVICES_AND_PODS = (
    Watch(SERVICES, keys=same_key, decode=decode_object, indexes={NAMESPACE: OWNER_INDEXES[NAMESPACE]}),
    Watch(PODS, keys="pod_keys", decode=decode_pod, indexes=OWNER_INDEXES),
)


class SelectingController(Controller):
    """A controller whose keys are those of Services; its watches begin with `SERVICES_AND_PODS`."""

    workers = 5

    def __init__(self, client: Client, informers: Informers, runtime: Runtime) -> None:
        self.pacer = Pacer()
        super().__init__(client, informers, runtime)

    def pod_keys(self, pod: Object) -> Iterable[str]:
        """Map a pod to the Services that select it."""
        services = self.informer(SERVICES).by_index(NAMESPACE, namespace_of(pod))
        return [key_of(one) for one in services if membership.selects(one, labels_of(pod))]
