"""DeviceClass: a kind of device that claims can ask for by name."""

from __future__ import annotations

from korch.api.errors import Cause
from korch.resources.columns import AGE, NAME
from korch.resources.dra.requests import check_configuration, check_selectors
from korch.resources.resource import Object, Resource, Strategy


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a DeviceClass. Mirrors ValidateDeviceClass."""
    causes: list[Cause] = []
    spec = obj.get("spec") or {}
    check_selectors(causes, spec.get("selectors") or (), "spec.selectors")
    for position, config in enumerate(spec.get("config") or ()):
        check_configuration(causes, config, f"spec.config[{position}]")
    return causes


RESOURCE = Resource(
    group="resource.k8s.io",
    version="v1",
    kind="DeviceClass",
    plural="deviceclasses",
    singular="deviceclass",
    schema="io.k8s.api.resource.v1.DeviceClass",
    namespaced=False,
    strategy=Strategy(validate=validate, has_generation=True),
    columns=(NAME, AGE),
)
