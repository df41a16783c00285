"""The HTTP face: encodings in and out, health, version, metrics, identity, and that no request ends in a traceback."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import orjson
import pytest
import yaml
from api_exchange import Api, config_map, on_server, serve

from korch.api.errors import Unauthorized
from korch.apiserver.identity import ANONYMOUS, User, Verdict
from korch.apiserver.request_info import RequestInfo
from korch.apiserver.server import ServerConfig


@on_server
async def test_version_is_kubernetes(api: Api) -> None:
    version = (await api.get("/version")).json
    assert version["gitVersion"] == "v1.37.2" and version["major"].isdigit() and version["minor"].isdigit()


@on_server
async def test_health_is_told_check_by_check(api: Api) -> None:
    for path in ("/healthz", "/livez", "/readyz", "/readyz/ping"):
        answer = await api.get(path)
        assert (answer.code, answer.body) == (200, b"ok")
    verbose = (await api.get("/readyz", verbose="")).body.decode()
    assert verbose.startswith("[+]ping ok\n") and verbose.endswith("readyz check passed\n")
    assert (await api.get("/readyz/unknown")).code == 404


@on_server
async def test_metrics_count_requests_by_verb_and_resource(api: Api) -> None:
    path = await api.namespace()
    await api.get(f"{path}/configmaps")
    text = (await api.get("/metrics")).body.decode()
    line = next(one for one in text.splitlines() if one.startswith("apiserver_request_total") and 'verb="LIST"' in one)
    assert 'resource="configmaps"' in line and 'code="200"' in line and line.endswith(" 1.0")


@on_server
async def test_yaml_comes_in_and_goes_out(api: Api) -> None:
    path = await api.namespace()
    body = b"metadata:\n  name: a\ndata:\n  day: '2001-01-01'\n"
    answer = await api.post(f"{path}/configmaps", body, content_type="application/yaml")
    assert answer.json["data"] == {"day": "2001-01-01"}
    shown = await api.get(f"{path}/configmaps/a", accept="application/yaml")
    assert shown.header("content-type") == "application/yaml" and yaml.safe_load(shown.body)["metadata"]["name"] == "a"


@on_server
async def test_a_body_of_another_type_is_unsupported(api: Api) -> None:
    path = await api.namespace()
    answer = await api.post(f"{path}/configmaps", b"<a/>", content_type="text/xml")
    assert answer.says[:2] == (415, "UnsupportedMediaType")


@on_server
async def test_a_body_beyond_the_limit_is_too_large(api: Api) -> None:
    path = await api.namespace()
    answer = await api.post(f"{path}/configmaps", b" " * (3 * 1024 * 1024 + 1))
    assert answer.says == (413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728")


ACCEPTED = {
    "": 200,
    "*/*": 200,
    "application/json": 200,
    "application/vnd.kubernetes.protobuf, */*": 200,
    "application/vnd.kubernetes.protobuf,application/json": 200,
    "application/vnd.kubernetes.protobuf": 406,
    "text/html": 406,
    "application/json;as=Table;v=v9;g=meta.k8s.io": 406,
    "application/json;as=Table;v=v9;g=meta.k8s.io, application/json": 200,
}


@pytest.mark.parametrize("accept", ACCEPTED)
def test_the_answer_takes_a_form_that_the_client_accepts(accept: str) -> None:
    async def story(api: Api) -> None:
        assert (await api.get("/api/v1/namespaces", accept=accept)).code == ACCEPTED[accept]

    serve(story)


@on_server
async def test_methods_that_a_kind_lacks_are_not_allowed(api: Api) -> None:
    path = await api.namespace()
    for method, target in (("POST", f"{path}/configmaps/a"), ("PUT", f"{path}/configmaps"), ("DELETE", "/api/v1/namespaces")):
        assert (await api.call(method, target, config_map("a"))).code in (404, 405)
    assert (await api.call("POST", "/version", {})).says[:2] == (405, "MethodNotAllowed")
    assert (await api.get("/nowhere")).says[:2] == (404, "NotFound")


@on_server
async def test_discovery_and_schemas_are_served(api: Api) -> None:
    assert (await api.get("/api")).json["versions"] == ["v1"]
    assert {one["name"] for one in (await api.get("/apis")).json["groups"]} >= {"apps", "batch"}
    names = {one["name"] for one in (await api.get("/api/v1")).json["resources"]}
    assert {"pods", "pods/status", "namespaces/finalize"} <= names
    aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    assert (await api.get("/apis", accept=aggregated)).json["kind"] == "APIGroupDiscoveryList"
    assert "api/v1" in (await api.get("/openapi/v3")).json["paths"]


class Doors:
    """Knows alice by her token, refuses wrong tokens, and lets nobody write secrets."""

    def authenticate(self, headers: Mapping[str, str]) -> User:
        given = headers.get("authorization", "")
        if given == "Bearer alice":
            return User("alice", groups=("system:authenticated",))
        if given:
            raise Unauthorized()
        return ANONYMOUS

    def authorize(self, user: User, request_info: RequestInfo) -> Verdict:
        if user is ANONYMOUS:
            return Verdict(request_info.path == "/version", "anonymous requests are refused")
        return Verdict(request_info.resource != "secrets", "RBAC says no")


def test_who_asks_and_may_they_comes_before_everything() -> None:
    doors = Doors()

    async def story(api: Api) -> None:
        alice = {"authorization": "Bearer alice"}
        assert (await api.get("/version")).code == 200
        assert (await api.get("/api/v1/pods", headers={"authorization": "Bearer eve"})).says == (401, "Unauthorized", "Unauthorized")
        says = (await api.post("/api/v1/namespaces", {"metadata": {"name": "x"}})).says
        assert says[:2] == (403, "Forbidden")
        assert says[2] == (
            'namespaces is forbidden: User "system:anonymous" cannot create resource "namespaces" in API group "" at the cluster scope: '
            "anonymous requests are refused"
        )
        assert (await api.get("/api/v1/pods", headers=alice)).code == 200
        refused = await api.get("/api/v1/namespaces/d/secrets", headers=alice)
        assert 'User "alice" cannot list resource "secrets" in API group "" in the namespace "d"' in refused.json["message"]
        assert (await api.get("/healthz")).says[2] == (
            'forbidden: User "system:anonymous" cannot get path "/healthz": anonymous requests are refused'
        )

    serve(story, config=ServerConfig(authenticator=doors, authorizer=doors))


@on_server
async def test_a_bug_is_answered_with_a_status_and_no_traceback(api: Api) -> None:
    path = await api.namespace()

    def broken(_target: object) -> bytes:
        raise ZeroDivisionError("secret detail")

    api.server.dispatch.get = broken  # type: ignore[method-assign]
    code, reason, message = (await api.get(f"{path}/configmaps/a")).says
    assert (code, reason) == (500, "InternalError") and "secret" not in message


@on_server
async def test_a_connector_takes_the_place_of_the_pipeline(api: Api) -> None:
    from starlette.responses import PlainTextResponse

    async def log(_request: object, info: RequestInfo) -> PlainTextResponse:
        return PlainTextResponse(f"log of {info.namespace}/{info.name}")

    api.server.connectors["pods", "log"] = log
    assert (await api.get("/api/v1/namespaces/d/pods/p/log")).body == b"log of d/p"


def _field(number: int, content: bytes) -> bytes:
    """Return one length-delimited protobuf field of fewer than 128 bytes."""
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def _protobuf(api_version: str, kind: str, raw: bytes) -> bytes:
    return b"k8s\x00" + _field(1, _field(1, api_version.encode()) + _field(2, kind.encode())) + _field(2, raw)


@on_server
async def test_protobuf_comes_in_and_json_goes_out(api: Api) -> None:
    protobuf = "application/vnd.kubernetes.protobuf"
    body = _protobuf("v1", "Namespace", _field(1, _field(1, b"typed")))
    answer = await api.post("/api/v1/namespaces", body, content_type=protobuf, accept=f"{protobuf},application/json")
    assert answer.code == 201 and answer.json["metadata"]["name"] == "typed"
    options = _protobuf("v1", "DeleteOptions", b"\x08\x00")
    assert (await api.delete("/api/v1/namespaces/typed", options, content_type=protobuf)).json["status"]["phase"] == "Terminating"
    assert (await api.post("/api/v1/namespaces", b"k8s\x00\xff", content_type=protobuf)).says[:2] == (400, "BadRequest")


async def _socket(api: Api, path: str, query: str, *, messages: int) -> list[dict]:
    """Open a WebSocket, take `messages` messages (or what refuses it), go away."""
    sent: asyncio.Queue[dict] = asyncio.Queue()
    gone = asyncio.Event()
    pending = [{"type": "websocket.connect"}]

    async def receive() -> dict:
        if pending:
            return pending.pop()
        await gone.wait()
        return {"type": "websocket.disconnect", "code": 1000}

    scope = {
        "type": "websocket",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "scheme": "ws",
        "headers": [],
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
        "client": ("test", 1),
        "server": ("test", 1),
    }
    task = asyncio.get_running_loop().create_task(api.app(scope, receive, sent.put))
    taken = [await sent.get() for _ in range(messages)]
    gone.set()
    await task
    return taken


@on_server
async def test_a_watch_over_a_websocket_sends_one_message_an_event(api: Api) -> None:
    accepted, *events = await _socket(api, "/api/v1/namespaces", "watch=1", messages=3)
    assert accepted["type"] == "websocket.accept"
    objects = [orjson.loads(event["text"]) for event in events]
    assert [(one["type"], one["object"]["metadata"]["name"]) for one in objects] == [("ADDED", "default"), ("ADDED", "kube-node-lease")]


@on_server
async def test_a_websocket_that_leads_nowhere_is_denied_with_a_status(api: Api) -> None:
    start, body = await _socket(api, "/api/v1/unknowns", "watch=1", messages=2)
    assert start["status"] == 404
    assert orjson.loads(body["body"])["message"] == "the server could not find the requested resource"


@on_server
async def test_a_stream_without_an_upgrade_is_a_bad_request(api: Api) -> None:
    async def execute(_socket: object, _info: RequestInfo) -> None:
        raise AssertionError("no WebSocket was opened")

    api.server.socket_connectors["pods", "exec"] = execute
    says = (await api.post("/api/v1/namespaces/d/pods/p/exec", {})).says
    assert says == (400, "BadRequest", "Upgrade request required")
