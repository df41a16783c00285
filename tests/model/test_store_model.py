"""The native store against a dictionary for each revision: whatever is written, read, watched, compacted or reopened.

The model keeps every state that ever was. A read at a revision must equal the state of that revision; a watch, polled in whatever
pieces, must equal the difference of neighbouring states as its selector sees them.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from korch._core import native

KEYS = ["/nodes/a/x", "/pods/a/x", "/pods/a/x-1", "/pods/ab/x"]
PREFIXES = ["", "/pods/", "/pods/a/", "/pods/a/x", "/nodes/", "/no"]
VALUE = b'{"rv":""}'
SPLICE_AT = VALUE.index(b'""') + 1
# Transactions store values as they are.
RAW = b'{"raw":true}'
SPANS = [
    (b"/pods/a/x", b""),
    (b"/pods/", b"/pods0"),
    (b"/nodes/a/x", b"/pods/a/x-"),
    (b"/pods/a/x-", b"\0"),
    (b"\0", b"\0"),
    (b"/z", b"/a"),
]

node_names = st.sampled_from([None, "", "n1", "n2"])
labels = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["", "web", "db"]), max_size=2)
owners = st.lists(st.sampled_from(["u1", "u2"]), max_size=2, unique=True)
requirements = st.one_of(
    st.tuples(st.just("field"), st.just("node"), st.sampled_from(["=", "!="]), st.sampled_from([[""], ["n1"], ["n2"]])),
    st.tuples(st.just("label"), st.just("app"), st.sampled_from(["=", "!="]), st.sampled_from([[""], ["web"], ["db"]])),
    st.tuples(
        st.sampled_from(["field", "label"]), st.just("app"), st.sampled_from(["in", "notin"]), st.just(["web", "db"]) | st.just(["web"])
    ),
    st.tuples(st.just("label"), st.sampled_from(["app", "tier"]), st.sampled_from(["exists", "!exists"]), st.just([])),
)
selectors = st.lists(requirements, max_size=2)
writes = st.tuples(
    st.sampled_from(["put", "put", "put", "delete"]),
    st.sampled_from(["any", "any", "right", "absent", "wrong"]),
    labels,
    node_names,
    owners,
)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(KEYS), st.sampled_from([0, 0, 0, 1, 2])),
        st.tuples(st.just("delete"), st.sampled_from(SPANS), st.just(0)),
        st.tuples(st.just("span"), st.sampled_from(SPANS), st.integers(0, 2)),
    ),
    min_size=1,
    max_size=4,
)
commits = st.dictionaries(st.sampled_from(KEYS), writes, min_size=1, max_size=3)


@dataclass(frozen=True)
class Object:
    value: bytes
    created: int
    modified: int
    version: int
    labels: dict[str, str]
    fields: dict[str, str]
    owners: list[str]
    lease: int = 0

    def deleted_at(self, revision: int) -> bytes:
        return RAW if self.value == RAW else encoded(revision)


State = dict[str, Object]


def matches(selector: list, found: Object) -> bool:
    for target, key, operator, values in selector:
        value = found.labels.get(key) if target == "label" else found.fields.get(key, "")
        holds = {
            "=": value == (values or [None])[0],
            "!=": value != (values or [None])[0],
            "in": value in values,
            "notin": value not in values,
            "exists": value is not None,
            "!exists": value is None,
        }[operator]
        if not holds:
            return False
    return True


def covers(prefix: str, key: str) -> bool:
    return key.startswith(prefix) if prefix == "" or prefix.endswith("/") else key == prefix


def inside(span: tuple[bytes, bytes], key: str) -> bool:
    start, end = span
    return key.encode() == start if not end else start <= key.encode() and (end == b"\0" or key.encode() < end)


def encoded(revision: int) -> bytes:
    return VALUE[:SPLICE_AT] + str(revision).encode() + VALUE[SPLICE_AT:]


@dataclass
class Watching:
    prefix: str | tuple[bytes, bytes]
    selector: list
    seen: int
    expected: list = field(default_factory=list)


class StoreMachine(RuleBasedStateMachine):
    """A store in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.store = self.open()
        # states[r] is the state at revision r; orders[r] the keys that r wrote, in order.
        self.states: dict[int, State] = {1: {}}
        self.orders: dict[int, list[str]] = {}
        self.applied = self.published = 1
        self.floor = 0
        self.watching: dict[int, Watching] = {}
        # leases[id] is (time to live in seconds, end in milliseconds).
        self.leases: dict[int, tuple[int, int]] = {}
        self.now_ms = 1_000

    def open(self) -> native.Store:
        return native.Store(None)

    def teardown(self) -> None:
        self.everything_is_as_it_was()
        self.store.close()

    # Writing.

    @rule(commit=commits, is_published=st.sampled_from([True, True, False]))
    def commit(self, commit: dict, is_published: bool) -> None:
        state, ops, refused = dict(self.states[self.applied]), [], None
        for index, (key, (verb, wanted, key_labels, node, key_owners)) in enumerate(commit.items()):
            current = state.get(key)
            at = 0 if current is None else current.modified
            expected = {"any": None, "right": at, "absent": 0, "wrong": at + 1}[wanted]
            fields = {} if node is None else {"node": node}
            value = VALUE if verb == "put" else None
            ops.append((key.encode(), value, expected, SPLICE_AT, key_labels, fields, key_owners))
            refused = refused or self.refusal(index, verb, current, expected)
            if verb == "put":
                created, version = (self.applied + 1, 1) if current is None else (current.created, current.version + 1)
                state[key] = Object(encoded(self.applied + 1), created, self.applied + 1, version, key_labels, fields, key_owners)
            else:
                state.pop(key, None)
        if refused is not None:
            with pytest.raises(refused[0]) as raised:
                self.store.commit(ops)
            assert raised.value.args == refused[1:]
            return
        self.applied += 1
        values = [encoded(self.applied) if op[1] is not None else None for op in ops]
        assert self.store.commit(ops) == (self.applied, values)
        self.states[self.applied] = state
        self.orders[self.applied] = list(commit)
        if is_published:
            self.publish_to(self.applied)

    @rule(all=operations)
    def transact(self, all: list) -> None:
        state, order, found, refused = dict(self.states[self.applied]), [], [], None
        revision, ops = self.applied + 1, []
        for verb, where, number in all:
            keys = [where] if verb == "put" else [key for key in sorted(state) if inside(where, key)]
            states = [state[key] for key in keys if key in state]
            ops.append((verb, where.encode(), RAW, number, 0) if verb == "put" else (verb, *where, number, 0))
            found.append([(one.value, one.modified) for one in states][: number if verb == "span" and number else None])
            if verb == "span":
                continue
            if verb == "put" and number and number not in self.leases:
                refused = refused or native.LeaseNotFound
            if set(keys) & set(order):
                refused = refused or ValueError
            order += keys
            for key in keys:
                current = state.pop(key, None)
                if verb == "put":
                    created, version = (revision, 1) if current is None else (current.created, current.version + 1)
                    state[key] = Object(RAW, created, revision, version, {}, {}, [], number)
        if refused is not None:
            with pytest.raises(refused):
                self.store.transact(ops)
            return
        newest, wrote, records = self.store.transact(ops)
        self.applied += wrote
        assert (newest, wrote) == (self.applied, bool(order))
        assert [[(one.value, one.mod_revision) for one in each] for each in records] == found
        if wrote:
            self.states[revision], self.orders[revision] = state, order

    @staticmethod
    def refusal(index: int, verb: str, current: Object | None, expected: int | None):
        if current is not None and expected == 0:
            return native.KeyExists, index
        if current is not None and expected not in (None, current.modified):
            return native.RevisionMismatch, index, current.modified
        if current is None and (expected or verb == "delete"):
            return native.KeyMissing, index
        return None

    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        self.publish_to(data.draw(st.integers(self.published, self.applied)))

    def publish_to(self, upto: int) -> None:
        self.store.flush()
        news = self.store.publish(upto)
        concerned = set()
        for watcher_id, watching in self.watching.items():
            fresh = [event for revision in range(self.published + 1, upto + 1) for event in self.events(watching, revision)]
            watching.expected += fresh
            if fresh:
                concerned.add(watcher_id)
        assert news == sorted(concerned)
        self.published = upto

    @rule(data=st.data())
    def compact(self, data: st.DataObject) -> None:
        revision = data.draw(st.integers(self.floor, self.published) | st.just(self.published + 1) | st.just(0))
        if revision > self.published:
            with pytest.raises(native.FutureRevision):
                self.store.compact(revision)
            return
        self.store.compact(revision)
        self.floor = max(self.floor, revision)
        self.everything_is_as_it_was()

    def everything_is_as_it_was(self) -> None:
        """Every revision that is kept reads as it was, and history replays to the present."""
        for revision in range(max(self.floor, 1), self.published + 1):
            state = self.states[revision]
            page = self.store.range(b"", revision=revision)
            assert dict(zip(page.keys, page.values, strict=True)) == {key.encode(): found.value for key, found in state.items()}
            for node in ("", "n1", "n2"):
                selector = [("field", "node", "=", [node])]
                keys = [key.encode() for key in sorted(state) if state[key].fields.get("node", "") == node]
                assert self.store.range(b"", revision=revision, selector=selector).keys == keys
        whole = Watching("", [], self.floor)
        expected = [event for revision in range(max(self.floor, 1) + 1, self.published + 1) for event in self.events(whole, revision)]
        watcher_id = self.store.watch(b"", from_revision=self.floor)
        replayed, seen = [], self.floor
        while seen < self.published:
            events, seen = self.store.poll(watcher_id, 1)
            replayed += events
            assert replayed == [event for event in expected if event[1] <= seen]
        assert replayed == expected
        self.store.unwatch(watcher_id)

    # Reading.

    def revisions(self, data: st.DataObject) -> int:
        return data.draw(st.integers(self.floor, self.published) | st.just(0) | st.integers(0, self.applied + 1))

    def refused_read(self, revision: int):
        if revision > self.published:
            return native.FutureRevision
        return native.Compacted if 0 < revision < self.floor else None

    @rule(key=st.sampled_from(KEYS), data=st.data())
    def get(self, key: str, data: st.DataObject) -> None:
        revision = self.revisions(data)
        if (refused := self.refused_read(revision)) is not None:
            with pytest.raises(refused):
                self.store.get(key.encode(), revision)
            return
        record, expected = self.store.get(key.encode(), revision), self.states[max(revision, 1) if revision else self.published].get(key)
        if expected is None:
            assert record is None
            return
        assert record is not None and record.key == key.encode()
        assert (record.value, record.create_revision, record.mod_revision, record.version, record.lease) == (
            expected.value,
            expected.created,
            expected.modified,
            expected.version,
            expected.lease,
        )

    @rule(prefix=st.sampled_from(PREFIXES), selector=selectors, limit=st.integers(0, 3), data=st.data())
    def range(self, prefix: str, selector: list, limit: int, data: st.DataObject) -> None:
        revision = self.revisions(data)
        if (refused := self.refused_read(revision)) is not None:
            with pytest.raises(refused):
                self.store.range(prefix.encode(), revision=revision, selector=selector)
            return
        state = self.states[revision or self.published]
        expected = [key for key in sorted(state) if covers(prefix, key) and matches(selector, state[key])]
        read, start = [], b""
        while True:
            page = self.store.range(prefix.encode(), start=start, limit=limit, revision=revision, selector=selector)
            assert page.revision == (revision or self.published)
            assert page.values == [state[key.decode()].value for key in page.keys]
            read += [key.decode() for key in page.keys]
            if page.next is None:
                assert page.remaining == 0
                break
            assert len(page.keys) == limit
            assert page.remaining == (-1 if selector else len(expected) - len(read))
            start = page.next
        assert read == expected

    @rule(span=st.sampled_from(SPANS), limit=st.integers(0, 3), data=st.data())
    def span(self, span: tuple[bytes, bytes], limit: int, data: st.DataObject) -> None:
        revision = self.revisions(data)
        if (refused := self.refused_read(revision)) is not None:
            with pytest.raises(refused):
                self.store.span(*span, revision=revision)
            return
        state = self.states[revision or self.published]
        expected = [key.encode() for key in sorted(state) if inside(span, key)]
        page = self.store.span(*span, limit=limit, revision=revision)
        assert page.keys == expected[: limit or None]
        assert self.store.count(*span, revision=revision) == len(expected) == len(page.keys) + page.remaining

    @rule(uid=st.sampled_from(["u1", "u2"]))
    def by_owner(self, uid: str) -> None:
        state = self.states[self.published]
        assert self.store.by_owner(uid) == [key.encode() for key in sorted(state) if uid in state[key].owners]

    # Watching.

    def events(self, watching: Watching, revision: int) -> list:
        before, after, found = self.states[revision - 1], self.states[revision], []
        for key in self.orders[revision]:
            where = watching.prefix
            if not (covers(where, key) if isinstance(where, str) else inside(where, key)):
                continue
            was = key in before and matches(watching.selector, before[key])
            now = key in after and matches(watching.selector, after[key])
            if was or now:
                value = after[key].value if now else before[key].deleted_at(revision)
                found.append((1 if was and now else 0 if now else 2, revision, value))
        return found

    @precondition(lambda self: len(self.watching) < 6)
    @rule(prefix=st.sampled_from(PREFIXES), selector=selectors, data=st.data())
    def watch(self, prefix: str, selector: list, data: st.DataObject) -> None:
        revision = self.revisions(data)
        if revision > self.published or revision < self.floor:
            with pytest.raises(native.FutureRevision if revision > self.published else native.Compacted):
                self.store.watch(prefix.encode(), from_revision=revision, selector=selector)
            return
        watching = Watching(prefix, selector, revision)
        for past in range(max(revision, 1) + 1, self.published + 1):
            watching.expected += self.events(watching, past)
        self.watching[self.store.watch(prefix.encode(), from_revision=revision, selector=selector)] = watching

    @precondition(lambda self: len(self.watching) < 6)
    @rule(span=st.sampled_from(SPANS), data=st.data())
    def watch_span(self, span: tuple[bytes, bytes], data: st.DataObject) -> None:
        revision = data.draw(st.integers(self.floor, self.published))
        watching = Watching(span, [], revision)
        for past in range(max(revision, 1) + 1, self.published + 1):
            watching.expected += self.events(watching, past)
        self.watching[self.store.watch_span(*span, from_revision=revision)] = watching

    @precondition(lambda self: self.watching)
    @rule(max_events=st.integers(1, 5), as_frames=st.booleans(), data=st.data())
    def poll(self, max_events: int, as_frames: bool, data: st.DataObject) -> None:
        watcher_id = data.draw(st.sampled_from(sorted(self.watching)))
        watching = self.watching[watcher_id]
        if as_frames:
            frames, seen = self.store.poll_frames(watcher_id, 40 * max_events)
            lines = [
                b'{"type":"%s","object":%s}\n' % ([b"ADDED", b"MODIFIED", b"DELETED"][kind], value) for kind, _, value in watching.expected
            ]
            assert b"".join(lines).startswith(frames)
            count = frames.count(b"\n")
        else:
            events, seen = self.store.poll(watcher_id, max_events)
            count = len(events)
            assert events == watching.expected[:count]
        assert count or not watching.expected, "something is queued, so something must come"
        rest = watching.expected[count:]
        assert seen == (rest[0][1] - 1 if rest else self.published)
        watching.expected, watching.seen = rest, seen

    @precondition(lambda self: self.watching)
    @rule(data=st.data())
    def unwatch(self, data: st.DataObject) -> None:
        watcher_id = data.draw(st.sampled_from(sorted(self.watching)))
        del self.watching[watcher_id]
        self.store.unwatch(watcher_id)
        with pytest.raises(KeyError):
            self.store.poll(watcher_id)

    @invariant()
    def positions(self) -> None:
        stats = self.store.stats()
        found = (stats["revision"], stats["applied_revision"], stats["compacted_revision"], stats["watchers"])
        assert found == (self.published, self.applied, self.floor, len(self.watching))


class LeasingStoreMachine(StoreMachine):
    """A store in memory whose leases end by a clock of the test. (On disk the committer's thread would see to them.)"""

    @rule(lease_id=st.sampled_from([1, 2]), ttl_s=st.integers(1, 5))
    def grant(self, lease_id: int, ttl_s: int) -> None:
        if lease_id in self.leases:
            with pytest.raises(native.LeaseExists):
                self.store.lease_grant(lease_id, ttl_s, self.now_ms)
            return
        assert self.store.lease_grant(lease_id, ttl_s, self.now_ms) == lease_id
        self.leases[lease_id] = (ttl_s, self.now_ms + 1000 * ttl_s)

    @rule(lease_id=st.sampled_from([1, 2]))
    def keep_alive(self, lease_id: int) -> None:
        if lease_id not in self.leases:
            with pytest.raises(native.LeaseNotFound):
                self.store.lease_keep_alive(lease_id, self.now_ms)
            return
        ttl_s, _ = self.leases[lease_id]
        assert self.store.lease_keep_alive(lease_id, self.now_ms) == ttl_s
        self.leases[lease_id] = (ttl_s, self.now_ms + 1000 * ttl_s)

    @rule(lease_id=st.sampled_from([1, 2]))
    def revoke(self, lease_id: int) -> None:
        if lease_id not in self.leases:
            with pytest.raises(native.LeaseNotFound):
                self.store.lease_revoke(lease_id)
            return
        self.ended(lease_id)
        assert self.store.lease_revoke(lease_id) == self.applied

    @rule(step_ms=st.integers(1, 3_000))
    def expire(self, step_ms: int) -> None:
        self.now_ms += step_ms
        due = sorted((end, lease_id) for lease_id, (_, end) in self.leases.items() if end <= self.now_ms)
        for _, lease_id in due:
            self.ended(lease_id)
        assert self.store.expire(self.now_ms) == [lease_id for _, lease_id in due]

    def ended(self, lease_id: int) -> None:
        del self.leases[lease_id]
        state = dict(self.states[self.applied])
        gone = [key for key in sorted(state) if state[key].lease == lease_id]
        if gone:
            self.applied += 1
            self.orders[self.applied] = gone
            self.states[self.applied] = {key: found for key, found in state.items() if key not in gone}

    @invariant()
    def attached(self) -> None:
        assert self.store.leases() == [(lease_id, ttl_s) for lease_id, (ttl_s, _) in sorted(self.leases.items())]
        for lease_id, (ttl_s, end) in self.leases.items():
            keys = [key.encode() for key, found in sorted(self.states[self.applied].items()) if found.lease == lease_id]
            remaining_s = -(-(end - self.now_ms) // 1000)
            assert self.store.lease_time_to_live(lease_id, self.now_ms) == (ttl_s, remaining_s, keys)


class LoggedStoreMachine(StoreMachine):
    """A store on disk, which may be closed and opened, and may write snapshots."""

    def open(self) -> native.Store:
        self.directory = tempfile.mkdtemp(prefix="korch-store-")
        return native.Store(self.directory)

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.directory)

    @rule()
    def snapshot(self) -> None:
        assert self.store.snapshot() == self.applied

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = native.Store(self.directory)
        self.watching = {}
        self.published = self.applied
        self.everything_is_as_it_was()


settings.register_profile("model", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
TestStoreInMemory = LeasingStoreMachine.TestCase
TestStoreInMemory.settings = settings(settings.get_profile("model"), max_examples=60, stateful_step_count=40)
TestStoreOnDisk = LoggedStoreMachine.TestCase
TestStoreOnDisk.settings = settings(settings.get_profile("model"), max_examples=30, stateful_step_count=40)
