"""Cluster DNS: records as the specification has them, and the difference between "no such name" and "no such record"."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from korch.client.informer import Informers
from korch.runtime.context import simulated
from korch_agent.dns.records import Conditions, Endpoint, Service, ServicePort, ServiceSpec, Slice, SlicePort, _Metadata, build
from korch_agent.dns.server import DnsServer

ZONE = "cluster.local"
SERVICES = [
    Service(_Metadata("web", "default"), ServiceSpec(clusterIP="10.96.1.1", ports=[ServicePort("http", 80), ServicePort("", 81)])),
    Service(_Metadata("db", "shop"), ServiceSpec(clusterIP="None", ports=[ServicePort("sql", 5432)])),
    Service(_Metadata("out", "default"), ServiceSpec(type="ExternalName", externalName="example.org")),
    Service(_Metadata("alias", "default"), ServiceSpec(type="ExternalName", externalName="web.default.svc.cluster.local")),
]
SLICES = [
    Slice(
        _Metadata("db-1", "shop", {"kubernetes.io/service-name": "db"}),
        endpoints=[
            Endpoint(["10.244.0.7"], "db-0", Conditions(True)),
            Endpoint(["10.244.0.8"], None, Conditions(True)),
            Endpoint(["10.244.0.9"], "db-2", Conditions(False)),
        ],
        ports=[SlicePort("sql", 5432, "TCP")],
    )
]


@pytest.fixture
def server() -> DnsServer:
    runtime = simulated(1)
    made = DnsServer(Informers(None, runtime), runtime, address="127.0.0.1", zone=ZONE, upstreams=[])
    made._records = build(SERVICES, SLICES, ZONE)
    made._namespaces = {"default", "shop"}
    return made


async def ask(server: DnsServer, name: str, kind: str, *, is_stream: bool = False) -> dns.message.Message:
    wire = await server.answer(dns.message.make_query(name, kind).to_wire(), is_stream=is_stream)
    assert wire is not None
    return dns.message.from_wire(wire)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("web.default.svc.cluster.local", "A", {"10.96.1.1"}),
        ("WEB.Default.svc.cluster.local", "A", {"10.96.1.1"}),
        ("_http._tcp.web.default.svc.cluster.local", "SRV", {"0 100 80 web.default.svc.cluster.local."}),
        ("db.shop.svc.cluster.local", "A", {"10.244.0.7", "10.244.0.8"}),
        ("db-0.db.shop.svc.cluster.local", "A", {"10.244.0.7"}),
        ("10-244-0-8.db.shop.svc.cluster.local", "A", {"10.244.0.8"}),
        (
            "_sql._tcp.db.shop.svc.cluster.local",
            "SRV",
            {"0 50 5432 db-0.db.shop.svc.cluster.local.", "0 50 5432 10-244-0-8.db.shop.svc.cluster.local."},
        ),
        ("1.1.96.10.in-addr.arpa", "PTR", {"web.default.svc.cluster.local."}),
        ("7.0.244.10.in-addr.arpa", "PTR", {"db-0.db.shop.svc.cluster.local."}),
        ("out.default.svc.cluster.local", "A", {"example.org."}),
        ("alias.default.svc.cluster.local", "A", {"web.default.svc.cluster.local.", "10.96.1.1"}),
        ("dns-version.cluster.local", "TXT", {'"1.1.0"'}),
        ("10-244-0-9.shop.pod.cluster.local", "A", {"10.244.0.9"}),
    ],
)
async def test_a_name_of_the_cluster_has_the_records_of_the_specification(
    server: DnsServer, name: str, kind: str, expected: set[str]
) -> None:
    reply = await ask(server, name, kind)
    assert reply.rcode() == dns.rcode.NOERROR
    assert {record.to_text() for rrset in reply.answer for record in rrset} == expected
    assert reply.flags & dns.flags.AA


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [
        ("web.default.svc.cluster.local", "AAAA", dns.rcode.NOERROR),
        ("default.svc.cluster.local", "A", dns.rcode.NOERROR),
        ("_tcp.web.default.svc.cluster.local", "A", dns.rcode.NOERROR),
        ("absent.default.svc.cluster.local", "A", dns.rcode.NXDOMAIN),
        ("db-2.db.shop.svc.cluster.local", "A", dns.rcode.NXDOMAIN),
        ("10-244-0-9.absent.pod.cluster.local", "A", dns.rcode.NXDOMAIN),
        ("web.default.svc.cluster.local.default.svc.cluster.local", "A", dns.rcode.NXDOMAIN),
    ],
)
async def test_no_such_record_and_no_such_name_are_told_apart(server: DnsServer, name: str, kind: str, code: int) -> None:
    reply = await ask(server, name, kind)
    assert reply.rcode() == code
    assert not reply.answer
    assert [rrset.rdtype for rrset in reply.authority] == [dns.rdatatype.SOA]


async def test_a_second_asker_gets_the_kept_answer_under_its_own_id(server: DnsServer) -> None:
    first, second = (
        dns.message.make_query("web.default.svc.cluster.local", "A"),
        dns.message.make_query("web.default.svc.cluster.local", "A"),
    )
    first.id, second.id = 1, 2
    replies = [await server.answer(query.to_wire()) for query in (first, second)]
    assert [dns.message.from_wire(reply or b"").id for reply in replies] == [1, 2]


async def test_more_than_fits_a_datagram_is_cut_and_whole_over_tcp(server: DnsServer) -> None:
    many = [Endpoint([f"10.244.{index // 250}.{index % 250 + 1}"], None, Conditions(True)) for index in range(300)]
    big = Slice(_Metadata("db-1", "shop", {"kubernetes.io/service-name": "db"}), endpoints=many)
    server._records = build(SERVICES, [big], ZONE)
    assert (await ask(server, "db.shop.svc.cluster.local", "A")).flags & dns.flags.TC
    whole = await ask(server, "db.shop.svc.cluster.local", "A", is_stream=True)
    assert sum(len(rrset) for rrset in whole.answer) == 300


@pytest.mark.parametrize("wire", [b"", b"\x00" * 11, b"\xff" * 40])
async def test_what_is_no_query_is_not_answered(server: DnsServer, wire: bytes) -> None:
    assert await server.answer(wire) is None
