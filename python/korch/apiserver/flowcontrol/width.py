"""How many seats a request takes: one, and more for a list of many objects.

Mirrors apiserver's pkg/util/flowcontrol/request/list_work_estimator.go: a seat for every hundred objects, ten at most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from korch.apiserver.request_info import RequestInfo
from korch.apiserver.selection import selected_name

SEATS_MAX = 10
_OBJECTS_PER_SEAT = 100
# Returns how many objects a collection holds: (group, version, plural, namespace).
Count = Callable[[str, str, str, str], int]


def seats(info: RequestInfo, query: Mapping[str, str], count: Count) -> int:
    """Return the width of a request, 1 to SEATS_MAX."""
    if info.verb not in ("list", "watch") or not info.is_resource:
        return 1
    if info.verb == "watch" and query.get("sendInitialEvents") != "true":
        return 1
    if info.field_selector and selected_name(info.field_selector):
        return 1
    objects = count(info.group, info.version, info.resource, info.namespace)
    limit = query.get("limit", "")
    if limit.isdigit() and int(limit) > 0:
        objects = min(objects, int(limit))
    return max(1, min(SEATS_MAX, -(-objects // _OBJECTS_PER_SEAT)))
