"""DeviceTaintRule: an administrator's taint on the devices that it selects."""

from __future__ import annotations

from korch.api.errors import Cause, invalid, not_supported, required
from korch.api.meta import at
from korch.api.names import is_label_value, is_qualified_name
from korch.resources.columns import AGE, NAME
from korch.resources.dra.requests import check_driver
from korch.resources.resource import Context, Object, Resource, Strategy
from korch.resources.subresources import STATUS
from korch.runtime.clock import rfc3339

_EFFECTS = ("NoExecute", "None", "NoSchedule")


def _stamp(obj: Object, context: Context) -> None:
    taint = at(obj, "spec", "taint")
    if taint is not None and not taint.get("timeAdded"):
        taint["timeAdded"] = rfc3339(context.now)


def prepare_update(new: Object, old: Object, context: Context) -> None:
    """A new taint is as old as this update, unless it says otherwise."""
    before, after = at(old, "spec", "taint") or {}, at(new, "spec", "taint") or {}
    if {**before, "timeAdded": None} == {**after, "timeAdded": None} and not after.get("timeAdded"):
        after["timeAdded"] = before.get("timeAdded")
    _stamp(new, context)


def validate(obj: Object) -> list[Cause]:
    """Return what is wrong with a DeviceTaintRule."""
    causes: list[Cause] = []
    selector = at(obj, "spec", "deviceSelector")
    if selector is not None and selector.get("driver") is not None:
        check_driver(causes, selector["driver"], "spec.deviceSelector.driver")
    taint = at(obj, "spec", "taint") or {}
    key, value, effect = taint.get("key") or "", taint.get("value") or "", taint.get("effect") or ""
    causes += [invalid("spec.taint.key", key, why) for why in is_qualified_name(key)]
    causes += [invalid("spec.taint.value", value, why) for why in is_label_value(value)]
    if not effect:
        causes.append(required("spec.taint.effect"))
    elif effect not in _EFFECTS:
        causes.append(not_supported("spec.taint.effect", effect, _EFFECTS))
    return causes


RESOURCE = Resource(
    group="resource.k8s.io",
    version="v1",
    kind="DeviceTaintRule",
    plural="devicetaintrules",
    singular="devicetaintrule",
    schema="io.k8s.api.resource.v1.DeviceTaintRule",
    namespaced=False,
    strategy=Strategy(prepare_create=_stamp, prepare_update=prepare_update, validate=validate, has_status=True, has_generation=True),
    subresources=(STATUS,),
    columns=(NAME, AGE),
)
