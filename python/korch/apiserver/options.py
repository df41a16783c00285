"""The query parameters and option bodies of the verbs, read once into frozen values. Mirrors metav1.ListOptions and friends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from korch.api.errors import BadRequest, Cause, Invalid, forbidden_field, not_supported, required, too_long
from korch.api.errors import invalid as invalid_value
from korch.apiserver.field_managers import manager_name
from korch.apiserver.request_info import is_true
from korch.resources.openapi import native_schema

_MATCHES = ("Exact", "NotOlderThan")
_VALIDATIONS = ("Ignore", "Warn", "Strict")
_POLICIES = ("Foreground", "Background", "Orphan")
_MANAGER_BYTES_MAX = 128
_INT64_MAX, _UINT64_MAX = 2**63 - 1, 2**64 - 1
_DELETE_OPTIONS = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"


def _granted() -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """Of create, update and patch. `field_validation` is Ignore, Warn or Strict; `manager` is who will own what changes.

    `may_create` is asked when an update or apply turns out to create; it raises what the client gets when it may not.
    """

    is_dry_run: bool = False
    field_validation: str = "Warn"
    manager: str = ""
    force: bool = False
    may_create: Callable[[], None] = _granted


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """Of list, watch and deletecollection. `resource_version` is "" or a decimal number; `timeout_s` 0 means the server's choice."""

    label_selector: str = ""
    field_selector: str = ""
    resource_version: str = ""
    resource_version_match: str = ""
    limit: int = 0
    continue_token: str = ""
    timeout_s: float = 0
    allows_bookmarks: bool = False
    sends_initial_events: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovalOptions:
    """Of delete. None means that the server decides; preconditions are empty when not asked for."""

    grace_period_s: int | None = None
    propagation_policy: str | None = None
    orphan_dependents: bool | None = None
    uid: str = ""
    resource_version: str = ""
    is_dry_run: bool = False


def write_options(
    query: Mapping[str, str], verb: str, *, is_apply: bool = False, user_agent: str = "", may_create: Callable[[], None] = _granted
) -> WriteOptions:
    """Return the options of a create, update or patch. Raises Invalid."""
    causes: list[Cause] = []
    manager = query.get("fieldManager", "")
    if is_apply and not manager:
        causes.append(required("fieldManager", "is required for apply patch"))
    if not is_apply and verb == "patch" and query.get("force"):
        causes.append(forbidden_field("force", "may not be specified for non-apply patch"))
    if len(manager.encode()) > _MANAGER_BYTES_MAX:
        causes.append(too_long("fieldManager", _MANAGER_BYTES_MAX))
    causes += [
        invalid_value("fieldManager", manager, "should only contain printable characters") for char in manager if not char.isprintable()
    ][:1]
    is_dry_run = _dry_run([query["dryRun"]] if query.get("dryRun") else [], causes)
    validation = query.get("fieldValidation") or "Warn"
    if validation not in _VALIDATIONS:
        causes.append(not_supported("fieldValidation", validation, ("", *_VALIDATIONS)))
    if causes:
        raise Invalid("meta.k8s.io", f"{verb.capitalize()}Options", "", causes)
    return WriteOptions(
        is_dry_run=is_dry_run,
        field_validation=validation,
        manager=manager_name(manager, user_agent),
        force=is_apply and is_true(query.get("force") or None),
        may_create=may_create,
    )


def read_options(query: Mapping[str, str], *, is_watch: bool) -> ReadOptions:
    """Return the options of a list or watch. Raises BadRequest, Invalid."""
    options = ReadOptions(
        label_selector=query.get("labelSelector", ""),
        field_selector=query.get("fieldSelector", ""),
        resource_version=query.get("resourceVersion", ""),
        resource_version_match=query.get("resourceVersionMatch", ""),
        limit=max(0, _integer(query, "limit") or 0),
        continue_token=query.get("continue", ""),
        timeout_s=float(max(0, _integer(query, "timeoutSeconds") or 0)),
        allows_bookmarks=is_true(query.get("allowWatchBookmarks")),
        sends_initial_events=is_true(query.get("sendInitialEvents")),
    )
    causes = _watch_causes(options, "sendInitialEvents" in query) if is_watch else _list_causes(options, "sendInitialEvents" in query)
    if causes:
        raise Invalid("meta.k8s.io", "ListOptions", "", causes)
    revision_of(options.resource_version)
    return options


def revision_of(resource_version: str) -> int:
    """Return the number, 0 for "". Raises Invalid as upstream does for anything that is not a decimal number."""
    if not resource_version:
        return 0
    if not resource_version.isascii() or not resource_version.isdigit():
        raise _no_revision(resource_version, "invalid syntax")
    number = int(resource_version)
    if number > _UINT64_MAX:
        raise _no_revision(resource_version, "value out of range")
    return number


def _no_revision(text: str, why: str) -> Invalid:
    return Invalid("", "", "", [invalid_value("resourceVersion", text, f'strconv.ParseUint: parsing "{text}": {why}')])


def removal_options(query: Mapping[str, str], body: bytes) -> RemovalOptions:
    """Return what the query says, overruled by the DeleteOptions in `body` (JSON, b"" for none). Raises BadRequest, Invalid."""
    if body.strip():
        return _removal_from_body(body)
    options = RemovalOptions(
        grace_period_s=_integer(query, "gracePeriodSeconds"),
        propagation_policy=query.get("propagationPolicy") or None,
        orphan_dependents=is_true(query["orphanDependents"]) if query.get("orphanDependents") else None,
    )
    return _checked(options, [query["dryRun"]] if query.get("dryRun") else [])


def _removal_from_body(body: bytes) -> RemovalOptions:
    try:
        decoded, _, _, problems = native_schema().check(_DELETE_OPTIONS, body)
        given: Any = orjson.loads(decoded)
    except ValueError as error:
        raise BadRequest(f"couldn't get version/kind; json parse error: {error}") from error
    kind = given.get("kind")
    if kind not in (None, "", "DeleteOptions"):
        raise BadRequest(f"decoded object cannot be converted to DeleteOptions: {kind}")
    if problems:
        raise BadRequest(problems[0][1])
    preconditions = given.get("preconditions") or {}
    options = RemovalOptions(
        grace_period_s=given.get("gracePeriodSeconds"),
        propagation_policy=given.get("propagationPolicy") or None,
        orphan_dependents=given.get("orphanDependents"),
        uid=preconditions.get("uid") or "",
        resource_version=preconditions.get("resourceVersion") or "",
    )
    return _checked(options, given.get("dryRun") or [])


def _checked(options: RemovalOptions, dry_run: list[str]) -> RemovalOptions:
    causes: list[Cause] = []
    policy = options.propagation_policy
    if policy is not None and options.orphan_dependents is not None:
        causes.append(invalid_value("propagationPolicy", policy, "orphanDependents and deletionPropagation cannot be both set"))
    if policy is not None and policy not in _POLICIES:
        causes.append(not_supported("propagationPolicy", policy, (*_POLICIES, "nil")))
    is_dry_run = _dry_run(dry_run, causes)
    if causes:
        raise Invalid("meta.k8s.io", "DeleteOptions", "", causes)
    return replace(options, is_dry_run=True) if is_dry_run else options


def _dry_run(given: list[str], causes: list[Cause]) -> bool:
    for one in given:
        if one != "All":
            causes.append(not_supported("dryRun", one, ("All",)))
    return bool(given)


def _list_causes(options: ReadOptions, has_initial_events: bool) -> list[Cause]:
    causes: list[Cause] = []
    if has_initial_events:
        causes.append(forbidden_field("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    match = options.resource_version_match
    if match:
        if not options.resource_version:
            causes.append(forbidden_field("resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided"))
        if options.continue_token:
            causes.append(forbidden_field("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided"))
        if match not in _MATCHES:
            causes.append(not_supported("resourceVersionMatch", match, ("", *_MATCHES)))
        if match == "Exact" and options.resource_version == "0":
            causes.append(forbidden_field("resourceVersionMatch", 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
    return causes


def _watch_causes(options: ReadOptions, has_initial_events: bool) -> list[Cause]:
    causes: list[Cause] = []
    match = options.resource_version_match
    if match and not has_initial_events:
        causes.append(
            forbidden_field("resourceVersionMatch", "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
        )
    if has_initial_events and match != "NotOlderThan":
        causes.append(forbidden_field("resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"))
    if options.continue_token:
        causes.append(forbidden_field("continue", "continue is forbidden for watch"))
    return causes


def _integer(query: Mapping[str, str], key: str) -> int | None:
    text = query.get(key)
    if not text:
        return None
    try:
        number = int(text)
    except ValueError as error:
        raise BadRequest(f'unable to convert query parameter {key}: strconv.ParseInt: parsing "{text}": invalid syntax') from error
    if not -_INT64_MAX - 1 <= number <= _INT64_MAX:
        raise BadRequest(f'unable to convert query parameter {key}: strconv.ParseInt: parsing "{text}": value out of range')
    return number
