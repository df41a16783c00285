"""The three patches that need no field managers: JSON patch, merge patch and strategic merge patch, on encoded objects.

Errors are of two kinds, which the API server answers differently: `MalformedPatch` (400: the patch itself is wrong) and
`UnprocessablePatch` (422: the patch is fine but cannot be applied to this object, such as a failed JSON-patch test).
Server-side apply stands in its own module.
"""

from __future__ import annotations

from typing import Any

import jsonpatch
import jsonpointer
import orjson

from korch._core import native

MalformedPatch = native.MalformedPatch
UnprocessablePatch = native.UnprocessablePatch


class PatchTooLong(MalformedPatch):
    """A JSON patch of more operations than the server performs for one request."""


# As upstream: a bound on the work one request can ask for.
JSON_PATCH_OPERATIONS_MAX = 10_000
# All that upstream tells a client whose JSON patch does not apply; the reason is the exception's cause.
_REJECTED = "the server rejected our request due to an error in our request"


def merge_patch(target: bytes, patch: bytes) -> bytes:
    """Return `target` with an RFC 7386 merge patch applied. Raises MalformedPatch."""
    return native.merge_patch(target, patch)


def strategic_merge_patch(target: bytes, patch: bytes, schema_name: str, schema: native.Schema) -> bytes:
    """Return `target`, an object of the definition `schema_name`, with a strategic merge patch applied.

    Raises MalformedPatch, UnprocessablePatch. Mirrors apimachinery's strategicpatch.
    """
    return native.strategic_merge_patch(target, patch, schema_name, schema)


def json_patch(target: bytes, patch: bytes) -> bytes:
    """Return `target` with an RFC 6902 patch applied: all of its operations, or none.

    Raises MalformedPatch (no patch at all), PatchTooLong, UnprocessablePatch (a test failed or a path does not exist).
    """
    operations = _operations(patch)
    try:
        patched = jsonpatch.JsonPatch(operations).apply(orjson.loads(target))
    except jsonpatch.InvalidJsonPatch as error:
        raise MalformedPatch(str(error)) from error
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError, KeyError, IndexError) as error:
        raise UnprocessablePatch(_REJECTED) from error
    return orjson.dumps(patched)


def changes_metadata_alone(patch: bytes) -> bool:
    """Whether a merge or strategic merge patch names nothing but fields of `metadata`, the managers not among them, and gives no directives
    for it."""
    try:
        given: Any = orjson.loads(patch)
    except orjson.JSONDecodeError:
        return False
    if not isinstance(given, dict) or list(given) != ["metadata"] or not isinstance(given["metadata"], dict):
        return False
    return not any(key == "managedFields" or key.startswith("$") for key in given["metadata"])


def _operations(patch: bytes) -> list[dict[str, Any]]:
    try:
        operations = orjson.loads(patch)
    except orjson.JSONDecodeError as error:
        raise MalformedPatch(f"error decoding patch: {error}") from error
    if not isinstance(operations, list) or not all(isinstance(operation, dict) for operation in operations):
        raise MalformedPatch("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    if len(operations) > JSON_PATCH_OPERATIONS_MAX:
        raise PatchTooLong(f"The allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS_MAX}, got {len(operations)}")
    return operations
