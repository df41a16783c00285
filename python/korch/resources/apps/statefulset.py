"""StatefulSet: pods with lasting names and storage."""

from __future__ import annotations

from korch.api.meta import at
from korch.resources.columns import AGE, NAME, cell, template_columns
from korch.resources.podspec.defaults import default_pod_template, fill
from korch.resources.resource import Object, Resource, Scale, Strategy
from korch.resources.subresources import SCALE, STATUS


def _ready(obj: Object) -> str:
    return f"{at(obj, 'status', 'readyReplicas') or 0}/{at(obj, 'spec', 'replicas') or 0}"


def default(obj: Object) -> None:
    """Fill in a StatefulSet, in place. Mirrors SetDefaults_StatefulSet of apps/v1."""
    spec = fill(obj, "spec", {})
    fill(spec, "podManagementPolicy", "OrderedReady")
    strategy = fill(spec, "updateStrategy", {})
    if fill(strategy, "type", "RollingUpdate") == "RollingUpdate":
        fill(fill(strategy, "rollingUpdate", {}), "partition", 0)
    retention = fill(spec, "persistentVolumeClaimRetentionPolicy", {})
    fill(retention, "whenDeleted", "Retain")
    fill(retention, "whenScaled", "Retain")
    fill(spec, "replicas", 1)
    fill(spec, "revisionHistoryLimit", 10)
    fill(spec, "serviceName", "")
    for claim in spec.get("volumeClaimTemplates") or ():
        fill(claim, "apiVersion", "v1")
        fill(claim, "kind", "PersistentVolumeClaim")
        fill(fill(claim, "spec", {}), "volumeMode", "Filesystem")
        fill(fill(claim, "status", {}), "phase", "Pending")
    default_pod_template(spec.get("template"))


RESOURCE = Resource(
    group="apps",
    version="v1",
    kind="StatefulSet",
    plural="statefulsets",
    singular="statefulset",
    schema="io.k8s.api.apps.v1.StatefulSet",
    short_names=("sts",),
    categories=("all",),
    strategy=Strategy(default=default, has_status=True, has_generation=True),
    subresources=(SCALE, STATUS),
    scale=Scale(),
    columns=(
        NAME,
        cell("Ready", _ready, description="Pods that are ready, of those wanted."),
        AGE,
        *template_columns("spec", "template", selector=False),
    ),
)
