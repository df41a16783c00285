"""PodGroup, for the servers of benchmarks whose workloads switch the feature gate GenericWorkload on.

Upstream has the kind off by default, and so has every other server of ours. A group without gang scheduling changes no decision; it only
has to be there.
"""

from __future__ import annotations

from korch.resources.columns import AGE, NAME
from korch.resources.resource import Resource

POD_GROUP_KINDS = tuple(
    Resource(
        group="scheduling.k8s.io",
        version=version,
        kind="PodGroup",
        plural="podgroups",
        singular="podgroup",
        schema=f"io.k8s.api.scheduling.{version}.PodGroup",
        columns=(NAME, AGE),
    )
    for version in ("v1beta1", "v1alpha3")
)
