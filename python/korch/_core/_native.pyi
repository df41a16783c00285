"""The boundary to the native extension: bytes in, bytes out, batch forms, no callbacks.

Errors of the store are the exceptions at the end of this file. A method says whether it blocks and whether it releases the GIL;
without a word it does neither and takes microseconds.
"""

from collections.abc import Sequence
from os import PathLike
from typing import Any, final

VERSION: str

StrPath = str | PathLike[str]

# One requirement of a selector: (target, key, operator, values); target is "label" or "field", operator one of
# "=", "!=", "in", "notin", "exists", "!exists". An object matches when all requirements do. Missing fields read as "".
Requirement = tuple[str, str, str, Sequence[str]]

# One write: (key, value, expected, splice_at, labels, fields, owners).
#   value: the encoded object, or None to delete. expected: the mod revision that the key must have now; 0: it must not exist;
#   None: whatever. splice_at: offset in value where the decimal revision of this commit is inserted (-1: nowhere).
#   labels, fields: what selectors see; owners: uids of metadata.ownerReferences. They are stored and indexed, never parsed out of value.
Op = tuple[bytes, bytes | None, int | None, int, dict[str, str], dict[str, str], Sequence[str]]

# (id, method, path, query, headers, body) of a request that waits for its application.
Arrival = tuple[int, str, bytes, bytes, list[tuple[bytes, bytes]], bytes]

@final
class Record:
    """A stored object at one revision."""
    @property
    def key(self) -> bytes: ...
    @property
    def value(self) -> bytes: ...
    @property
    def create_revision(self) -> int: ...
    @property
    def mod_revision(self) -> int: ...
    @property
    def version(self) -> int: ...
    @property
    def lease(self) -> int: ...

@final
class Page:
    """One page of a range. `next` is the key to continue at, None at the end; `remaining` counts objects from there on, -1 when a
    selector would make counting cost a walk over everything."""
    @property
    def revision(self) -> int: ...
    @property
    def values(self) -> list[bytes]: ...
    def joined(self) -> bytes:
        """Return the values with commas between them, copied once: the inside of a JSON array."""
    @property
    def keys(self) -> list[bytes]: ...
    @property
    def next(self) -> bytes | None: ...
    @property
    def remaining(self) -> int: ...

# One event for a watcher: (type, revision, object). type is 0 ADDED, 1 MODIFIED, 2 DELETED, as this watcher's selector sees it:
# an object that starts to match is ADDED, one that stops is DELETED. For DELETED the object is the last state, its
# resourceVersion replaced by the revision of the deletion.
Event = tuple[int, int, bytes]

# An operation of `Store.transact`: ("put", key, value, lease, 0), ("delete", start, end, 0, 0) or ("span", start, end, limit, revision).
TxnOp = tuple[str, bytes, bytes, int, int]

@final
class Store:
    """Multi-version key-value store with secondary indexes and a watch index, on a write-ahead log or in memory. Mirrors etcd mvcc.

    A `prefix` that is empty or ends in `/` covers every key that starts with it; any other names one exact key.
    Written by one thread. Reads and watches see published revisions only: commit, flush, publish, in that order.
    """
    def __new__(cls, path: str | None) -> Store:
        """Open the directory `path` (made if missing), or a store in memory for None. Blocks; raises StoreCorrupt, StoreLocked, OSError."""
    def commit(self, ops: Sequence[Op]) -> tuple[int, list[bytes | None]]:
        """Apply all ops or none under one new revision; return it and the stored values (None for deletes).
        Raises RevisionMismatch(index, current_mod_revision), KeyExists(index), KeyMissing(index), StoreFull, StorePoisoned."""
    def transact(self, ops: Sequence[TxnOp]) -> tuple[int, bool, list[list[Record]]]:
        """Apply the operations in order under one new revision, or none. Return the newest applied revision, whether it is new, and for
        each operation the states before (put, delete) or those found (span), which see the writes before them.
        Raises ValueError when a key is written twice, LeaseNotFound, Compacted, FutureRevision, StoreFull, StorePoisoned."""
    def wakeup_fd(self) -> int:
        """Return the descriptor, owned by the store, that becomes readable when `told` has something to say. For one event loop."""
    def request(self, revision: int) -> None:
        """Have everything applied so far made durable and published by the committer's thread, and tell when `revision` is. On disk
        only; returns at once."""
    def told(self) -> tuple[int, list[int], Exception | None]:
        """Return the newest published revision, the ids of watchers that got news since the last call, and why what was requested
        will never be published, if so."""
    def flush(self) -> int:
        """Make all commits durable (one fsync for all of them). Blocks, GIL released; callable from another thread while commits
        go on. Return the durable revision. Raises StorePoisoned after a failed fsync, for ever."""
    def publish(self, revision: int) -> list[int]:
        """Make revisions up to `revision` visible; return the ids of watchers that have news."""
    def kept(self, revision: int) -> None:
        """Raise StoreFull when a commit's revision was taken back, because the disk had no room for it, StorePoisoned when it will not
        be published because the log cannot be written any more. Such revisions are never published, and not given again."""
    def problem(self) -> str:
        """Return why nothing can be written now, "" when all is well. A full disk is asked again, some milliseconds at most."""
    def revision(self) -> int:
        """Return the newest published revision."""
    def compacted(self) -> int:
        """Return the compaction floor: older revisions cannot be read or watched from."""
    def get(self, key: bytes, revision: int = 0) -> Record | None:
        """Return the newest published state, or that at `revision`. Raises Compacted, FutureRevision."""
    def range(self, prefix: bytes, *, start: bytes = b"", limit: int = 0, revision: int = 0, selector: Sequence[Requirement] = ()) -> Page:
        """Return objects under `prefix` in key order from `start` on, at most `limit` (0: all) that match. Raises Compacted, FutureRevision."""
    def span(self, start: bytes, end: bytes, *, limit: int = 0, revision: int = 0) -> Page:
        """Return keys from `start` up to but not including `end`; an empty `end` is one key, b"\\0" has no end. Raises like `range`."""
    def count(self, start: bytes, end: bytes, *, revision: int = 0) -> int:
        """Return how many keys `span` would return."""
    def by_owner(self, uid: str) -> list[bytes]:
        """Return keys of objects that name `uid` as an owner."""
    def watch(self, prefix: bytes, *, from_revision: int, selector: Sequence[Requirement] = ()) -> int:
        """Watch changes after `from_revision` under `prefix` (an exact key works too); return the watcher's id. Raises Compacted, FutureRevision."""
    def watch_span(self, start: bytes, end: bytes, *, from_revision: int) -> int:
        """Like `watch`, of what `span` covers."""
    def poll(self, watcher_id: int, max_events: int = 1000) -> tuple[list[Event], int]:
        """Take queued events, oldest first, and the revision up to which this watcher has now seen everything.
        Raises WatcherLagged when the watcher was too slow and was cut (answer 410), KeyError for an unknown id."""
    def poll_frames(self, watcher_id: int, max_bytes: int = 1 << 20) -> tuple[bytes, int]:
        """Like poll, but as ready watch lines `{"type":"ADDED","object":...}\\n`, each framed once for all watchers."""
    def unwatch(self, watcher_id: int) -> None: ...
    def compact(self, revision: int) -> None:
        """Forget history below `revision`; deleted keys vanish. GIL released, and in steps, so that nobody else waits long.
        Raises FutureRevision, StoreFull."""
    def snapshot_after(self, bytes: int) -> None:
        """Have a snapshot written when the log has more than so many bytes (256 MiB unless set)."""
    def lease_grant(self, lease_id: int, ttl_s: int, now_ms: int) -> int:
        """Grant a lease, with an unused id for 0; return its id. Raises LeaseExists, StoreFull."""
    def lease_revoke(self, lease_id: int) -> int:
        """Delete the lease and its keys under one revision; return the newest applied revision. Raises LeaseNotFound."""
    def lease_keep_alive(self, lease_id: int, now_ms: int) -> int:
        """Let its time begin anew; return its time to live in seconds. Raises LeaseNotFound."""
    def lease_time_to_live(self, lease_id: int, now_ms: int) -> tuple[int, int, list[bytes]]:
        """Return the granted and the remaining seconds, and the attached keys. Raises LeaseNotFound."""
    def leases(self) -> list[tuple[int, int]]:
        """Return ids and granted seconds of all leases."""
    def expire(self, now_ms: int) -> list[int]:
        """Revoke the leases that ended; return their ids. On disk the committer's thread does so by the system's monotonic clock."""
    def snapshot(self) -> int:
        """Write a snapshot and drop the log behind it. Blocks, GIL released. Return its revision."""
    @staticmethod
    def inspect(path: str) -> Store:
        """Read a directory that no process uses, or a backup, to the last checksum, and change nothing. Blocks, GIL released; raises
        StoreCorrupt (naming file and offset), StoreLocked, OSError, ValueError."""
    @staticmethod
    def restore(backup: str, path: str) -> int:
        """Make the empty or missing directory `path` out of a backup; return its revision. Blocks, GIL released; raises as `inspect`."""
    def backup(self, directory: str) -> tuple[int, str]:
        """Write everything published, as of one revision, to a new file of `directory`; return the revision and the file's name.
        Blocks, GIL released; writers go on. Raises OSError, Compacted (compaction was faster, three times)."""
    def stats(self) -> dict[str, int]: ...
    def close(self) -> None:
        """Flush and release the directory. Blocks."""

class StoreError(Exception): ...
class RevisionMismatch(StoreError): ...
class KeyExists(StoreError): ...
class KeyMissing(StoreError): ...
class Compacted(StoreError): ...
class FutureRevision(StoreError): ...
class WatcherLagged(StoreError): ...
class StoreCorrupt(StoreError): ...
class StoreLocked(StoreError): ...
class StorePoisoned(StoreError): ...
class StoreFull(StoreError): ...
class LeaseNotFound(StoreError): ...
class LeaseExists(StoreError): ...

class DatastoreError(StoreError):
    """The etcd cluster refuses or does not answer: args are (message, whether time was up)."""

@final
class Datastore:
    """A cluster of etcd v3, and a mirror of it in memory. A request returns a ticket at once; what came of it is picked up with `mail`.

    One thread of its own speaks to the cluster. Nothing blocks but the constructor.
    """
    def __new__(
        cls,
        endpoints: Sequence[str],
        *,
        prefix: str = "/registry",
        authority_pem: bytes | None = None,
        certificate_pem: bytes | None = None,
        key_pem: bytes | None = None,
        timeout_ms: int = 10000,
    ) -> Datastore:
        """Connect to URLs such as `https://10.0.0.1:2379` and read everything. Blocks up to 30 s, GIL released; raises DatastoreError,
        ValueError. `prefix` stands in the cluster for the `/registry` that keys start with; a request may take `timeout_ms`."""
    def store(self) -> Store:
        """Return the mirror: read and watch it, never commit to it."""
    def commit(self, ops: Sequence[Op]) -> int:
        """Write in one transaction. Outcome: (revision, values), or RevisionMismatch, KeyExists, KeyMissing, DatastoreError.
        Raises ValueError, DatastoreError (closed)."""
    def catch_up(self) -> int:
        """Wait until the mirror shows all that was answered to anybody before. Outcome: the revision, or DatastoreError."""
    def reach(self, revision: int, timeout_ms: int) -> int:
        """Wait until the mirror shows `revision`, for 0 the newest that this process was told of. Outcome: it, or DatastoreError."""
    def compact(self, version: int, revision: int) -> int:
        """Try to win the interval that began at `version` and compact the cluster to `revision` (0: only win). Outcome: the version to
        name next time and the cluster's revision, or DatastoreError."""
    def fileno(self) -> int:
        """Return a descriptor that is readable while there is mail."""
    def mail(self) -> tuple[list[tuple[int, Any]], list[int], list[str]]:
        """Take what came in: (ticket, outcome or the exception to raise), ids of watchers with news, lines for the log."""
    def problem(self) -> str:
        """Return what is wrong with the watch that feeds the mirror, "" when nothing is."""
    def stats(self) -> dict[str, int]: ...
    def close(self) -> None:
        """Leave the cluster. Outstanding tickets are never answered."""

@final
class Decision:
    """What became of one pod of a batch."""
    @property
    def key(self) -> str:
        """`namespace/name`."""
    @property
    def uid(self) -> str: ...
    @property
    def node(self) -> str:
        """The chosen node, on which the pod is now assumed; empty when there is none."""
    @property
    def message(self) -> str:
        """kube-scheduler's words for why there is none; empty when there is one."""
    @property
    def nodes(self) -> int:
        """Number of nodes in the cluster, when none was found."""
    @property
    def reasons(self) -> dict[str, int]:
        """On how many nodes each reason was given."""
    @property
    def unresolvable(self) -> int:
        """Number of nodes that no preemption would help."""
    @property
    def plugins(self) -> list[str]:
        """Names of the plugins that rejected, sorted."""
    @property
    def nominated(self) -> str:
        """The node being freed by preemption; empty when there is none."""
    @property
    def victims(self) -> list[tuple[str, str]]:
        """`namespace/name` and uid of the pods that have to leave that node, the most important first."""
    @property
    def displaced(self) -> list[str]:
        """Keys of less important pods that waited for that node and do so no longer."""
    @property
    def clears_nomination(self) -> bool:
        """Whether the node that the pod waited for, if any, is no longer kept for it."""

@final
class Room:
    """What came of making room for a group of pods."""

    outcome: str
    """found; awaited: pods that left for it before are still going; not eligible: its pods never preempt; no victims; too little."""
    placed: int
    """With too little: so many are placed even when nobody less important is there, and `remaining` were not tried."""
    remaining: int
    nominated: list[tuple[str, str]]
    """(key, node) of each of its pods that is placed."""
    victims: list[tuple[str, str]]
    """(key, uid) of each pod that has to leave, the most important first."""
    displaced: list[tuple[str, str]]
    """(key, node) of each less important pod that waits for the node no longer."""

@final
class Scheduler:
    """Filters and scores over a snapshot of nodes and of the pods on them. Mirrors kube-scheduler on one thread, choice among equals included.

    Objects are JSON. Every method raises ValueError for JSON that is no such object, and then changes nothing.
    """
    def __new__(cls, config: bytes | None = None) -> Scheduler:
        """`config` is a KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1) in JSON; without it, or when it names no
        percentageOfNodesToScore, all nodes are scored. Raises ValueError with the path of what is wrong."""
    def profiles(self) -> list[str]:
        """Return the scheduler names of the profiles, in their order. A pod of another name is decided by the first."""
    def upsert(self, nodes: Sequence[bytes], pods: Sequence[bytes], others: Sequence[bytes] = ...) -> list[str]:
        """Take in new or changed objects; return the keys of pods that `wait` and may fit now, which wait no longer. Pods with a nodeName that have not ended count on that node; others are dropped, unless assumed.

        `others` have their kind in them: Namespace, Service, ReplicationController, ReplicaSet, StatefulSet, PodDisruptionBudget,
        PersistentVolume, PersistentVolumeClaim, StorageClass, CSINode, CSIDriver, CSIStorageCapacity; further kinds are ignored."""
    def remove(self, kind: str, keys: Sequence[str]) -> list[str]:
        """Drop deleted objects of a kind by `namespace/name`, or by name when they have no namespace; unknown ones are no error. Returns
        what `upsert` returns."""
    def wait(self, pod: bytes, plugins: Sequence[str]) -> None:
        """Let a pod that these plugins rejected wait for a change that may help it; without names, or with one of a plugin outside the
        engine, for any change. Mirrors the plugins' queueing hints."""
    def leave(self, keys: Sequence[str]) -> None:
        """Pods (`namespace/name`) wait no longer; unknown ones are no error."""
    def schedule(self, pods: Sequence[bytes], *, now_ms: int, seed: int) -> list[Decision]:
        """Decide the pods one after the other, assume each winner on its node, and nominate a node for each that can preempt. A pure
        function of the snapshot and the arguments; seed 0 breaks ties as kube-scheduler on one thread does, any other draws among the
        tied. Releases the GIL; 10-100 us per pod at 5,000 nodes."""
    def schedule_member(self, pod: bytes) -> Decision:
        """Decide one pod of a group: as `schedule`, but no node is nominated when there is none. Releases the GIL."""
    def retract(self, keys: Sequence[str]) -> None:
        """Take back assumed pods as if they had never been assumed; unlike `forget`, nobody is woken."""
    def room_for_group(
        self, pods: Sequence[bytes], *, priority: int, min_count: int, placed: int, units: Sequence[tuple[Sequence[str], int]]
    ) -> Room:
        """See whether pods that are less important than `priority` would make room for a group, `min_count` of which must be placed and
        `placed` are, and nominate the nodes if so. `units` are (keys of placed pods that only leave together, their priority).
        Nothing else changes. Copies the snapshot: some milliseconds at 5,000 nodes, and then a few microseconds for each pod that might
        leave. Releases the GIL."""
    def survey(self, pod: bytes) -> tuple[bool, list[str]]:
        """The first step of a decision in which others have a say: return (True, [the node it waits for]) if it can go there now, else
        (False, the nodes that the filters let through, in visiting order; perhaps none). Assumes nothing. Releases the GIL."""
    def feasible(self, pod: bytes) -> list[str]:
        """As `survey`, for a pod whose node that it waits for was taken away."""
    def choose(self, pod: bytes, nodes: Sequence[str], extra: Sequence[int], *, seed: int) -> Decision | None:
        """The last step: assume the pod on the best of `nodes` (of those that still exist; None when there are none), `extra` being added
        to their scores. The same length for both, else ValueError. `seed` as for `schedule`."""
    def victims(self, pod: bytes, objections: Sequence[tuple[str, str, str, bool]]) -> list[tuple[str, list[tuple[str, str]], int]]:
        """Return where preemption would make room: (node, [(key, uid) of each pod to go], how many of them a budget protects).
        `objections` as for `refuse`."""
    def curable(self, pod: bytes, objections: Sequence[tuple[str, str, str, bool]]) -> list[tuple[str, list[tuple[str, str, bool]]]]:
        """Return the nodes that removing pods might free: (node, [(key, uid, whether a disruption budget protects it)] of its less important
        pods, in the order in which preemption puts them back). `objections` as for `refuse`."""
    def fits_without(self, pod: bytes, node: str, gone: Sequence[str]) -> bool:
        """Return whether the engine's filters let the pod go to a node when these of its pods (keys) are thought away."""
    def amount_without(self, node: str, resource: str, gone: Sequence[str]) -> tuple[float, float] | None:
        """Return what a node has of a resource and what is requested of it when these of its pods are thought away, in the units of
        `table`; None when there is no such node."""
    def refuse(
        self,
        pod: bytes,
        objections: Sequence[tuple[str, str, str, bool]],
        *,
        everywhere: tuple[str, str] | None = None,
        allowed: Sequence[tuple[str, Sequence[tuple[str, str]], int]] | None = None,
        preempts: bool = True,
    ) -> Decision:
        """The last step when no node is left: say why, and nominate a node for a pod that can preempt. `objections` are (node, who took it
        away, the reason, whether removing pods would not help); `everywhere` is (plugin, its words) when no node at all will do;
        `allowed` restricts preemption to these nodes and victims, in the form of `victims`; without `preempts` there is none."""
    def pods_on(self, node: str) -> list[tuple[str, str]]:
        """Return (key, uid) of the pods that count on a node; none when it does not exist."""
    def table(self, resources: Sequence[str]) -> tuple[list[str], list[tuple[bytes, bytes]]]:
        """Return the names of all nodes and, for each resource, two columns of native doubles in that order: what nodes have, and what of
        it is requested. CPU in thousandths of a core, else bytes or pieces; zero where a node does not know the resource."""
    def add_templates(self, pods: Sequence[bytes]) -> int:
        """Remember pods that `play` makes others from; return the number of the first, the next following on."""
    def play(self, templates: Sequence[int], names: Sequence[str], *, seed: int) -> list[str]:
        """Do one event after the other and return the nodes chosen, in order. A template's number with a name: a pod like the template
        comes (the name is its uid too) and is placed as by `schedule`. -1 with `namespace/name`: that pod goes. Ends before the first pod
        that has no node and leaves no trace of it, so fewer nodes than pods that came say where. Releases the GIL."""
    def forget(self, keys: Sequence[str]) -> list[str]:
        """Take back assumed pods whose binding failed; pods that are bound stay. Returns what `upsert` returns."""
    def explain(self, pod: bytes, *, seed: int = 0) -> bytes:
        """Return a JSON matrix of nodes and plugins: {pod, profile, node, message, nodes: [{name, feasible, filters: {plugin: [reason]},
        scores: {plugin: {raw, normalized, weighted}}, total}]}. All filters are asked, and nothing is assumed."""
    def stats(self) -> dict[str, int]:
        """Return how many nodes and counted pods the snapshot holds."""

def quantity_value(text: str) -> int:
    """Return whole units, rounded away from zero. Raises ValueError with upstream's words, as its siblings do."""

def quantity_milli(text: str) -> int:
    """Return thousandths, rounded away from zero."""

def quantity_canonical(text: str) -> str:
    """Return the stored form: `1.5Gi` becomes `1536Mi`, `1000m` becomes `1`."""

def protobuf_to_json(body: bytes) -> tuple[str, str, bytes]:
    """Decode a `k8s\\0` protobuf body of any built-in kind (DeleteOptions too); return (apiVersion, kind, JSON object). Raises ValueError."""

class MalformedPatch(ValueError): ...
class UnprocessablePatch(ValueError): ...

def merge_patch(target: bytes, patch: bytes) -> bytes:
    """Apply an RFC 7386 merge patch. Raises MalformedPatch."""

def strategic_merge_patch(target: bytes, patch: bytes, schema_name: str, schema: Schema) -> bytes:
    """Apply a strategic merge patch to an object of a definition. Raises MalformedPatch, UnprocessablePatch, KeyError (no such definition)."""

@final
class Schema:
    """OpenAPI definitions compiled into a table. Immutable: any thread may use it."""
    def __new__(cls, definitions_json: bytes) -> Schema:
        """Compile `{name: definition}`, or a document that has it under `definitions`. Blocks 20-40 ms for all of Kubernetes. Raises ValueError.

        For a custom kind pass its openAPIV3Schema as a definition with `x-kubernetes-embedded-resource: true` at the root:
        that adds apiVersion, kind and metadata."""
    def check(self, definition: str, body: bytes) -> tuple[bytes, list[str], list[str], list[tuple[str, str]]]:
        """Decode `body` as Go's typed decoder would; return (pruned compact body, unknown field paths, duplicate field paths, type errors).

        A path is `spec.containers[0].image`; a type error is (path, Go's message), and its field is missing from the body.
        Null fields are dropped, quantities and times come out canonical. About 9 us per KB. Raises ValueError (no JSON, with Go's
        message), KeyError (no such definition)."""
    def has(self, definition: str) -> bool: ...
    def __len__(self) -> int: ...

class ApplyConflict(Exception):
    """Other managers own fields that an apply would change. `args[0]` is a list of (manager as messages show it, field path)."""

class UnfitConfiguration(ValueError):
    """An applied configuration is no object of its kind."""

@final
class FieldManager:
    """Tracks who owns which field of the objects of a kind, at one endpoint. Immutable: any thread may use it. About 10 us per KB.

    Mirrors apimachinery's util/managedfields on sigs.k8s.io/structured-merge-diff."""
    def __new__(
        cls,
        schema: Schema,
        definition: str,
        *,
        api_version: str,
        subresource: str = ...,
        reset: list[str] = ...,
        only: list[str] = ...,
    ) -> FieldManager:
        """`definition` "" means a kind without a schema: its maps merge by field, its lists are replaced.

        `reset` are dotted paths of fields that the endpoint takes back from every request; `only`, when not empty, the paths that it
        lets through (`*` is any list item). Raises KeyError (no such definition)."""
    def track(self, live: bytes | None, new: bytes, manager: str, now: str) -> bytes:
        """Return metadata.managedFields of `new` as JSON, b"" for none. `live` is what it replaces (None: nothing), `now` is RFC 3339 in UTC.

        Managers that the request itself sets in `new` are believed, except through a subresource. Raises ValueError (no JSON)."""
    def apply(self, live: bytes | None, config: bytes, manager: str, now: str, force: bool) -> tuple[bytes, bytes]:
        """Return (object without managedFields, managedFields as JSON or b"") of `config` applied to `live` (None: to nothing).

        Raises ApplyConflict (unless `force`), UnfitConfiguration, ValueError (what is stored cannot be read)."""
    def overlay(self, live: bytes, config: bytes) -> bytes:
        """Return `live` with `config` merged into it, whoever owns what. Raises ValueError when `config` does not fit the kind, or
        names a map or list that would be replaced as a whole."""

def part_object(object: bytes) -> tuple[bytes, bytes, list[tuple[str, bytes]]] | None:
    """Return an object with nothing but `apiVersion`, `kind` and `metadata` (without managers), its `metadata.managedFields` (b"": none),
    and its other members as (name, JSON), in order; None for what is no object with metadata, or names a member twice. The members are not
    looked into, so whether they are JSON is not known. Releases nothing, takes some microseconds."""

def peel_managers(object: bytes) -> tuple[bytes, bytes]:
    """Return an object's JSON without its managedFields, and these as they stand (empty: none). Raises ValueError."""

def scale_managers(managed_fields: bytes, replicas: str) -> bytes:
    """Return the managedFields of an object's Scale: who owns `replicas` (a dotted path). Raises ValueError."""

def scaled_managers(managed_fields: bytes, scale: bytes, replicas: str, api_version: str) -> bytes:
    """Return the managedFields of an object whose Scale was written and now has the managers `scale`. Raises ValueError."""

@final
class EtcdFront:
    """etcd's v3 gRPC API on a store, on threads of its own that never hold the GIL."""
    def __new__(
        cls,
        store: Store,
        *,
        bind: Sequence[str],
        name: str,
        client_urls: Sequence[str],
        metrics_bind: str = "",
        certificate_file: StrPath | None = None,
        key_file: StrPath | None = None,
        client_ca_file: StrPath | None = None,
        threads: int = 1,
        progress_every_ms: int = 600_000,
    ) -> EtcdFront:
        """`bind`, `metrics_bind`: `host:port` (port 0: any free one; "": no metrics). Without `client_urls` clients are told where it
        listens. Without `certificate_file` it speaks in the clear; with `client_ca_file` a client must show a certificate of it. The files
        are PEM, and are taken anew whenever they were replaced. Raises ValueError for one without those it needs.
        `progress_every_ms`: how often a watch that asked for it is told that nothing happened."""
    def start(self) -> list[str]:
        """Bind and serve; return the bound `host:port`s. Blocks for milliseconds, GIL released.
        Raises OSError (bind), ValueError (certificates), RuntimeError (started already)."""
    def stop(self, grace_ms: int = 0) -> None:
        """Accept no more, end streams, let other calls finish for `grace_ms`, then cut the rest. Blocks at most that long, GIL released.
        No error when not started."""
    def metrics(self) -> str:
        """Return figures in Prometheus' text format, under etcd's names where etcd has one."""

@final
class StructuralSchema:
    """The compiled `openAPIV3Schema` of one version of a custom kind. Mirrors apiextensions' pkg/apiserver/schema."""
    def __new__(cls, schema_json: bytes) -> StructuralSchema:
        """Compile; milliseconds for the largest. Raises ValueError for what is no JSON object."""
    def check(self, builtin: Schema, body: bytes) -> tuple[bytes, list[str], list[str], list[tuple[str, str]]]:
        """Return `body` pruned and with defaults, and the paths of unknown and of duplicate fields, and (path, message) of metadata that is
        none. `builtin` has the definition of ObjectMeta. Raises ValueError for what is no JSON."""
    def default(self, object: bytes) -> bytes:
        """Return a whole object pruned and with defaults. Raises ValueError."""
    def validate(self, object: bytes, old: bytes | None = None) -> tuple[list[tuple[str, str, str]], list[str]]:
        """Return (reason, message, field) of all that is wrong, and the messages of rules that only fail on what an update left alone."""
    def check_rules(self) -> list[tuple[str, int, str, str, str]]:
        """Return what is wrong with the schema's own rules: (path of the schema node, index of the rule, its field, reason, message)."""

@final
class CelValue:
    """A JSON value made ready for CEL expressions; passing it to many costs nothing more."""
    def __new__(cls, json_bytes: bytes) -> CelValue: ...
    @staticmethod
    def device(json_bytes: bytes) -> CelValue:
        """Make the `device` of a claim's selectors of {driver, allowMultipleAllocations, attributes: {domain: {name: {string|int|bool|version:
        value}}}, capacity: {domain: {name: amount}}}; versions and amounts become values with functions of their own. Raises ValueError
        for what is none."""

@final
class CelExpression:
    """A CEL expression with Kubernetes' functions, parsed and checked against the variables it may name."""
    def __new__(cls, source: str, variables: Sequence[str], result: str = "") -> CelExpression:
        """`result` is what it must give: bool, string, `string or null`, or "" for anything. Raises ValueError with cel-go's report; the
        report is empty when only the type of the result is wrong."""
    def mentions(self, name: str) -> bool:
        """Return whether the variable `name` occurs."""
    def fields_of(self, owner: str) -> list[str]:
        """Return the fields that are read directly off the variable `owner`."""
    def evaluate(self, variables: Sequence[tuple[str, CelValue]]) -> bytes:
        """Return the result as JSON. Raises ValueError with the reason in cel-go's words. Bounded in loop turns; holds the GIL."""

@final
class Front:
    """The server's socket: HTTP/1.1 and HTTP/2 over TLS, requests handed to the application over HTTP/1.1 on a Unix socket or, once
    something is attached, in memory; upgrades, and bodies that are long or slow, always take the socket.

    The application gets `x-korch-client-cert` (base64 DER of the verified client certificate, absent without one) and
    `x-forwarded-for` (its last address is the peer's); whatever else begins with `x-korch-` is removed from what clients send.
    Upgrades that the application answers with 101 become byte pipes. When the application is down, the answer is a 503 Status.

    With a `source`, GET, LIST and WATCH are answered from the store under grants of the application: such requests carry `x-korch-ask`,
    and `x-korch-grant` in the answer is the grant (see korch.apiserver.grants), which never reaches the client.
    """
    def __new__(
        cls,
        *,
        bind: Sequence[str],
        upstream: str,
        certificate_file: StrPath,
        key_file: StrPath,
        client_ca_file: StrPath | None = None,
        threads: int = 2,
        idle_timeout_ms: int = 90_000,
        source: tuple[Store, Sequence[bytes], bool] | None = None,
    ) -> Front:
        """`bind`: `host:port` (port 0: any free one). The files are PEM, and are taken anew whenever they were replaced. Without
        `client_ca_file` no client certificates are asked for; with it one is optional, but must verify. `idle_timeout_ms`: how long an HTTP/1.1 connection may be without a whole request head.
        `source`: the store; the prefixes below which any change ends every grant, before its writer is answered; and whether this
        server alone writes to the store (else reads that must be up to date go to the application)."""
    def attach(self) -> int:
        """Have requests wait for `take` from now on; return the descriptor that is readable while there is something to take."""
    def detach(self) -> None:
        """Let requests take the socket again. Those that were not taken are answered 503; those that were may still be answered."""
    def take(self) -> tuple[list[Arrival], list[int], list[int]]:
        """Return new requests, then ids of those whose clients have gone, and of those whose answers may go on. Never blocks."""
    def answer(self, id: int, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes, has_more: bool) -> None:
        """Answer a request, or begin to when `has_more`. Raises ValueError for a status or header that HTTP does not know."""
    def send(self, id: int, piece: bytes, has_more: bool) -> bool:
        """Send the next piece of an answer. False: wait with more until `take` returns this id among those that may go on."""
    def abort(self, id: int) -> None:
        """Break an answer off; one that has not begun becomes a 503."""
    def forget_grants(self) -> None:
        """End every grant, because kinds have changed."""
    def reads(self) -> list[tuple[str, str, str, str, str, int]]:
        """Return (verb, group, version, resource, scope, requests) of reads that were answered from the store, all with code 200."""
    def start(self) -> list[str]:
        """Bind and serve on threads of its own; return the bound `host:port`s. Blocks for milliseconds, GIL released.
        Raises OSError (bind), ValueError (certificates), RuntimeError (started already)."""
    def stop(self, grace_ms: int = 0) -> None:
        """Accept no more, let requests finish for `grace_ms`, then cut the rest. Blocks at most that long, GIL released.
        Open watches do not finish by themselves: end them in the application first. No error when not started."""
    def stats(self) -> dict[str, int]:
        """Return counters: connections_total/_open, handshakes_failed, certificate_reloads/_reload_failures, requests_total/_active, upgrades_active, handed_over (in memory), upstream_connects/_failures/_retries."""

@final
class Proxy:
    """The service proxy of one node: Services and EndpointSlices in, connections that find a ready endpoint out. Mirrors kube-proxy.

    Mode "nftables" keeps the table `ip korch-proxy` (needs root, nft and kernel 5.13) and serves node ports on 127.0.0.1 itself; mode
    "userspace" serves node ports on all addresses, and service addresses as far as they are this machine's own. IPv4 in nftables.
    Services annotated korch.dev/served-by-node: "true" are left alone.
    """
    def __new__(cls, node_name: str = "", *, cluster_cidr: str = "", seed: int = 0) -> Proxy:
        """`node_name` tells which endpoints are local. `cluster_cidr`, when given, is the range of pods: others that use a cluster IP have
        their source hidden. `seed` begins the router's draws."""
    def start(self, mode: str) -> None:
        """Begin to serve; a table left by a former process is taken over. Blocks some milliseconds, GIL released. Raises ValueError for
        an unknown mode, OSError when nftables cannot be used."""
    def stop(self) -> None:
        """Close the router's listeners and connections. The kernel's table stays and goes on serving. GIL released."""
    @staticmethod
    def cleanup() -> None:
        """Remove the kernel's table, whoever made it. Blocks, GIL released. Raises OSError."""
    def update(self, services: Sequence[bytes], slices: Sequence[bytes]) -> int:
        """Replace everything by these complete lists of Service and EndpointSlice JSON; return how many set elements and listeners changed.
        One transaction unless it is very large. Blocks for the kernel's commit (about 15 ms), GIL released. Raises ValueError for JSON that is
        no such object (nothing changes), OSError when the kernel refuses (the next update repairs)."""
    def pick(self, service: str, client: str, seed: int) -> str | None:
        """Return the `address:port` that a connection of `client` (an IP address) to `namespace/name:port` gets when the random number is
        `seed`; None when the service has no endpoint. Session affinity is followed. Raises ValueError for a bad address."""
    def stats(self) -> dict[str, int]:
        """Return counts: service_ports, endpoints, elements, udp_flows_ended, listeners, unbound, connections, failures."""
