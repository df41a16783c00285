"""ClusterRole: what may be done, in a namespace or in the whole cluster; it may gather the rules of others."""

from __future__ import annotations

from korch.api.names import is_path_segment
from korch.resources.rbac.rules import GROUP, ROLE_COLUMNS, validate_cluster_role
from korch.resources.resource import Resource, Strategy

RESOURCE = Resource(
    group=GROUP,
    version="v1",
    kind="ClusterRole",
    plural="clusterroles",
    singular="clusterrole",
    schema="io.k8s.api.rbac.v1.ClusterRole",
    namespaced=False,
    strategy=Strategy(validate=validate_cluster_role, validate_name=is_path_segment),
    columns=ROLE_COLUMNS,
)
