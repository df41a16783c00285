"""The controllers: loops that move what is towards what was asked for. One file each; this is the one list of them.

A controller is a `korch.client.controller.Controller`: it names what it watches, and `reconcile(key)` compares one object with
what it should be and writes the difference. It sees the cluster only through `Client` and informers, so the same object runs in one
process with the API server, over HTTP, or in the simulator. Packages beside the files hold what several of them share:
`workload` (owning pods), `services` (endpoints), `nodes` (health, taints, address ranges).
"""

from __future__ import annotations

from korch.client.controller import Controller
from korch.client.informer import Informers
from korch.client.protocol import Client
from korch.controllers.certificates import CertificateController
from korch.controllers.clusterrole_aggregation import ClusterRoleAggregationController
from korch.controllers.config import ControllerConfig
from korch.controllers.cronjob import CronJobController
from korch.controllers.daemonset import DaemonSetController
from korch.controllers.deployment import DeploymentController
from korch.controllers.disruption import DisruptionController
from korch.controllers.endpoints import EndpointsController
from korch.controllers.endpointslice import EndpointSliceController
from korch.controllers.endpointslice_mirroring import EndpointSliceMirroringController
from korch.controllers.event_ttl import EventTtlController
from korch.controllers.flow_schema import FlowSchemaController
from korch.controllers.garbage_collector import GarbageCollector
from korch.controllers.job import JobController
from korch.controllers.namespace import NamespaceController
from korch.controllers.node_ipam import NodeIpamController
from korch.controllers.node_lifecycle import NodeLifecycleController
from korch.controllers.pod_gc import PodGcController
from korch.controllers.podgroup_protection import PodGroupProtectionController
from korch.controllers.pv_protection import PvProtectionController
from korch.controllers.pvc_protection import PvcProtectionController
from korch.controllers.replicaset import ReplicaSetController
from korch.controllers.replicationcontroller import ReplicationControllerController
from korch.controllers.resource_quota import ResourceQuotaController
from korch.controllers.resourceclaim import ResourceClaimController
from korch.controllers.root_ca import RootCaController
from korch.controllers.serviceaccount import ServiceAccountController
from korch.controllers.statefulset import StatefulSetController
from korch.controllers.storage_version_migrator import StorageVersionMigratorController
from korch.controllers.taint_eviction import TaintEvictionController
from korch.controllers.token_cleaner import TokenCleaner
from korch.runtime.context import Runtime

__all__ = ["ControllerConfig", "all_controllers"]

# Controllers that know only the cluster, and those that are told settings too.
_PLAIN: tuple[type[Controller], ...] = (
    ClusterRoleAggregationController,
    PvProtectionController,
    PvcProtectionController,
    DisruptionController,
    ResourceQuotaController,
    CronJobController,
    DaemonSetController,
    DeploymentController,
    EndpointSliceController,
    EndpointSliceMirroringController,
    EndpointsController,
    FlowSchemaController,
    JobController,
    NamespaceController,
    ReplicaSetController,
    ReplicationControllerController,
    ResourceClaimController,
    ServiceAccountController,
    StatefulSetController,
    StorageVersionMigratorController,
    TaintEvictionController,
    TokenCleaner,
)
_CONFIGURED = (
    CertificateController,
    EventTtlController,
    GarbageCollector,
    NodeIpamController,
    NodeLifecycleController,
    PodGcController,
    RootCaController,
)


def all_controllers(
    client: Client, informers: Informers, runtime: Runtime, config: ControllerConfig = ControllerConfig()
) -> list[Controller]:
    """Return one of every controller, none of them running yet: start each one's `run()` in a TaskGroup."""
    gated = (PodGroupProtectionController,) if config.features.generic_workload else ()
    plain = [one(client, informers, runtime) for one in (*_PLAIN, *gated)]
    return [*plain, *(one(client, informers, runtime, config) for one in _CONFIGURED)]
