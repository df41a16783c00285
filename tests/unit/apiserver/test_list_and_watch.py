"""Lists of one moment, and watches that miss nothing after it."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from api_exchange import Api, config_map, on_server, pod, serve

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


async def _maps(api: Api, count: int) -> str:
    path = await api.namespace()
    for number in range(count):
        body = config_map(f"m{number:02}")
        body["metadata"]["labels"] = {"parity": "even" if number % 2 == 0 else "odd"}
        await api.made(f"{path}/configmaps", body)
    return f"{path}/configmaps"


def _names(answer) -> list[str]:
    return [item["metadata"]["name"] for item in answer.json["items"]]


@on_server
async def test_a_list_has_its_kind_its_version_and_its_items_in_order(api: Api) -> None:
    path = await _maps(api, 3)
    answer = await api.get(path)
    assert (answer.json["kind"], answer.json["apiVersion"]) == ("ConfigMapList", "v1")
    assert answer.json["metadata"] == {"resourceVersion": str(api.storage.revision())}
    assert _names(answer) == ["m00", "m01", "m02"]


@on_server
async def test_selectors_choose_by_label_and_by_field(api: Api) -> None:
    path = await _maps(api, 4)
    assert _names(await api.get(path, labelSelector="parity=odd")) == ["m01", "m03"]
    assert _names(await api.get(path, labelSelector="parity notin (odd)", fieldSelector="metadata.name!=m00")) == ["m02"]
    assert _names(await api.get(path, fieldSelector="metadata.name=m02")) == ["m02"]
    assert _names(await api.get("/api/v1/configmaps", fieldSelector="metadata.namespace=other")) == []
    pods = "/api/v1/namespaces/d/pods"
    await api.made(pods, pod("p", nodeName="n1"))
    await api.made(pods, pod("q"))
    assert _names(await api.get(pods, fieldSelector="spec.nodeName=n1")) == ["p"]


@on_server
async def test_a_selector_that_makes_no_sense_is_a_bad_request(api: Api) -> None:
    path = await _maps(api, 1)
    assert (await api.get(path, labelSelector="a in (")).says[:2] == (400, "BadRequest")
    says = (await api.get(path, fieldSelector="spec.foo=1")).says
    assert says == (400, "BadRequest", '"spec.foo" is not a known field selector: only "metadata.name", "metadata.namespace"')


@on_server
async def test_pages_show_one_moment_whatever_is_written_meanwhile(api: Api) -> None:
    path = await _maps(api, 5)
    first = (await api.get(path, limit="2")).json
    assert first["metadata"]["remainingItemCount"] == 3
    await api.delete(f"{path}/m03")
    await api.made(path, config_map("m025"))
    names, page = [one["metadata"]["name"] for one in first["items"]], first
    while token := page["metadata"].get("continue"):
        page = (await api.get(path, **{"limit": "2", "continue": token})).json
        assert page["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        names += [one["metadata"]["name"] for one in page["items"]]
    assert names == ["m00", "m01", "m02", "m03", "m04"]
    assert "remainingItemCount" not in page["metadata"]


@on_server
async def test_remaining_items_are_not_told_when_a_selector_chooses(api: Api) -> None:
    path = await _maps(api, 5)
    metadata = (await api.get(path, limit="1", labelSelector="parity=even")).json["metadata"]
    assert metadata["continue"] and "remainingItemCount" not in metadata


@on_server
async def test_a_token_older_than_the_history_is_expired_and_brings_one_that_goes_on(api: Api) -> None:
    path = await _maps(api, 4)
    token = (await api.get(path, limit="2")).json["metadata"]["continue"]
    await api.made(path, config_map("m99"))
    await api.storage.compact(api.storage.revision())
    answer = await api.get(path, **{"limit": "2", "continue": token})
    code, reason, message = answer.says
    assert (code, reason) == (410, "Expired") and message.startswith("The provided continue parameter is too old")
    fresh = answer.json["metadata"]["continue"]
    assert _names(await api.get(path, **{"continue": fresh})) == ["m02", "m03", "m99"]


@on_server
async def test_a_list_can_show_an_older_moment(api: Api) -> None:
    path = await _maps(api, 2)
    then = (await api.get(path)).json["metadata"]["resourceVersion"]
    await api.delete(f"{path}/m00")
    old = await api.get(path, resourceVersion=then, resourceVersionMatch="Exact")
    assert _names(old) == ["m00", "m01"] and old.json["metadata"]["resourceVersion"] == then
    assert _names(await api.get(path, resourceVersion=then, resourceVersionMatch="NotOlderThan")) == ["m01"]
    assert _names(await api.get(path, resourceVersion="0")) == ["m01"]


REFUSED_LISTS = [
    ({"resourceVersion": "999999"}, 504, "Timeout"),
    ({"resourceVersion": "abc"}, 422, "Invalid"),
    ({"resourceVersionMatch": "Exact"}, 422, "Invalid"),
    ({"resourceVersionMatch": "Exact", "resourceVersion": "0"}, 422, "Invalid"),
    ({"sendInitialEvents": "true"}, 422, "Invalid"),
    ({"limit": "x"}, 400, "BadRequest"),
    ({"continue": "x"}, 400, "BadRequest"),
    ({"continue": "x", "resourceVersion": "5"}, 400, "BadRequest"),
]


@pytest.mark.parametrize(("query", "code", "reason"), REFUSED_LISTS)
def test_list_options_that_contradict_are_refused(query: dict[str, str], code: int, reason: str) -> None:
    async def story(api: Api) -> None:
        path = await _maps(api, 1)
        assert (await api.get(path, **query)).says[:2] == (code, reason)

    serve(story)


@on_server
async def test_a_watch_from_a_version_sees_what_came_after_it(api: Api) -> None:
    path = await _maps(api, 2)
    version = (await api.get(path)).json["metadata"]["resourceVersion"]
    await api.patch(f"{path}/m00", {"data": {"a": "b"}})
    await api.delete(f"{path}/m01")
    watch = await api.watch(path, resourceVersion=version)
    assert await watch.take(2) == [("MODIFIED", "m00"), ("DELETED", "m01")]
    await api.made(path, config_map("new"))
    kind, obj = await watch.next()
    assert (kind, obj["metadata"]["name"], obj["kind"], obj["apiVersion"]) == ("ADDED", "new", "ConfigMap", "v1")
    await watch.leave()


@on_server
async def test_a_watch_from_nowhere_begins_with_what_is_there(api: Api) -> None:
    path = await _maps(api, 2)
    for version in ("", "0"):
        watch = await api.watch(path, resourceVersion=version)
        assert await watch.take(2) == [("ADDED", "m00"), ("ADDED", "m01")]
        await watch.leave()


@on_server
async def test_send_initial_events_ends_the_present_with_a_marked_bookmark(api: Api) -> None:
    path = await _maps(api, 2)
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    watch = await api.watch(path, **query)
    assert await watch.take(2) == [("ADDED", "m00"), ("ADDED", "m01")]
    kind, mark = await watch.next()
    assert (kind, mark["kind"], mark["apiVersion"]) == ("BOOKMARK", "ConfigMap", "v1")
    assert mark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert mark["metadata"]["resourceVersion"] == str(api.storage.revision())
    await api.delete(f"{path}/m00")
    assert await watch.take(1) == [("DELETED", "m00")]
    await watch.leave()


@on_server
async def test_send_initial_events_needs_its_match(api: Api) -> None:
    path = await _maps(api, 0)
    assert (await api.get(path, watch="1", sendInitialEvents="true")).says[:2] == (422, "Invalid")
    assert (await api.get(path, watch="1", resourceVersionMatch="NotOlderThan")).says[:2] == (422, "Invalid")


@on_server
async def test_an_object_that_leaves_the_selector_is_deleted_for_its_watcher(api: Api) -> None:
    path = await _maps(api, 2)
    version = (await api.get(path)).json["metadata"]["resourceVersion"]
    watch = await api.watch(path, resourceVersion=version, labelSelector="parity=odd")
    await api.patch(f"{path}/m01", {"metadata": {"labels": {"parity": "none"}}})
    await api.patch(f"{path}/m01", {"data": {"unseen": "1"}})
    await api.patch(f"{path}/m01", {"metadata": {"labels": {"parity": "odd"}}})
    assert await watch.take(2) == [("DELETED", "m01"), ("ADDED", "m01")]
    await watch.leave()


@on_server
async def test_concurrent_watches_see_the_same_order(api: Api) -> None:
    path = await _maps(api, 0)
    start = str(api.storage.revision())
    watches = [await api.watch(path, resourceVersion=start) for _ in range(3)]
    await asyncio.gather(*(api.post(path, config_map(f"c{number}")) for number in range(10)))
    seen = [await watch.take(10) for watch in watches]
    assert seen[0] == seen[1] == seen[2]
    for watch in watches:
        await watch.leave()


@on_server
async def test_a_watch_below_the_history_ends_with_an_expired_error(api: Api) -> None:
    path = await _maps(api, 4)
    await api.storage.compact(api.storage.revision())
    watch = await api.watch(path, resourceVersion="1")
    kind, status = await watch.next()
    assert (watch.code, kind, status["code"], status["reason"]) == (200, "ERROR", 410, "Expired")
    assert status["message"].startswith("too old resource version: 1")
    assert await watch.next() == ("END", {})


@on_server
async def test_bookmarks_come_every_minute_to_who_allows_them(api: Api) -> None:
    path = await _maps(api, 1)
    start = str(api.storage.revision())
    silent = await api.watch(path, resourceVersion=start)
    marked = await api.watch(path, resourceVersion=start, allowWatchBookmarks="true")
    await api.made("/api/v1/namespaces", {"metadata": {"name": "elsewhere"}})
    await asyncio.sleep(61)
    kind, mark = await marked.next()
    assert kind == "BOOKMARK" and "annotations" not in mark["metadata"]
    assert int(mark["metadata"]["resourceVersion"]) == api.storage.revision()
    assert silent.is_quiet
    await silent.leave()
    await marked.leave()


@on_server
async def test_a_watch_ends_after_the_time_it_asked_for(api: Api) -> None:
    path = await _maps(api, 1)
    watch = await api.watch(path, resourceVersion=str(api.storage.revision()), timeoutSeconds="10")
    began = asyncio.get_running_loop().time()
    assert await watch.next() == ("END", {})
    assert asyncio.get_running_loop().time() - began == pytest.approx(10)


@on_server
async def test_a_client_that_goes_away_leaves_no_watcher_behind(api: Api) -> None:
    path = await _maps(api, 1)
    before = api.storage.stats()["watchers"]
    watch = await api.watch(path, resourceVersion=str(api.storage.revision()))
    await api.patch(f"{path}/m00", {"data": {"a": "b"}})
    assert await watch.take(1) == [("MODIFIED", "m00")]
    assert api.storage.stats()["watchers"] == before + 1
    await watch.leave()
    assert api.storage.stats()["watchers"] == before


@on_server
async def test_a_server_that_closes_ends_its_watches(api: Api) -> None:
    path = await _maps(api, 1)
    watch = await api.watch(path, resourceVersion=str(api.storage.revision()))
    api.server.close_streams()
    assert await watch.next() == ("END", {})
    assert (await api.get("/readyz")).code == 500


@on_server
async def test_kubectl_gets_a_table(api: Api) -> None:
    path = await _maps(api, 2)
    table = (await api.get(path, accept=f"{TABLE},application/json")).json
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert [row["cells"][0] for row in table["rows"]] == ["m00", "m01"]
    assert [row["object"]["kind"] for row in table["rows"]] == ["PartialObjectMetadata"] * 2
    one = (await api.get(f"{path}/m00", accept=TABLE, includeObject="Object")).json
    assert one["rows"][0]["object"]["kind"] == "ConfigMap"


@on_server
async def test_a_watched_table_sends_its_columns_once(api: Api) -> None:
    path = await _maps(api, 2)
    watch = await api.watch(path, accept=TABLE)
    (_, first), (_, second) = await watch.next(), await watch.next()
    assert first["columnDefinitions"] and not second["columnDefinitions"]
    assert [one["rows"][0]["cells"][0] for one in (first, second)] == ["m00", "m01"]
    await watch.leave()


@on_server
async def test_metadata_alone_is_a_form_of_get_list_and_watch(api: Api) -> None:
    path = await _maps(api, 1)
    assert (await api.get(f"{path}/m00", accept=PARTIAL)).json["kind"] == "PartialObjectMetadata"
    listed = (await api.get(path, accept=PARTIAL_LIST)).json
    assert listed["kind"] == "PartialObjectMetadataList" and "data" not in listed["items"][0]
    watch = await api.watch(path, accept=PARTIAL)
    kind, obj = await watch.next()
    assert (kind, obj["kind"], obj["metadata"]["name"]) == ("ADDED", "PartialObjectMetadata", "m00")
    await watch.leave()


@on_server
async def test_a_watch_of_events_shows_the_shape_of_the_group_that_asks(api: Api) -> None:
    path = await api.namespace()
    watch = await api.watch("/apis/events.k8s.io/v1/namespaces/d/events", resourceVersion=str(api.storage.revision()))
    about = {"kind": "Pod", "namespace": "d", "name": "p"}
    await api.made(f"{path}/events", {"metadata": {"name": "e"}, "involvedObject": about, "message": "hello"})
    _, event = await watch.next()
    assert (event["apiVersion"], event["note"]) == ("events.k8s.io/v1", "hello")
    await watch.leave()


@on_server
async def test_big_lists_are_compressed_for_who_takes_it(api: Api) -> None:
    import gzip

    path = await api.namespace()
    await api.made(f"{path}/configmaps", config_map("big", x="y" * 200_000))
    answer = await api.get(f"{path}/configmaps", headers={"accept-encoding": "gzip"})
    assert answer.header("content-encoding") == "gzip"
    assert orjson.loads(gzip.decompress(answer.body))["items"][0]["metadata"]["name"] == "big"
