"""Names of kinds: GroupVersionKind, and ResourceRef, the address of a collection in the REST API."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class ResourceRef:
    """Where a kind is served: what a client needs to build a path, and nothing more."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """Return `v1` or `apps/v1`: the object's apiVersion."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the URL path, such as `/apis/apps/v1/namespaces/d/deployments/web/scale`."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace and self.namespaced:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


PODS = ResourceRef("", "v1", "pods", "Pod")
SERVICES = ResourceRef("", "v1", "services", "Service")
ENDPOINTS = ResourceRef("", "v1", "endpoints", "Endpoints")
NODES = ResourceRef("", "v1", "nodes", "Node", namespaced=False)
NAMESPACES = ResourceRef("", "v1", "namespaces", "Namespace", namespaced=False)
CONFIG_MAPS = ResourceRef("", "v1", "configmaps", "ConfigMap")
SECRETS = ResourceRef("", "v1", "secrets", "Secret")
SERVICE_ACCOUNTS = ResourceRef("", "v1", "serviceaccounts", "ServiceAccount")
EVENTS = ResourceRef("", "v1", "events", "Event")
REPLICATION_CONTROLLERS = ResourceRef("", "v1", "replicationcontrollers", "ReplicationController")
DEPLOYMENTS = ResourceRef("apps", "v1", "deployments", "Deployment")
REPLICA_SETS = ResourceRef("apps", "v1", "replicasets", "ReplicaSet")
DAEMON_SETS = ResourceRef("apps", "v1", "daemonsets", "DaemonSet")
STATEFUL_SETS = ResourceRef("apps", "v1", "statefulsets", "StatefulSet")
CONTROLLER_REVISIONS = ResourceRef("apps", "v1", "controllerrevisions", "ControllerRevision")
JOBS = ResourceRef("batch", "v1", "jobs", "Job")
CRON_JOBS = ResourceRef("batch", "v1", "cronjobs", "CronJob")
ENDPOINT_SLICES = ResourceRef("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
RESOURCE_QUOTAS = ResourceRef("", "v1", "resourcequotas", "ResourceQuota")
PERSISTENT_VOLUMES = ResourceRef("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
PERSISTENT_VOLUME_CLAIMS = ResourceRef("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
POD_DISRUPTION_BUDGETS = ResourceRef("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
CERTIFICATE_SIGNING_REQUESTS = ResourceRef(
    "certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", namespaced=False
)
CLUSTER_ROLES = ResourceRef("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
LEASES = ResourceRef("coordination.k8s.io", "v1", "leases", "Lease")
POD_GROUPS = ResourceRef("scheduling.k8s.io", "v1beta1", "podgroups", "PodGroup")
