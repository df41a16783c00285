"""Extenders over real HTTP filter, score, agree to preemption and bind; what they say and fail at is told in upstream's words."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from scheduler_world import Object, add_node, add_pod, bare, configuration, placed, pod, preempted_for, scheduling, told, until

from korch.api.gvk import NODES
from korch.scheduler.config import settings
from korch.testing.bare import BareClient

NEVER = "preemption: 0/{0} nodes are available: {0} Preemption is not helpful for scheduling."


class Service:
    """An extender: `answers` maps a verb to its answer, or to what makes it from the request; `asked` holds the requests."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, Object]] = []
        self.url = ""
        self.delay_s = 0.0
        self.tls: ssl.SSLContext | None = None

    async def start(self) -> web.AppRunner:
        application = web.Application()
        application.router.add_post("/{verb}", self._answer)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self.tls)
        await site.start()
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]
        self.url = f"http{'s' if self.tls else ''}://127.0.0.1:{port}"
        return runner

    async def _answer(self, request: web.Request) -> web.Response:
        verb, body = request.match_info["verb"], orjson.loads(await request.read())
        self.asked.append((verb, body))
        await asyncio.sleep(self.delay_s)
        answer = self.answers[verb]
        if isinstance(answer, int):
            return web.Response(status=answer)
        return web.json_response(answer(body) if callable(answer) else answer)

    def config(self, **more: Any) -> bytes:
        return configuration(extenders=[{"urlPrefix": self.url, **more}])


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    made = Service()
    runner = await made.start()
    yield made
    await runner.cleanup()


@pytest.fixture
def client() -> BareClient:
    return bare()


def only(*names: str) -> Callable[[Object], Object]:
    """Return an answer in names that leaves these of the nodes asked about and gives a reason for the others."""

    def answer(body: Object) -> Object:
        asked: list[str] = body["NodeNames"]
        failed = {name: "far away" for name in asked if name not in names}
        return {"NodeNames": [name for name in asked if name in names], "FailedNodes": failed}

    return answer


async def test_nodes_are_taken_away_and_the_rest_are_scored(client: BareClient, service: Service) -> None:
    for name in ("n1", "n2", "n3"):
        await add_node(client, name)
    service.answers = {"filter": only("n2", "n3"), "score": [{"Host": "n3", "Score": 10}, {"host": "n2", "score": 1}]}
    config = service.config(filterVerb="filter", prioritizeVerb="score", weight=5, nodeCacheCapable=True)
    await add_pod(client, "p")
    async with scheduling(client, config):
        assert await placed(client, "p") == "n3"
    (verb, filtered), (_, scored) = service.asked
    assert (verb, filtered["Nodes"], sorted(filtered["NodeNames"])) == ("filter", None, ["n1", "n2", "n3"])
    assert filtered["Pod"]["metadata"]["name"] == "p" and sorted(scored["NodeNames"]) == ["n2", "n3"]


async def test_an_extender_without_a_cache_is_sent_whole_nodes_and_answers_with_them(client: BareClient, service: Service) -> None:
    await add_node(client, "n1", labels={"rack": "a"})
    await add_node(client, "n2", labels={"rack": "b"})

    def answer(body: Object) -> Object:
        return {"nodes": {"items": [node for node in body["Nodes"]["items"] if node["metadata"]["labels"]["rack"] == "b"]}}

    service.answers = {"filter": answer}
    await add_pod(client, "p")
    async with scheduling(client, service.config(filterVerb="filter")):
        assert await placed(client, "p") == "n2"


async def test_reasons_are_counted_and_unresolvable_nodes_are_not_preempted(client: BareClient, service: Service) -> None:
    for name in ("n1", "n2", "n3"):
        await add_node(client, name)
    service.answers = {
        "filter": {
            "NodeNames": [],
            "FailedNodes": {"n1": "no licence", "n2": "no licence"},
            "FailedAndUnresolvableNodes": {"n2": "wrong city", "n3": "wrong city"},
        }
    }
    await add_pod(client, "p")
    async with scheduling(client, service.config(filterVerb="filter", nodeCacheCapable=True)) as scheduler:
        reason, message = await told(client, "p")
        assert reason == "Unschedulable"
        assert message == (
            "0/3 nodes are available: 1 no licence, 2 wrong city. preemption: 0/3 nodes are available: "
            "1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling."
        )
        # Whatever an extender refuses is tried again after any change.
        service.answers = {"filter": only("n3")}
        await client.patch(NODES, "n1", {"metadata": {"labels": {"x": "y"}}})
        assert await placed(client, "p") == "n3"
        assert scheduler.queue.place("d/p") is None


async def _error(client: BareClient, service: Service, **config: Any) -> str:
    await add_node(client, "n1")
    await add_pod(client, "p")
    async with scheduling(client, service.config(filterVerb="filter", nodeCacheCapable=True, **config)):
        reason, message = await told(client, "p")
    assert reason == "SchedulerError"
    return message


async def test_an_answer_that_is_not_ok_is_the_pods_error(client: BareClient, service: Service) -> None:
    service.answers = {"filter": 500}
    assert await _error(client, service) == f"failed filter with extender at URL {service.url}/filter, code 500"


async def test_an_extenders_own_error_is_the_pods(client: BareClient, service: Service) -> None:
    service.answers = {"filter": {"Error": "database is down"}}
    assert await _error(client, service) == "database is down"


async def test_a_node_that_nobody_asked_about_is_an_error(client: BareClient, service: Service) -> None:
    service.answers = {"filter": {"NodeNames": ["n9"]}}
    words = f'extender "{service.url}" claims a filtered node "n9" which is not found in the input node list'
    assert await _error(client, service) == words


async def test_one_that_is_too_slow_is_an_error(client: BareClient, service: Service) -> None:
    service.answers, service.delay_s = {"filter": {}}, 30
    words = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    assert await _error(client, service, httpTimeout="50ms") == f'Post "{service.url}/filter": {words}'


async def test_an_ignorable_extender_may_fail(client: BareClient, service: Service) -> None:
    service.answers = {"filter": 500, "score": 500}
    await add_node(client, "n1")
    await add_node(client, "n2")
    await add_pod(client, "p")
    config = service.config(filterVerb="filter", prioritizeVerb="score", weight=1, ignorable=True, nodeCacheCapable=True)
    async with scheduling(client, config):
        assert await placed(client, "p") in ("n1", "n2")
    assert [verb for verb, _ in service.asked] == ["filter", "score"]


async def test_an_extender_is_asked_only_about_pods_that_want_what_it_manages(client: BareClient, service: Service) -> None:
    await add_node(client, "n1")
    service.answers = {"filter": only()}
    managed = [{"name": "x.io/chip", "ignoredByScheduler": True}]
    await add_pod(client, "plain")
    await add_pod(client, "chip", requests={"x.io/chip": "1"})
    async with scheduling(client, service.config(filterVerb="filter", nodeCacheCapable=True, managedResources=managed)):
        assert await placed(client, "plain") == "n1"
        # The scheduler itself does not count the resource: nothing is insufficient.
        _, message = await told(client, "chip")
    assert message.startswith("0/1 nodes are available: 1 far away.")
    assert {body["Pod"]["metadata"]["name"] for _, body in service.asked} == {"chip"}


async def test_an_extender_binds_and_one_that_fails_is_tried_again(client: BareClient, service: Service) -> None:
    await add_node(client, "n1")
    service.answers = {"bind": {"Error": "not now"}}
    await add_pod(client, "p")
    async with scheduling(client, service.config(bindVerb="bind")):
        assert await told(client, "p") == ("SchedulerError", "binding rejected: not now")
        service.answers = {"bind": {}}
        await until(lambda: _count(service, 2))
    meta = (await pod(client, "p"))["metadata"]
    assert service.asked[-1] == ("bind", {"PodName": "p", "PodNamespace": "d", "PodUID": meta["uid"], "Node": "n1"})
    assert "nodeName" not in (await pod(client, "p"))["spec"], "the extender binds, and this one does not"


async def _count(service: Service, at_least: int) -> bool:
    return len(service.asked) >= at_least


async def _full(client: BareClient) -> None:
    for name in ("n1", "n2"):
        await add_node(client, name, cpu="1")
        await add_pod(client, f"low-{name}", nodeName=name, priority=0)


@pytest.mark.parametrize("has_cache", [True, False])
async def test_an_extender_chooses_where_to_preempt(client: BareClient, service: Service, has_cache: bool) -> None:
    await _full(client)

    def agree(body: Object) -> Object:
        victims = body["NodeNameToMetaVictims" if has_cache else "NodeNameToVictims"]
        assert sorted(victims) == ["n1", "n2"]
        [victim] = victims["n2"]["Pods"]
        uid = victim["UID"] if has_cache else victim["metadata"]["uid"]
        return {"NodeNameToMetaVictims": {"n2": {"Pods": [{"UID": uid}], "NumPDBViolations": 0}}}

    service.answers = {"preempt": agree}
    await add_pod(client, "high", priority=10)
    async with scheduling(client, service.config(preemptVerb="preempt", nodeCacheCapable=has_cache)):
        assert await preempted_for(client, "high") == ("n2", ["low-n2"])


async def test_an_extender_that_agrees_to_nothing_prevents_preemption(client: BareClient, service: Service) -> None:
    await _full(client)
    service.answers = {"preempt": {"NodeNameToMetaVictims": {}}}
    await add_pod(client, "high", priority=10)
    async with scheduling(client, service.config(preemptVerb="preempt")):
        _, message = await told(client, "high")
    assert message == "0/2 nodes are available: 2 Insufficient cpu. preemption: no candidate node for preemption"


async def test_victims_that_are_not_there_are_an_error(client: BareClient, service: Service) -> None:
    await _full(client)
    service.answers = {"preempt": {"NodeNameToMetaVictims": {"n1": {"Pods": [{"UID": "who"}]}}}}
    await add_pod(client, "high", priority=10)
    async with scheduling(client, service.config(preemptVerb="preempt")):
        reason, message = await told(client, "high")
    words = "claims to preempt pod (UID: &{who}) on node: n1, but the pod is not found on that node"
    assert (reason, message) == ("SchedulerError", f"extender: {service.url} {words}")


async def test_tls_is_checked_against_the_given_authority(client: BareClient, tmp_path: Path) -> None:
    certificate, key = _certificate(tmp_path)
    service = Service()
    service.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    service.tls.load_cert_chain(certificate, key)
    service.answers = {"filter": only("n1")}
    runner = await service.start()
    await add_node(client, "n1")
    try:
        await add_pod(client, "p")
        trusted = {"tlsConfig": {"caFile": str(certificate)}, "enableHTTPS": True}
        async with scheduling(client, service.config(filterVerb="filter", nodeCacheCapable=True, **trusted)):
            assert await placed(client, "p") == "n1"
        await add_pod(client, "q")
        async with scheduling(client, service.config(filterVerb="filter", nodeCacheCapable=True)):
            _, message = await told(client, "q")
        assert "certificate verify failed" in message
    finally:
        await runner.cleanup()


def _certificate(folder: Path) -> tuple[Path, Path]:
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "extender")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "tls.crt", folder / "tls.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))
    return paths


@pytest.mark.parametrize(
    ("extenders", "words"),
    [
        ([{"prioritizeVerb": "p"}], "extenders[0].weight: Invalid value: 0: must have a positive weight applied to it"),
        (
            [{"bindVerb": "b"}, {"bindVerb": "b"}],
            'extenders: Invalid value: "found 2 extenders implementing bind": only one extender can implement bind',
        ),
        (
            [{"managedResources": [{"name": "cpu"}]}],
            'extenders[0].managedResources[0].name: Invalid value: "cpu": is an invalid extended resource name',
        ),
        (
            [{"managedResources": [{"name": "x.io/y"}]}, {"managedResources": [{"name": "x.io/y"}]}],
            'extenders[1].managedResources: Invalid value: "x.io/y": duplicate extender managed resource name',
        ),
        ([{"httpTimeout": "soon"}], 'extenders[0].httpTimeout: time: invalid duration "soon"'),
    ],
)
def test_what_is_wrong_with_extenders_is_named(extenders: list[Object], words: str) -> None:
    with pytest.raises(ValueError) as caught:
        settings(configuration(extenders=extenders))
    assert str(caught.value) == words


def test_extenders_that_may_fail_are_asked_last() -> None:
    read = settings(configuration(extenders=[{"urlPrefix": "a", "ignorable": True}, {"urlPrefix": "b"}]))
    assert [one.url_prefix for one in read.extenders] == ["b", "a"]
