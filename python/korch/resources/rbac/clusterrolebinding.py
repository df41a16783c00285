"""ClusterRoleBinding: who may do what a cluster role says, everywhere."""

from __future__ import annotations

from korch.api.names import is_path_segment
from korch.resources.rbac.rules import BINDING_COLUMNS, GROUP, default_binding, validate_binding_update, validate_cluster_role_binding
from korch.resources.resource import Resource, Strategy

RESOURCE = Resource(
    group=GROUP,
    version="v1",
    kind="ClusterRoleBinding",
    plural="clusterrolebindings",
    singular="clusterrolebinding",
    schema="io.k8s.api.rbac.v1.ClusterRoleBinding",
    namespaced=False,
    strategy=Strategy(
        default=default_binding,
        validate=validate_cluster_role_binding,
        validate_update=validate_binding_update,
        validate_name=is_path_segment,
    ),
    columns=BINDING_COLUMNS,
)
