"""From object to stored bytes, once per write, and from stored bytes to answers without decoding.

The store learns the revision only when it commits, so an object is encoded with an empty `resourceVersion` in a place
known beforehand, first in `metadata`, and the store inserts the digits there. Everything that reads later sends these bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

Object = dict[str, Any]


def encode(obj: Mapping[str, Any]) -> tuple[bytes, int]:
    """Return the JSON of `obj` without its resourceVersion, and the offset at which the store writes one."""
    metadata = {"resourceVersion": ""}
    metadata.update(obj.get("metadata") or {})
    metadata["resourceVersion"] = ""
    head = orjson.dumps({"kind": obj["kind"], "apiVersion": obj["apiVersion"]})[:-1] + b',"metadata":'
    rest = {key: value for key, value in obj.items() if key not in ("kind", "apiVersion", "metadata")}
    tail = b"," + orjson.dumps(rest)[1:] if rest else b"}"
    return head + orjson.dumps(metadata) + tail, len(head) + len(b'{"resourceVersion":"')


def dump(value: Any) -> bytes:
    """Return compact JSON."""
    return orjson.dumps(value)


def list_body(
    kind: str,
    api_version: str,
    items: Iterable[bytes],
    *,
    resource_version: str,
    continue_token: str = "",
    remaining: int | None = None,
) -> bytes:
    """Return a `<kind>` list document around encoded items."""
    metadata: Object = {"resourceVersion": resource_version}
    if continue_token:
        metadata["continue"] = continue_token
        if remaining is not None:
            metadata["remainingItemCount"] = remaining
    head = orjson.dumps({"kind": kind, "apiVersion": api_version, "metadata": metadata})[:-1]
    return b"".join((head, b',"items":[', b",".join(items), b"]}\n"))


def watch_line(event_type: str, body: bytes) -> bytes:
    """Return one line of a watch."""
    return b'{"type":"' + event_type.encode() + b'","object":' + body + b"}\n"


def bookmark(kind: str, api_version: str, revision: int, *, is_initial_end: bool = False) -> bytes:
    """Return the object of a BOOKMARK: nothing but a resourceVersion, and the mark of the end of the initial events."""
    metadata: Object = {"resourceVersion": str(revision)}
    if is_initial_end:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    return orjson.dumps({"kind": kind, "apiVersion": api_version, "metadata": metadata})


def success(name: str = "", group: str = "", kind: str = "", uid: str = "") -> Object:
    """Return a `Status` that says Success; with a name, `details` say of what."""
    status: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if name:
        details = {"name": name, "group": group, "kind": kind, "uid": uid}
        status["details"] = {key: value for key, value in details.items() if value}
    return status
