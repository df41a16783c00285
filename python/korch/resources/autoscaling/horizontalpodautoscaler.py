"""HorizontalPodAutoscaler (v2): keeps a workload at as many pods as its load needs. The form in which they are stored."""

from __future__ import annotations

from korch.resources.autoscaling.rules import columns, default, validate
from korch.resources.resource import Resource, Strategy
from korch.resources.subresources import STATUS

RESOURCE = Resource(
    group="autoscaling",
    version="v2",
    kind="HorizontalPodAutoscaler",
    plural="horizontalpodautoscalers",
    singular="horizontalpodautoscaler",
    schema="io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    short_names=("hpa",),
    categories=("all",),
    strategy=Strategy(default=default, validate=validate, has_status=True, status_counts=("desiredReplicas",)),
    subresources=(STATUS,),
    columns=columns(lambda obj: obj),
)
