"""Event (events.k8s.io/v1): the same stored objects as core/v1 events, under the newer field names."""

from __future__ import annotations

from korch.resources.events.columns import EVENT_COLUMNS
from korch.resources.events.fields import SELECTABLE_FIELDS, from_core, to_core
from korch.resources.events.rules import validate_event_update, validate_new_event
from korch.resources.resource import Resource, Strategy

RESOURCE = Resource(
    group="events.k8s.io",
    version="v1",
    kind="Event",
    plural="events",
    singular="event",
    schema="io.k8s.api.events.v1.Event",
    short_names=("ev",),
    strategy=Strategy(validate=validate_new_event, validate_update=validate_event_update, allows_create_on_update=True),
    selectable_fields=SELECTABLE_FIELDS,
    columns=EVENT_COLUMNS,
    storage=("", "events"),
    from_storage=from_core,
    to_storage=to_core,
)
