"""Rules of an Event. Reports through the old API may say little; those that carry eventTime must say all.

Mirrors ValidateEventCreate of kubernetes' pkg/apis/core/validation.
"""

from __future__ import annotations

from korch.api import names
from korch.api.errors import Cause, invalid, required
from korch.api.meta import at, namespace_of
from korch.api.validation import check_immutable
from korch.resources.resource import Object

_REASON_MAX, _ACTION_MAX, _NOTE_MAX, _INSTANCE_MAX = 128, 128, 1024, 128
# Events about objects without a namespace live here.
_CLUSTER_NAMESPACES = ("", "default", "kube-system")


def validate_core_event(event: Object) -> list[Cause]:
    """Return what is wrong with an Event in its core/v1 shape."""
    if event.get("eventTime"):
        return _validate_strictly(event)
    causes: list[Cause] = []
    _check_namespace(causes, event)
    return causes


def validate_new_event(event: Object) -> list[Cause]:
    """Return what is wrong with an Event that comes through events.k8s.io, in either shape."""
    if event.get("deprecatedCount") or event.get("deprecatedFirstTimestamp") or event.get("count") or event.get("firstTimestamp"):
        return validate_core_event(event)
    return _validate_strictly(event)


def validate_event_update(new: Object, old: Object) -> list[Cause]:
    """Return whether an update of a strict event changes more than its series."""
    causes: list[Cause] = []
    if old.get("eventTime"):
        for field in ("involvedObject", "regarding", "reason", "action", "related", "reportingInstance", "type", "eventTime"):
            check_immutable(causes, new.get(field), old.get(field), field)
    return causes


def _validate_strictly(event: Object) -> list[Cause]:
    causes: list[Cause] = []
    _check_namespace(causes, event)
    if not event.get("eventTime"):
        causes.append(required("eventTime"))
    if event.get("type") not in ("Normal", "Warning"):
        causes.append(invalid("type", "", f"has invalid value: {event.get('type') or ''}"))
    reporter = event.get("reportingComponent") or event.get("reportingController") or ""
    if not reporter:
        causes.append(required("reportingController"))
    causes += [invalid("reportingController", reporter, why) for why in names.is_qualified_name(reporter) if reporter]
    limits = (("reportingInstance", _INSTANCE_MAX), ("action", _ACTION_MAX), ("reason", _REASON_MAX))
    for field, limit in limits:
        value = event.get(field) or ""
        if not value:
            causes.append(required(field))
        elif len(value) > limit:
            causes.append(invalid(field, "", f"can have at most {limit} characters"))
    if len(event.get("message") or event.get("note") or "") > _NOTE_MAX:
        causes.append(invalid("message", "", f"can have at most {_NOTE_MAX} characters"))
    return causes


def _check_namespace(causes: list[Cause], event: Object) -> None:
    field = "involvedObject" if "involvedObject" in event else "regarding"
    about, own = at(event, field, "namespace") or "", namespace_of(event)
    matches = about == own if about else own in _CLUSTER_NAMESPACES
    if not matches:
        causes.append(invalid("involvedObject.namespace", about, "does not match event.namespace"))
