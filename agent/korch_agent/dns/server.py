"""The resolver that every pod of the node asks: UDP and TCP on the cluster's DNS address, which sits on a dummy interface.

Answers for the cluster zone come from a table that follows Services and EndpointSlices, encoded once per question and kept until
the table changes; every other name goes to the node's own resolvers, and their answer comes back untouched.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import msgspec

from korch.api.gvk import ENDPOINT_SLICES, SERVICES
from korch.client.informer import Informers
from korch.runtime import tasks
from korch.runtime.context import Runtime
from korch.runtime.log import get_logger
from korch_agent.dns.records import Records, Service, Slice, build, pod_address

INTERFACE = "korch-dns"
PORT = 53
TTL_S = 5
_NEGATIVE_TTL_S = 5
_FORWARD_TIMEOUT_S = 2.0
_UDP_BYTES_MAX = 1232
_REBUILD_DELAY_S = 0.02
_CACHE_ENTRIES_MAX = 20_000

log = get_logger("dns")
_decode_service = msgspec.json.Decoder(Service).decode
_decode_slice = msgspec.json.Decoder(Slice).decode


class DnsServer:
    """Answers on `address`. `upstreams` are (host, port) of the resolvers for names outside the cluster `zone`."""

    def __init__(
        self, informers: Informers, runtime: Runtime, *, address: str, zone: str, upstreams: Sequence[tuple[str, int]], port: int = PORT
    ) -> None:
        self._informers = informers
        self._services = informers.informer(SERVICES, decode=_decode_service)
        self._slices = informers.informer(ENDPOINT_SLICES, decode=_decode_slice)
        self._pick: random.Random = runtime.rng.stream("dns")
        self._address = address
        self._port = port
        self._zone = zone.rstrip(".").lower()
        self._upstreams = list(upstreams)
        self._records = Records()
        self._namespaces: set[str] = set()
        self._cache: dict[bytes, bytes] = {}
        self._changed = asyncio.Event()
        for informer in (self._services, self._slices):
            informer.on(add=self._note, update=lambda _old, new: self._note(new), delete=self._note)

    async def run(self) -> None:
        """Serve until cancelled. Raises OSError when the address cannot be had."""
        loop = asyncio.get_running_loop()
        async with self._informers.running():
            await self._services.wait_synced()
            await self._slices.wait_synced()
            self._rebuild()
            transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), local_addr=(self._address, self._port))
            server = await asyncio.start_server(self._serve_stream, self._address, self._port)
            log.info("cluster DNS answers", address=self._address, zone=self._zone)
            try:
                while True:
                    await self._changed.wait()
                    await asyncio.sleep(_REBUILD_DELAY_S)
                    self._rebuild()
            finally:
                transport.close()
                server.close()

    async def answer(self, query: bytes, *, is_stream: bool = False) -> bytes | None:
        """Return the reply to a query in wire form, None for what is no query at all."""
        cached = self._cache.get(query[2:]) if len(query) > 12 and not is_stream else None
        if cached is not None:
            return query[:2] + cached
        try:
            message = dns.message.from_wire(query)
        except (dns.exception.DNSException, struct.error):
            return None
        if message.flags & dns.flags.QR or message.opcode() != dns.opcode.QUERY or len(message.question) != 1:
            return None
        name = message.question[0].name.to_text(omit_final_dot=True).lower()
        if not self._is_ours(name):
            return await self._forward(query, message, is_stream=is_stream)
        reply = self._reply(message, name)
        limit = 65535 if is_stream else max(message.payload, 512) if message.edns >= 0 else 512
        try:
            wire = reply.to_wire(max_size=limit)
        except dns.exception.TooBig:
            reply.flags |= dns.flags.TC
            reply.answer = []
            wire = reply.to_wire(max_size=limit)
        if len(self._cache) >= _CACHE_ENTRIES_MAX:
            self._cache.clear()
        if not is_stream:
            self._cache[query[2:]] = wire[2:]
        return wire

    def _is_ours(self, name: str) -> bool:
        if name == self._zone or name.endswith(f".{self._zone}"):
            return True
        return name in self._records.pointers

    def _reply(self, message: dns.message.Message, name: str) -> dns.message.Message:
        reply = dns.message.make_response(message, recursion_available=True)
        reply.flags |= dns.flags.AA
        question = message.question[0]
        kind = question.rdtype
        found = self._values(name, kind)
        if not found and name in self._records.aliases:
            alias = self._records.aliases[name]
            self._add(reply, name, "CNAME", [f"{alias}."])
            found, name = self._values(alias, kind), alias
        for record_type, values in found:
            self._add(reply, name, record_type, values)
        if not reply.answer:
            exists = name in self._records.names or name in self._records.pointers or bool(pod_address(name, self._zone, self._namespaces))
            if not exists:
                reply.set_rcode(dns.rcode.NXDOMAIN)
            authority = f"ns.dns.{self._zone}. hostmaster.{self._zone}. 1 7200 1800 86400 {_NEGATIVE_TTL_S}"
            reply.authority.append(dns.rrset.from_text(f"{self._zone}.", _NEGATIVE_TTL_S, "IN", "SOA", authority))
        return reply

    def _values(self, name: str, kind: int) -> list[tuple[str, list[str]]]:
        records, found = self._records, []
        everything = kind == dns.rdatatype.ANY
        addresses = records.addresses.get(name) or [one for one in (pod_address(name, self._zone, self._namespaces),) if one]
        for record_type, number, mark in (("A", dns.rdatatype.A, "."), ("AAAA", dns.rdatatype.AAAA, ":")):
            matching = [one for one in addresses if mark in one]
            if matching and (everything or kind == number):
                found.append((record_type, self._pick.sample(matching, len(matching))))
        if name in records.services and (everything or kind == dns.rdatatype.SRV):
            weight = 100 // len(records.services[name]) or 1
            found.append(("SRV", [f"0 {weight} {port} {target}." for port, target in records.services[name]]))
        if name in records.pointers and (everything or kind == dns.rdatatype.PTR):
            found.append(("PTR", [f"{one}." for one in records.pointers[name]]))
        if name in records.texts and (everything or kind == dns.rdatatype.TXT):
            found.append(("TXT", [f'"{records.texts[name]}"']))
        return found

    def _add(self, reply: dns.message.Message, name: str, record_type: str, values: Sequence[str]) -> None:
        reply.answer.append(dns.rrset.from_text_list(f"{name}.", TTL_S, "IN", record_type, values))
        if record_type == "SRV":
            targets = dict.fromkeys(value.split()[-1].rstrip(".") for value in values)
            for target in targets:
                for kind, mark in (("A", "."), ("AAAA", ":")):
                    addresses = [one for one in self._records.addresses.get(target, ()) if mark in one]
                    if addresses:
                        reply.additional.append(dns.rrset.from_text_list(f"{target}.", TTL_S, "IN", kind, addresses))

    async def _forward(self, query: bytes, message: dns.message.Message, *, is_stream: bool) -> bytes:
        for host, port in self._upstreams:
            try:
                async with asyncio.timeout(_FORWARD_TIMEOUT_S):
                    return await (_ask_stream if is_stream else _ask_datagram)(query, host, port)
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                continue
        reply = dns.message.make_response(message, recursion_available=True)
        reply.set_rcode(dns.rcode.SERVFAIL if self._upstreams else dns.rcode.REFUSED)
        return reply.to_wire()

    def _note(self, _changed: object) -> None:
        self._changed.set()

    def _rebuild(self) -> None:
        self._changed.clear()
        services = self._services.list()
        self._records = build(services, self._slices.list(), self._zone)
        self._namespaces = {one.metadata.namespace for one in services}
        self._cache.clear()

    async def _serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack(">H", await asyncio.wait_for(reader.readexactly(2), 30))
                reply = await self.answer(await reader.readexactly(length), is_stream=True)
                if reply is None:
                    return
                writer.write(struct.pack(">H", len(reply)) + reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            return
        finally:
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own datagram transport does not derive from the class of that name in Python 3.11.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        tasks.spawn(self._reply(data, addr), name="dns query")

    async def _reply(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = await self._server.answer(data)
        if reply is not None and self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(reply, addr)


async def _ask_stream(query: bytes, host: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(struct.pack(">H", len(query)) + query)
        (length,) = struct.unpack(">H", await reader.readexactly(2))
        return await reader.readexactly(length)
    finally:
        writer.close()


async def _ask_datagram(query: bytes, host: str, port: int) -> bytes:
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[bytes] = loop.create_future()

    class Once(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            if data[:2] == query[:2] and not answered.done():
                answered.set_result(data)

        def error_received(self, exc: Exception) -> None:
            if not answered.done():
                answered.set_exception(exc)

    transport, _ = await loop.create_datagram_endpoint(Once, remote_addr=(host, port))
    try:
        transport.sendto(query)
        return await answered
    finally:
        transport.close()


def resolvers(file: Path = Path("/etc/resolv.conf")) -> list[tuple[str, int]]:
    """Return the (host, port) of the nameservers in a resolv.conf; a missing file has none."""
    if not file.exists():
        return []
    lines = [line.split() for line in file.read_text().splitlines()]
    return [(words[1], PORT) for words in lines if len(words) > 1 and words[0] == "nameserver"]
