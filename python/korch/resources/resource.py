"""One declaration per kind: routing, discovery, OpenAPI, validation, tables, storage keys and indexes all derive from it.

A built-in kind is one file that holds one `Resource(...)`; what its schema cannot say (defaults, cross-field rules, printer
columns, which part of the object belongs to whom) are plain functions beside it. Objects are plain dicts, so that nothing
unknown is ever lost; a strategy function may change the dict it is given in place, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from korch.api.errors import Cause
from korch.api.gvk import ResourceRef

Object = dict[str, Any]


class Context(msgspec.Struct, frozen=True):
    """What a strategy may know beside the objects: the time (seconds since the epoch), and who asks."""

    now: float
    user: str = ""
    uid: str = ""
    groups: Sequence[str] = ()
    extra: Mapping[str, Sequence[str]] = msgspec.field(default_factory=dict)


def _nothing(_obj: Object) -> None:
    return None


def _nothing_create(_obj: Object, _context: Context) -> None:
    return None


def _nothing_update(_new: Object, _old: Object, _context: Context) -> None:
    return None


def _no_causes(_obj: Object) -> list[Cause]:
    return []


def _no_update_causes(_new: Object, _old: Object) -> list[Cause]:
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """How a kind behaves between the request and the store. Mirrors apiserver's rest.RESTCreateStrategy and friends.

    Order on create: `default`, `prepare_create`, `validate`, `canonicalize`. On update: `default`, `prepare_update`,
    `validate`, `validate_update`. Name (also a generated one), uid and creationTimestamp are set before `prepare_create`.
    With `has_status` the pipeline itself drops `status` on create (unless `keeps_status_on_create`),
    keeps the old status on an update of the main resource, and keeps all but status on an update of the status subresource.
    With `has_generation` it sets metadata.generation to 1 on create and adds one whenever `spec` changes.
    """

    default: Callable[[Object], None] = _nothing
    prepare_create: Callable[[Object, Context], None] = _nothing_create
    prepare_update: Callable[[Object, Object, Context], None] = _nothing_update
    validate: Callable[[Object], list[Cause]] = _no_causes
    validate_update: Callable[[Object, Object], list[Cause]] = _no_update_causes
    # Called before a DELETE looks at the finalizers.
    prepare_delete: Callable[[Object, Context], None] = _nothing_create
    prepare_status_update: Callable[[Object, Object, Context], None] = _nothing_update
    validate_status_update: Callable[[Object, Object], list[Cause]] = _no_update_causes
    # Subresources that are another view of the same object: name -> (what they may change, what is wrong with that).
    parts: Mapping[str, tuple[Callable[[Object, Object, Context], None], Callable[[Object, Object], list[Cause]]]] = field(
        default_factory=dict
    )
    # Checks metadata.name; returns the causes' messages. The default is a DNS-1123 subdomain.
    validate_name: Callable[[str], list[str]] | None = None
    # `validate_update` checks the whole object, in the light of the old one; `validate` is for new objects alone.
    validates_update_alone: bool = False
    has_status: bool = False
    keeps_status_on_create: bool = False
    # Counts of the status that are there from the start, as 0: upstream writes them always, and typed clients refuse objects without.
    status_counts: tuple[str, ...] = ()
    has_generation: bool = False
    # An update without resourceVersion is allowed (most kinds); Leases and Events too.
    allows_unconditional_update: bool = True
    # A PUT to a missing name creates it (Events, Leases, Endpoints and others upstream).
    allows_create_on_update: bool = False
    # Seconds between a DELETE and the object's end when the request names none; None: deleted at once.
    default_grace_period_s: Callable[[Object], int] | None = None
    # Deleted at once whatever grace the request names: nothing runs that could need it (a pod without a node).
    is_deleted_at_once: Callable[[Object], bool] | None = None
    # What garbage collection does when the request names no policy.
    default_propagation: Literal["Background", "Orphan"] = "Background"


@dataclass(frozen=True, slots=True)
class Column:
    """A printer column. `value` reads the cell from the object (and now, seconds since the epoch).

    A `priority` above 0 shows only with -o wide.
    """

    name: str
    value: Callable[[Object, float], str | int]
    type: Literal["string", "integer", "date", "boolean", "number"] = "string"
    format: str = ""
    description: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Where the scale subresource reads and writes, as dotted paths without a leading dot."""

    spec_replicas: str = "spec.replicas"
    status_replicas: str = "status.replicas"
    label_selector: str = "spec.selector"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subresource:
    """A subresource in discovery. `kind`/`group`/`version` are the body's when it is not the parent's (Scale, Binding, Eviction)."""

    name: str
    verbs: tuple[str, ...]
    kind: str = ""
    group: str = ""
    version: str = ""


STANDARD_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A kind that is served. `schema` is the name of its OpenAPI definition, such as `io.k8s.api.core.v1.Pod`."""

    group: str
    version: str
    kind: str
    plural: str
    schema: str
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    namespaced: bool = True
    verbs: tuple[str, ...] = STANDARD_VERBS
    strategy: Strategy = field(default_factory=Strategy)
    subresources: tuple[Subresource, ...] = ()
    scale: Scale | None = None
    # Field selectors beside metadata.name and metadata.namespace: label -> reader. All of them are indexed by the store.
    selectable_fields: Mapping[str, Callable[[Object], str]] = field(default_factory=dict)
    columns: tuple[Column, ...] = ()
    # Conditions of the object's table row (`Completed` for pods that have ended).
    row_conditions: Callable[[Object], list[Object]] | None = None
    # A virtual kind is answered by a handler and never stored (TokenReview, SubjectAccessReview ...): create only.
    is_virtual: bool = False
    # Objects that are made when they are asked for (ComponentStatus): get and list only.
    is_computed: bool = False
    # The store's group and plural when two kinds show the same objects (events.k8s.io and core events).
    storage: tuple[str, str] | None = None
    # From the stored form to this kind's and back, when `storage` names another kind's.
    from_storage: Callable[[Object], None] = _nothing
    to_storage: Callable[[Object], None] = _nothing
    # From stored bytes to bytes of this kind, in place of `from_storage`; `storage` is set with it. May raise NeedsConversion.
    present: Callable[[bytes], bytes] | None = None
    # Whether stored bytes would be other ones if they were stored today; then a change of nothing is written too.
    is_outdated: Callable[[bytes], bool] | None = None
    # The kind of a list of these, when it is not the kind with `List` behind it.
    list_kind: str = ""
    # What clients of a deprecated version are warned of.
    warning: str = ""
    # A custom kind's own OpenAPI definitions by name, for v2 or (True) for v3, and what changes when they do.
    definitions: Callable[[bool], Mapping[str, Object]] | None = None
    fingerprint: str = ""
    # Whether a custom kind is served as its stored declaration says, or will be another in a moment.
    is_current: Callable[[], bool] | None = None

    @property
    def ref(self) -> ResourceRef:
        """Return the client-side address of this kind."""
        return ResourceRef(self.group, self.version, self.plural, self.kind, self.namespaced)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def list_name(self) -> str:
        """The kind of a list of these."""
        return self.list_kind or f"{self.kind}List"

    def key_prefix(self, namespace: str = "") -> bytes:
        """Return the store's prefix of the collection: `/registry/<group or core>/<plural>/[<namespace>/]`."""
        group, plural = self.storage or (self.group, self.plural)
        scope = f"{namespace}/" if namespace and self.namespaced else ""
        return f"/registry/{group or 'core'}/{plural}/{scope}".encode()

    def key(self, namespace: str, name: str) -> bytes:
        """Return the store's key of one object."""
        return self.key_prefix(namespace) + name.encode()


class Catalogue:
    """The kinds being served, by group, version and plural. Custom kinds come and go at run time."""

    def __init__(self, resources: Sequence[Resource]) -> None:
        self._by_path: dict[tuple[str, str, str], Resource] = {}
        self._listeners: list[Callable[[], None]] = []
        self.generation = 0
        for one in resources:
            self.add(one)

    def add(self, resource: Resource) -> None:
        """Serve `resource` from now on, replacing what had its place."""
        self._by_path[resource.group, resource.version, resource.plural] = resource
        self._changed()

    def remove(self, group: str, version: str, plural: str) -> None:
        """Stop serving; unknown names are no error."""
        if self._by_path.pop((group, version, plural), None) is not None:
            self._changed()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every change from now on."""
        self._listeners.append(listener)

    def _changed(self) -> None:
        self.generation += 1
        for listener in self._listeners:
            listener()

    def get(self, group: str, version: str, plural: str) -> Resource | None:
        return self._by_path.get((group, version, plural))

    def by_kind(self, group: str, version: str, kind: str) -> Resource | None:
        for one in self._by_path.values():
            if one.kind == kind and one.group == group and one.version == version:
                return one
        return None

    def all(self) -> list[Resource]:
        """Return every kind, in the order they were added."""
        return list(self._by_path.values())
