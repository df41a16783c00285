"""Event (core/v1): a report of something that happened to an object."""

from __future__ import annotations

from korch.resources.events.columns import EVENT_COLUMNS
from korch.resources.events.fields import SELECTABLE_FIELDS
from korch.resources.events.rules import validate_core_event, validate_event_update
from korch.resources.resource import Resource, Strategy

RESOURCE = Resource(
    group="",
    version="v1",
    kind="Event",
    plural="events",
    singular="event",
    schema="io.k8s.api.core.v1.Event",
    short_names=("ev",),
    strategy=Strategy(validate=validate_core_event, validate_update=validate_event_update, allows_create_on_update=True),
    selectable_fields=SELECTABLE_FIELDS,
    columns=EVENT_COLUMNS,
)
