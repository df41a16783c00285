"""The auditor lets every legal history pass and names the rule that an illegal one breaks."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from korch.testing.checkers import Auditor, Violation

Object = dict[str, Any]
ADDED, MODIFIED, DELETED = 0, 1, 2


def node(name: str = "n1", **allocatable: str) -> Object:
    return {"kind": "Node", "metadata": {"name": name, "uid": f"node-{name}"}, "status": {"allocatable": allocatable or {"cpu": "2"}}}


def pod(name: str = "p", *, on: str = "", address: str = "", phase: str = "Pending", cpu: str = "1", **meta: Any) -> Object:
    containers = [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]
    spec: Object = {"containers": containers} | ({"nodeName": on} if on else {})
    status: Object = {"phase": phase} | ({"podIP": address} if address else {})
    return {"kind": "Pod", "metadata": {"name": name, "namespace": "d", "uid": f"pod-{name}"} | meta, "spec": spec, "status": status}


def audit(*changes: tuple[int, Object]) -> Auditor:
    auditor = Auditor()
    for revision, (event_type, obj) in enumerate(changes, start=1):
        stamped = obj | {"metadata": {"resourceVersion": str(revision)} | obj["metadata"]}
        auditor.absorb([(event_type, revision, orjson.dumps(stamped))], now=float(revision))
    return auditor


LEGAL = {
    "bound once": [(ADDED, node()), (ADDED, pod()), (MODIFIED, pod(on="n1"))],
    "a name is used again": [(ADDED, pod()), (DELETED, pod()), (ADDED, pod(uid="other"))],
    "an address is used again after the pod ended": [
        (ADDED, node()),
        (ADDED, pod("a", on="n1", address="10.0.0.2", phase="Running")),
        (MODIFIED, pod("a", on="n1", address="10.0.0.2", phase="Succeeded")),
        (ADDED, pod("b", on="n1", address="10.0.0.2", phase="Running")),
    ],
    "a full node takes another pod after one ended": [
        (ADDED, node()),
        (ADDED, pod("a", on="n1")),
        (ADDED, pod("b", on="n1")),
        (DELETED, pod("a", on="n1")),
        (ADDED, pod("c", on="n1")),
    ],
    "the last finalizer goes with the object": [(ADDED, pod(finalizers=["x"])), (DELETED, pod(finalizers=[]))],
    "a node goes away under its pods": [
        (ADDED, node()),
        (ADDED, pod(on="n1")),
        (DELETED, node()),
        (MODIFIED, pod(on="n1", phase="Failed")),
    ],
}


@pytest.mark.parametrize("changes", LEGAL.values(), ids=LEGAL.keys())
def test_a_legal_history_passes(changes: list[tuple[int, Object]]) -> None:
    assert audit(*changes).revision == len(changes)


ILLEGAL = {
    "bound to two nodes": (
        [(ADDED, node("n1")), (ADDED, node("n2")), (ADDED, pod(on="n1")), (MODIFIED, pod(on="n2"))],
        "Pod d/p at revision 4: bound to n1, then to n2",
    ),
    "bound to no node": ([(ADDED, pod(on="ghost"))], "bound to node ghost, which does not exist"),
    "unbound": ([(ADDED, node()), (ADDED, pod(on="n1")), (MODIFIED, pod())], "bound to n1, then to nothing"),
    "running nowhere": ([(ADDED, pod(phase="Running"))], "running without a node"),
    "more than the node has": (
        [(ADDED, node()), (ADDED, pod("a", on="n1")), (ADDED, pod("b", on="n1")), (ADDED, pod("c", on="n1"))],
        "node n1 holds {'cpu': 3000} of {'cpu': 2000}",
    ),
    "more pods than allowed": (
        [(ADDED, node(pods="1")), (ADDED, pod("a", on="n1")), (ADDED, pod("b", on="n1"))],
        "node n1 holds {'pods': 2} of {'pods': 1}",
    ),
    "one address twice": (
        [
            (ADDED, node()),
            (ADDED, pod("a", on="n1", address="10.0.0.2", phase="Running")),
            (ADDED, pod("b", on="n1", address="10.0.0.2", phase="Running")),
        ],
        "has the address 10.0.0.2 of pod d/a",
    ),
    "the uid changes": ([(ADDED, pod()), (MODIFIED, pod(uid="other"))], "the uid changed"),
    "no uid": ([(ADDED, pod(uid=""))], "an object without uid"),
    "one uid twice": ([(ADDED, pod("a", uid="same")), (ADDED, pod("b", uid="same"))], "uid same is used twice"),
    "the generation falls": ([(ADDED, pod(generation=3)), (MODIFIED, pod(generation=2))], "the generation fell from 3 to 2"),
    "a deletion is taken back": (
        [(ADDED, pod(deletionTimestamp="2027-01-01T00:00:00Z")), (MODIFIED, pod())],
        "a deletion was taken back",
    ),
    "finalizers are ignored": ([(ADDED, pod(finalizers=["x"])), (DELETED, pod(finalizers=["x"]))], "in spite of finalizers ['x']"),
    "changed before it was made": ([(MODIFIED, pod())], "an event of type 1 for an object that is not there"),
    "made twice": ([(ADDED, pod()), (ADDED, pod())], "an event of type 0 for an object that is there"),
    "a wrong stamp": ([(ADDED, pod(resourceVersion="7"))], "resourceVersion 7 in the change of revision 1"),
}


@pytest.mark.parametrize(("changes", "rule"), ILLEGAL.values(), ids=ILLEGAL.keys())
def test_an_illegal_history_is_a_violation_that_names_its_rule(changes: list[tuple[int, Object]], rule: str) -> None:
    with pytest.raises(Violation) as caught:
        audit(*changes)
    assert rule in str(caught.value)


def test_revisions_never_go_back() -> None:
    auditor = Auditor()
    later = pod(resourceVersion="5")
    auditor.absorb([(ADDED, 5, orjson.dumps(later))])
    with pytest.raises(Violation, match="revision 4 came after 5"):
        auditor.absorb([(ADDED, 4, orjson.dumps(pod("q", resourceVersion="4")))])


def test_heartbeats_are_no_changes() -> None:
    beating = {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "later"}]}
    lost = {"conditions": [{"type": "Ready", "status": "Unknown", "lastHeartbeatTime": "later"}]}
    base = node() | {"status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "first"}]}}
    lease = {"kind": "Lease", "metadata": {"name": "n1", "namespace": "kube-node-lease", "uid": "l"}}
    assert audit((ADDED, base), (MODIFIED, base | {"status": beating}), (ADDED, lease), (MODIFIED, lease)).changed_at == 1.0
    assert audit((ADDED, base), (MODIFIED, base | {"status": lost})).changed_at == 2.0
