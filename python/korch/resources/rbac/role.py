"""Role: what may be done in one namespace."""

from __future__ import annotations

from korch.api.names import is_path_segment
from korch.resources.rbac.rules import GROUP, ROLE_COLUMNS, validate_role
from korch.resources.resource import Resource, Strategy

RESOURCE = Resource(
    group=GROUP,
    version="v1",
    kind="Role",
    plural="roles",
    singular="role",
    schema="io.k8s.api.rbac.v1.Role",
    namespaced=True,
    strategy=Strategy(validate=validate_role, validate_name=is_path_segment),
    columns=ROLE_COLUMNS,
)
