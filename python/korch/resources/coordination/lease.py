"""Lease: who holds a role, and until when; also a node's heartbeat."""

from __future__ import annotations

from korch.api.errors import Cause, invalid
from korch.api.validation import POSITIVE, check_not_negative
from korch.resources.columns import AGE, NAME, text
from korch.resources.resource import Object, Resource, Strategy


def validate(lease: Object) -> list[Cause]:
    """Return what is wrong with a Lease. Mirrors ValidateLeaseSpec."""
    causes: list[Cause] = []
    spec = lease.get("spec") or {}
    seconds = spec.get("leaseDurationSeconds")
    if seconds is not None and seconds <= 0:
        causes.append(invalid("spec.leaseDurationSeconds", seconds, POSITIVE))
    check_not_negative(causes, spec.get("leaseTransitions"), "spec.leaseTransitions")
    return causes


RESOURCE = Resource(
    group="coordination.k8s.io",
    version="v1",
    kind="Lease",
    plural="leases",
    singular="lease",
    schema="io.k8s.api.coordination.v1.Lease",
    strategy=Strategy(validate=validate, allows_create_on_update=True, allows_unconditional_update=False),
    columns=(NAME, text("Holder", "spec", "holderIdentity", description="Who holds it."), AGE),
)
