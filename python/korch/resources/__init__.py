"""The catalogue: one Resource(...) for every kind that is served.

A kind is one file in the directory of its group that holds `RESOURCE`; the list below is the only other place that names it.
`podspec` and the modules at this level are what kinds share.
"""

from __future__ import annotations

from korch.resources.apps import controllerrevision, daemonset, deployment, replicaset, statefulset
from korch.resources.authentication import selfsubjectreview, tokenreview
from korch.resources.authorization import localsubjectaccessreview, selfsubjectaccessreview, selfsubjectrulesreview, subjectaccessreview
from korch.resources.batch import cronjob, job
from korch.resources.coordination import lease
from korch.resources.core import (
    binding,
    configmap,
    endpoints,
    event,
    namespace,
    node,
    pod,
    podtemplate,
    replicationcontroller,
    secret,
    service,
    serviceaccount,
)
from korch.resources.discovery import endpointslice
from korch.resources.events import event as events_event
from korch.resources.rbac import clusterrole, clusterrolebinding, role, rolebinding
from korch.resources.resource import Catalogue, Resource

# By group, then by plural; discovery brings the groups into its own order.
_RESOURCES: tuple[Resource, ...] = (
    binding.RESOURCE,
    configmap.RESOURCE,
    endpoints.RESOURCE,
    event.RESOURCE,
    namespace.RESOURCE,
    node.RESOURCE,
    pod.RESOURCE,
    podtemplate.RESOURCE,
    replicationcontroller.RESOURCE,
    secret.RESOURCE,
    serviceaccount.RESOURCE,
    service.RESOURCE,
    controllerrevision.RESOURCE,
    daemonset.RESOURCE,
    deployment.RESOURCE,
    replicaset.RESOURCE,
    statefulset.RESOURCE,
    selfsubjectreview.RESOURCE,
    tokenreview.RESOURCE,
    localsubjectaccessreview.RESOURCE,
    selfsubjectaccessreview.RESOURCE,
    selfsubjectrulesreview.RESOURCE,
    subjectaccessreview.RESOURCE,
    cronjob.RESOURCE,
    job.RESOURCE,
    lease.RESOURCE,
    endpointslice.RESOURCE,
    events_event.RESOURCE,
    clusterrolebinding.RESOURCE,
    clusterrole.RESOURCE,
    rolebinding.RESOURCE,
    role.RESOURCE,
)


def catalogue() -> Catalogue:
    """Return a new catalogue of all built-in kinds; custom kinds are added to it at run time."""
    return Catalogue(_RESOURCES)
