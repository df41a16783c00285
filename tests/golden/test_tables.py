"""What `kubectl get -o wide` shows of every kind, as a file each."""

from __future__ import annotations

import pytest

from korch.api.errors import NotAcceptable
from korch.apiserver.table import to_table
from korch.resources import catalogue
from korch.resources.resource import Resource
from tests.golden import check
from tests.golden.kind_samples import KIND_SAMPLES
from tests.golden.samples import NOW, PODS
from tests.golden.samples import SAMPLES as FIRST_SAMPLES

SAMPLES = FIRST_SAMPLES | KIND_SAMPLES
# Of a group's versions the newest.
KINDS = {(one.group, one.plural): one for one in sorted(catalogue().all(), key=lambda one: one.version)}
STORED = [key for key, one in KINDS.items() if not one.is_virtual]


def printed(resource: Resource) -> str:
    """Return the table of the kind's samples as text: columns with priority 1 are in brackets."""
    table = to_table(resource, SAMPLES[resource.group, resource.plural], list_meta={"resourceVersion": "7"}, now=NOW)
    head = [f"[{one['name']}]" if one["priority"] else one["name"] for one in table["columnDefinitions"]]
    rows = [head, *([shown(cell) for cell in row["cells"]] for row in table["rows"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "".join("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows)


def shown(cell: object) -> str:
    return str(cell).lower() if isinstance(cell, bool) else str(cell)


def test_every_stored_kind_has_samples() -> None:
    assert set(SAMPLES) == set(STORED)


@pytest.mark.parametrize("key", STORED, ids=lambda key: f"{key[1]}.{key[0] or 'core'}")
def test_table_reads_as_kubectl_prints_it(key: tuple[str, str]) -> None:
    check(f"tables/{key[1]}.{key[0] or 'core'}.txt", printed(KINDS[key]))


def test_cells_fit_their_columns_types() -> None:
    for key in STORED:
        table = to_table(KINDS[key], SAMPLES[key], list_meta={}, now=NOW)
        for row in table["rows"]:
            for column, cell in zip(table["columnDefinitions"], row["cells"], strict=True):
                assert isinstance(cell, int) or column["type"] != "integer", (key, column["name"], cell)


def test_rows_carry_what_the_client_asked_for() -> None:
    pods = KINDS["", "pods"]
    by_default = to_table(pods, PODS[:1], list_meta={}, now=NOW)["rows"][0]["object"]
    assert by_default == {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": PODS[0]["metadata"]}
    whole = to_table(pods, PODS[:1], list_meta={}, now=NOW, include_object="Object")["rows"][0]["object"]
    assert whole == {"kind": "Pod", "apiVersion": "v1", **PODS[0]}
    assert to_table(pods, PODS[:1], list_meta={}, now=NOW, include_object="None")["rows"][0]["object"] is None


def test_later_watch_events_leave_the_columns_out() -> None:
    table = to_table(KINDS["", "pods"], PODS[:1], list_meta={"resourceVersion": "9"}, now=NOW, with_columns=False)
    assert table["columnDefinitions"] is None
    assert table["metadata"] == {"resourceVersion": "9"}
    assert len(table["rows"]) == 1


def test_rows_of_ended_pods_say_that_they_are_completed() -> None:
    table = to_table(KINDS["", "pods"], PODS, list_meta={}, now=NOW)
    reasons = {row["object"]["metadata"]["name"]: row["conditions"][0]["reason"] for row in table["rows"] if "conditions" in row}
    assert reasons == {"completed": "Succeeded", "failed": "Failed", "evicted": "Failed"}


def test_a_virtual_kind_has_no_table() -> None:
    with pytest.raises(NotAcceptable) as caught:
        to_table(KINDS["authorization.k8s.io", "selfsubjectaccessreviews"], [], list_meta={}, now=NOW)
    assert caught.value.code == 406


def test_a_kind_without_columns_shows_name_and_creation() -> None:
    bare = Resource(group="example.com", version="v1", kind="Thing", plural="things", schema="com.example.v1.Thing")
    table = to_table(bare, [{"metadata": {"name": "t", "creationTimestamp": "2027-01-15T07:55:00Z"}}], list_meta={}, now=NOW)
    assert [one["name"] for one in table["columnDefinitions"]] == ["Name", "Created At"]
    assert table["rows"][0]["cells"] == ["t", "2027-01-15T07:55:00Z"]
