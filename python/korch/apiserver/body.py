"""Request bodies become JSON bytes: JSON as it came, YAML decoded, protobuf transcoded from its Kubernetes envelope.

Answers are always JSON or YAML, so protobuf is only ever read. Mirrors apiserver's negotiated input serializers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import yaml

from korch._core import native
from korch.api.errors import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

BODY_BYTES_MAX = 3 * 1024 * 1024
_PROTOBUF = "application/vnd.kubernetes.protobuf"
_PROTOBUF_MAGIC = b"k8s\x00"
_JSON = ("", "*/*", "application/json")
_YAML = ("application/yaml", "application/x-yaml", "text/yaml")
PATCH_TYPES = {
    "application/apply-patch+yaml": "apply",
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
}
_STRATEGIC = "application/strategic-merge-patch+json"
# In the order in which a refusal lists them.
_ACCEPTED_PATCHES = ("application/json-patch+json", "application/merge-patch+json", _STRATEGIC, "application/apply-patch+yaml")


def media_type(headers: Mapping[str, str]) -> str:
    """Return the Content-Type without its parameters, in lower case."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def to_json(body: bytes, content_type: str) -> bytes:
    """Return `body` as JSON. Raises UnsupportedMediaType, BadRequest."""
    if content_type in _JSON and not body.startswith(_PROTOBUF_MAGIC):
        return body
    if content_type in _YAML:
        return _from_yaml(body)
    if content_type == _PROTOBUF or (content_type in _JSON and body.startswith(_PROTOBUF_MAGIC)):
        try:
            return native.protobuf_to_json(body)[2]
        except ValueError as error:
            raise BadRequest(str(error)) from error
    raise UnsupportedMediaType(
        "the body of the request was in an unknown format - accepted media types include: "
        "application/json, application/yaml, application/vnd.kubernetes.protobuf"
    )


def patch_kind(content_type: str, *, is_custom: bool) -> str:
    """Return json, merge, strategic (not for custom kinds) or apply. Raises UnsupportedMediaType for anything else."""
    accepted = [one for one in _ACCEPTED_PATCHES if not (is_custom and one == _STRATEGIC)]
    if content_type not in accepted:
        raise UnsupportedMediaType(
            "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
        )
    return PATCH_TYPES[content_type]


def configuration(body: bytes) -> tuple[bytes, Any, bool]:
    """Return an applied configuration as JSON and decoded, and whether it came as YAML. Raises BadRequest."""
    try:
        decoded: Any = orjson.loads(body)
        return orjson.dumps(decoded), decoded, False
    except orjson.JSONDecodeError:
        pass
    try:
        found = _from_yaml(body)
    except BadRequest as error:
        raise BadRequest(f"error decoding patch: {error.message}") from error
    return found, orjson.loads(found), True


def duplicate_keys(body: bytes) -> str:
    """Return what a strict YAML decoder says of keys that are set twice, "" when there are none."""
    lines: list[str] = []
    pending: list[Any] = [yaml.compose(body, Loader=_JsonLikeLoader)]
    while pending:
        node = pending.pop()
        if isinstance(node, yaml.SequenceNode):
            pending += reversed(node.value)
        if not isinstance(node, yaml.MappingNode):
            continue
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                lines.append(f'  line {key.start_mark.line + 1}: key "{key.value}" already set in map')
            seen.add(key.value)
        pending += [value for _, value in reversed(node.value)]
    return "error converting YAML to JSON: yaml: unmarshal errors:\n" + "\n".join(lines) if lines else ""


def check_size(size: int) -> None:
    """Raise RequestEntityTooLarge when a body of `size` bytes is more than the server reads."""
    if size > BODY_BYTES_MAX:
        raise RequestEntityTooLarge(f"Request entity too large: limit is {BODY_BYTES_MAX}")


def to_yaml(body: bytes) -> bytes:
    """Return a JSON document as YAML, for clients that accept nothing else."""
    return yaml.safe_dump(orjson.loads(body), sort_keys=False).encode()


def _from_yaml(body: bytes) -> bytes:
    try:
        value: Any = yaml.load(body, Loader=_JsonLikeLoader)
        return orjson.dumps(value)
    except (yaml.YAMLError, orjson.JSONEncodeError) as error:
        raise BadRequest(f"error converting YAML to JSON: {error}") from error


# The C parser where the library was built with it: twenty times as fast.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _JsonLikeLoader(_SafeLoader):
    """YAML as JSON would have it: dates stay text."""


_JsonLikeLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
