"""ComponentStatus: how the parts of the control plane are, as this server sees them. Made when asked for, never stored."""

from __future__ import annotations

from korch.resources.columns import NAME, cell
from korch.resources.resource import Object, Resource


def _healthy(obj: Object) -> Object:
    return next((one for one in obj.get("conditions") or () if one.get("type") == "Healthy"), {})


def _status(obj: Object) -> str:
    return {"True": "Healthy", "False": "Unhealthy"}.get(_healthy(obj).get("status") or "", "Unknown")


RESOURCE = Resource(
    group="",
    version="v1",
    kind="ComponentStatus",
    plural="componentstatuses",
    singular="componentstatus",
    schema="io.k8s.api.core.v1.ComponentStatus",
    warning="v1 ComponentStatus is deprecated in v1.19+",
    short_names=("cs",),
    namespaced=False,
    verbs=("get", "list"),
    is_computed=True,
    columns=(
        NAME,
        cell("Status", _status, description="Whether it works."),
        cell("Message", lambda obj: _healthy(obj).get("message") or "", description="What it says."),
        cell("Error", lambda obj: _healthy(obj).get("error") or "", description="What is wrong with it."),
    ),
)
