"""The columns of `kubectl get events`, for both shapes of an Event. Mirrors printEvent of kubernetes' printers."""

from __future__ import annotations

from korch.api.duration import since
from korch.api.meta import at
from korch.resources.columns import NAME, cell, text
from korch.resources.resource import Column, Object


def _either(event: Object, *names: str) -> str:
    """Return the first of the named fields that is filled."""
    return next((event[name] for name in names if event.get(name)), "")


def _first_seen(event: Object, now: float) -> str:
    return since(_either(event, "firstTimestamp", "deprecatedFirstTimestamp", "eventTime"), now)


def _last_seen(event: Object, now: float) -> str:
    if event.get("series") is not None:
        return since(at(event, "series", "lastObservedTime"), now)
    last = _either(event, "lastTimestamp", "deprecatedLastTimestamp")
    return since(last, now) if last else _first_seen(event, now)


def _count(event: Object, _now: float) -> int:
    if event.get("series") is not None:
        return at(event, "series", "count") or 0
    return event.get("count") or event.get("deprecatedCount") or 1


def _referent(event: Object) -> Object:
    return event.get("involvedObject") or event.get("regarding") or {}


def _object(event: Object) -> str:
    kind, name = (_referent(event).get("kind") or "").lower(), _referent(event).get("name")
    return f"{kind}/{name}" if name else kind


def _source(event: Object) -> str:
    source = event.get("source") or event.get("deprecatedSource") or {}
    parts = [source.get("component") or _either(event, "reportingComponent", "reportingController")]
    parts.append(source.get("host") or event.get("reportingInstance") or "")
    return ", ".join(part for part in parts if part)


EVENT_COLUMNS: tuple[Column, ...] = (
    Column("Last Seen", _last_seen, description="Time since it happened last."),
    text("Type", "type", description="Normal or Warning."),
    text("Reason", "reason", description="Why it was reported, in one word."),
    cell("Object", _object, description="What it is about."),
    cell("Subobject", lambda event: _referent(event).get("fieldPath") or "", description="Which part of the object.", priority=1),
    cell("Source", _source, description="Who reported it.", priority=1),
    cell("Message", lambda event: _either(event, "message", "note").strip(), description="What happened."),
    Column("First Seen", _first_seen, description="Time since it happened first.", priority=1),
    Column("Count", _count, type="string", description="How often it happened.", priority=1),
    Column(NAME.name, NAME.value, format="name", description=NAME.description, priority=1),
)
