"""The two shapes of an Event. Storage holds the core/v1 shape; events.k8s.io/v1 reads and writes the same objects under other names.

Each pair below is one field in both shapes; fields that are equal in both (reason, type, action, eventTime, related,
reportingInstance) are not listed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from korch.api.meta import at
from korch.resources.resource import Object

# (name in core/v1, name in events.k8s.io/v1)
_PAIRS = (
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
)


def to_core(event: Object) -> None:
    """Turn an events.k8s.io/v1 Event into its stored core/v1 shape, in place."""
    _rename(event, [(new, old) for old, new in _PAIRS], "v1")


def from_core(event: Object) -> None:
    """Turn a stored core/v1 Event into its events.k8s.io/v1 shape, in place."""
    _rename(event, _PAIRS, "events.k8s.io/v1")


def _rename(event: Object, pairs: list[tuple[str, str]] | tuple[tuple[str, str], ...], api_version: str) -> None:
    for source, target in pairs:
        if source in event:
            event[target] = event.pop(source)
    event["apiVersion"] = api_version


def _referent(field: str) -> Callable[[Object], str]:
    return lambda event: at(event, "involvedObject", field) or at(event, "regarding", field) or ""


def _reporter(event: Object) -> str:
    return event.get("reportingComponent") or event.get("reportingController") or ""


_REFERENT_FIELDS = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")

# Both kinds offer the labels of both shapes, since their objects share one index.
SELECTABLE_FIELDS: Mapping[str, Callable[[Object], str]] = {
    **{f"involvedObject.{field}": _referent(field) for field in _REFERENT_FIELDS},
    **{f"regarding.{field}": _referent(field) for field in _REFERENT_FIELDS},
    "reason": lambda event: event.get("reason") or "",
    "reportingComponent": _reporter,
    "reportingController": _reporter,
    "source": lambda event: at(event, "source", "component") or at(event, "deprecatedSource", "component") or _reporter(event),
    "type": lambda event: event.get("type") or "",
}
