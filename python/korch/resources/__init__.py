"""The catalogue: one Resource(...) for every kind that is served.

A kind is one file in the directory of its group that holds `RESOURCE`; the list below is the only other place that names it.
`podspec` and the modules at this level are what kinds share.
"""

from __future__ import annotations

from korch.api.features import Features
from korch.resources.admissionregistration import (
    mutatingadmissionpolicy,
    mutatingadmissionpolicybinding,
    mutatingwebhookconfiguration,
    validatingadmissionpolicy,
    validatingadmissionpolicybinding,
    validatingwebhookconfiguration,
)
from korch.resources.apiextensions import customresourcedefinition
from korch.resources.apiregistration import apiservice
from korch.resources.apps import controllerrevision, daemonset, deployment, replicaset, statefulset
from korch.resources.authentication import selfsubjectreview, tokenreview
from korch.resources.authorization import localsubjectaccessreview, selfsubjectaccessreview, selfsubjectrulesreview, subjectaccessreview
from korch.resources.autoscaling import horizontalpodautoscaler, horizontalpodautoscaler_v1
from korch.resources.batch import cronjob, job
from korch.resources.certificates import certificatesigningrequest, clustertrustbundle, podcertificaterequest
from korch.resources.coordination import lease
from korch.resources.core import (
    binding,
    componentstatus,
    configmap,
    endpoints,
    event,
    limitrange,
    namespace,
    node,
    persistentvolume,
    persistentvolumeclaim,
    pod,
    podtemplate,
    replicationcontroller,
    resourcequota,
    secret,
    service,
    serviceaccount,
)
from korch.resources.discovery import endpointslice
from korch.resources.dra import deviceclass, devicetaintrule, resourceclaim, resourceclaimtemplate, resourceslice
from korch.resources.events import event as events_event
from korch.resources.flowcontrol import flowschema, prioritylevelconfiguration
from korch.resources.networking import ingress, ingressclass, ipaddress, networkpolicy, servicecidr
from korch.resources.nodes import runtimeclass
from korch.resources.policy import poddisruptionbudget
from korch.resources.rbac import clusterrole, clusterrolebinding, role, rolebinding
from korch.resources.resource import Catalogue, Resource
from korch.resources.scheduling import podgroup, priorityclass, workload
from korch.resources.storage import csidriver, csinode, csistoragecapacity, storageclass, volumeattachment, volumeattributesclass
from korch.resources.storagemigration import storageversionmigration

# By group, then by plural; discovery brings the groups into its own order.
_RESOURCES: tuple[Resource, ...] = (
    binding.RESOURCE,
    resourcequota.RESOURCE,
    persistentvolumeclaim.RESOURCE,
    persistentvolume.RESOURCE,
    limitrange.RESOURCE,
    componentstatus.RESOURCE,
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
    mutatingadmissionpolicy.RESOURCE,
    mutatingadmissionpolicybinding.RESOURCE,
    mutatingwebhookconfiguration.RESOURCE,
    validatingadmissionpolicy.RESOURCE,
    validatingadmissionpolicybinding.RESOURCE,
    validatingwebhookconfiguration.RESOURCE,
    customresourcedefinition.RESOURCE,
    apiservice.RESOURCE,
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
    mutatingadmissionpolicy.RESOURCE,
    mutatingadmissionpolicybinding.RESOURCE,
    mutatingwebhookconfiguration.RESOURCE,
    validatingadmissionpolicy.RESOURCE,
    validatingadmissionpolicybinding.RESOURCE,
    validatingwebhookconfiguration.RESOURCE,
    horizontalpodautoscaler.RESOURCE,
    horizontalpodautoscaler_v1.RESOURCE,
    certificatesigningrequest.RESOURCE,
    clustertrustbundle.RESOURCE,
    podcertificaterequest.RESOURCE,
    deviceclass.RESOURCE,
    devicetaintrule.RESOURCE,
    resourceclaim.RESOURCE,
    resourceclaimtemplate.RESOURCE,
    resourceslice.RESOURCE,
    flowschema.RESOURCE,
    prioritylevelconfiguration.RESOURCE,
    ingress.RESOURCE,
    ingressclass.RESOURCE,
    ipaddress.RESOURCE,
    networkpolicy.RESOURCE,
    servicecidr.RESOURCE,
    runtimeclass.RESOURCE,
    poddisruptionbudget.RESOURCE,
    priorityclass.RESOURCE,
    csidriver.RESOURCE,
    csinode.RESOURCE,
    csistoragecapacity.RESOURCE,
    storageclass.RESOURCE,
    volumeattachment.RESOURCE,
    volumeattributesclass.RESOURCE,
    storageversionmigration.RESOURCE,
)


# Kinds of versions that are served only when they and their gate are switched on.
_OPTIONAL = (podgroup.RESOURCE, workload.RESOURCE)


def catalogue(features: Features = Features()) -> Catalogue:
    """Return a new catalogue of all built-in kinds; custom kinds are added to it at run time."""
    kinds = Catalogue(_RESOURCES)
    for one in _OPTIONAL:
        if features.serves(one.api_version):
            kinds.add(one)
    if not features.generic_workload:
        kinds.add(pod.WITHOUT_GROUPS)
    return kinds
