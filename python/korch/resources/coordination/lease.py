"""Lease: who holds a role, and until when; also a node's heartbeat."""

from __future__ import annotations

from korch.resources.columns import AGE, NAME, text
from korch.resources.resource import Resource, Strategy

RESOURCE = Resource(
    group="coordination.k8s.io",
    version="v1",
    kind="Lease",
    plural="leases",
    singular="lease",
    schema="io.k8s.api.coordination.v1.Lease",
    strategy=Strategy(allows_create_on_update=True, allows_unconditional_update=False),
    columns=(NAME, text("Holder", "spec", "holderIdentity", description="Who holds it."), AGE),
)
