"""The front door: what reaches the application, what comes back, and when."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import httpx
import pytest
from cryptography import x509
from door import Door, application, issue, raw_application, replace

from korch._core import native


async def echo(scope, receive, send) -> None:
    """Answer with what arrived."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    answer = {
        "method": scope["method"],
        "path": scope["raw_path"].decode(),
        "query": scope["query_string"].decode(),
        "version": scope["http_version"],
        "headers": [[name.decode(), value.decode()] for name, value in scope["headers"]],
        "body": body.decode(),
    }
    raw = json.dumps(answer).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(raw)).encode()), (b"warning", b'299 - "careful"')]
    await send({"type": "http.response.start", "status": 201, "headers": headers})
    await send({"type": "http.response.body", "body": raw})


def header(answer: dict, name: str) -> list[str]:
    return [value for key, value in answer["headers"] if key == name]


@pytest.mark.parametrize("http2", [False, True], ids=["http/1.1", "http/2"])
async def test_a_request_arrives_whole_and_its_answer_returns_whole(door: Door, http2: bool):
    async with application(door, echo), door.http(http2=http2) as client:
        response = await client.post("/api/v1/pods?watch=a%20b", content=b"x" * 300_000, headers={"Accept": "application/json"})
        assert response.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        assert (response.status_code, response.headers["warning"]) == (201, '299 - "careful"')
        answer = response.json()
        assert (answer["method"], answer["path"], answer["query"], answer["version"]) == ("POST", "/api/v1/pods", "watch=a%20b", "1.1")
        assert answer["body"] == "x" * 300_000
        assert header(answer, "host") == [door.address]
        assert header(answer, "accept") == ["application/json"]
        assert header(answer, "x-forwarded-for") == ["127.0.0.1"]


@pytest.mark.parametrize("http2", [False, True], ids=["http/1.1", "http/2"])
async def test_the_verified_client_certificate_is_told_and_cannot_be_forged(door: Door, http2: bool):
    forged = {"X-Korch-Client-Cert": "forged", "x-korch-user": "system:admin", "x-forwarded-for": "10.9.8.7"}
    async with application(door, echo):
        async with door.http(http2=http2, certificate=door.client) as client:
            answer = (await client.get("/", headers=forged)).json()
            assert header(answer, "x-korch-client-cert") == [door.client.header]
            assert header(answer, "x-korch-user") == []
            assert header(answer, "x-forwarded-for") == ["10.9.8.7, 127.0.0.1"]
        async with door.http(http2=http2) as client:
            answer = (await client.get("/", headers=forged)).json()
            assert header(answer, "x-korch-client-cert") == []


async def test_a_certificate_of_another_authority_is_refused(door: Door):
    stranger = issue("mallory", issue("other-ca"))
    async with application(door, echo), door.http(certificate=stranger) as client:
        with pytest.raises((ssl.SSLError, httpx.TransportError)):
            await client.get("/")
    assert door.front.stats()["handshakes_failed"] == 1


async def test_connections_to_the_application_are_used_again(door: Door):
    async with application(door, echo), door.http() as client:
        for _ in range(20):
            assert (await client.get("/")).status_code == 201
        stats = door.front.stats()
        assert stats["requests_total"] == 20
        assert (stats["upstream_connects"], stats["handed_over"]) == (0, 20) if door.in_memory else stats["upstream_connects"] < 5
        assert stats["requests_active"] == 0


class Http2:
    """A bare HTTP/2 client, which can do what polite ones hide: reset a stream, ping, read the peer's settings."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.connection.initiate_connection()

    @classmethod
    async def connect(cls, door: Door) -> Http2:
        context = door.context()
        context.set_alpn_protocols(["h2"])
        return cls(*await asyncio.open_connection("127.0.0.1", door.port, ssl=context))

    def get(self, path: str) -> int:
        stream = self.connection.get_next_available_stream_id()
        head = {":method": "GET", ":scheme": "https", ":authority": "x", ":path": path}
        self.connection.send_headers(stream, list(head.items()), end_stream=True)
        self.flush()
        return stream

    def reset(self, stream: int) -> None:
        self.connection.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        self.flush()

    def flush(self) -> None:
        self._writer.write(self.connection.data_to_send())

    async def until(self, wanted: type) -> list[h2.events.Event]:
        """Read until an event of the wanted type; return all events so far."""
        seen: list[h2.events.Event] = []
        while not any(isinstance(event, wanted) for event in seen):
            seen += self.connection.receive_data(await asyncio.wait_for(self._reader.read(65536), 10))
            self.flush()
        return seen

    def close(self) -> None:
        self._writer.close()


class Watched:
    """An application that sends two lines and then nothing, until the client leaves."""

    def __init__(self, lines: tuple[bytes, ...] = (b'{"n":1}\n', b'{"n":2}\n')) -> None:
        self.lines = lines
        self.arrived, self.gone = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope, receive, send) -> None:
        await receive()
        self.arrived.set()
        if self.lines:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        for line in self.lines:
            await send({"type": "http.response.body", "body": line, "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        self.gone.set()


async def test_a_chunk_arrives_before_the_body_ends_and_leaving_ends_the_request(door: Door):
    app = Watched()
    async with application(door, app), door.http() as client:
        async with client.stream("GET", "/watch") as response:
            lines = response.aiter_lines()
            assert [await anext(lines), await anext(lines)] == ['{"n":1}', '{"n":2}']
            assert door.front.stats()["requests_active"] == 1
        await asyncio.wait_for(app.gone.wait(), 10)


async def test_leaving_before_the_answer_begins_ends_the_request(door: Door):
    app = Watched(lines=())
    async with application(door, app), door.http() as client:
        asking = asyncio.get_running_loop().create_task(client.get("/hold"))
        await asyncio.wait_for(app.arrived.wait(), 10)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(app.gone.wait(), 10)


@pytest.mark.parametrize("leave", ["reset", "close"])
@pytest.mark.parametrize("lines", [(), (b"{}\n",)], ids=["before the answer", "amid the answer"])
async def test_leaving_a_stream_of_http2_ends_its_request(door: Door, leave: str, lines: tuple[bytes, ...]):
    app = Watched(lines)
    async with application(door, app):
        client = await Http2.connect(door)
        stream = client.get("/watch")
        await asyncio.wait_for(app.arrived.wait(), 10)
        if lines:
            data = [event.data for event in await client.until(h2.events.DataReceived) if isinstance(event, h2.events.DataReceived)]
            assert b"".join(data) == b"{}\n"
        if leave == "reset":
            client.reset(stream)
        else:
            client.close()
        await asyncio.wait_for(app.gone.wait(), 10)
        client.close()


async def test_a_body_streams_in_while_the_answer_streams_out(door: Door):
    async def shout(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            if message.get("body"):
                await send({"type": "http.response.body", "body": message["body"].upper(), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    heard = asyncio.Event()

    async def words():
        yield b"one"
        await asyncio.wait_for(heard.wait(), 10)
        yield b"two"

    async with application(door, shout):
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port, ssl=door.context())
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"3\r\none\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"ONE\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        heard.set()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
        assert await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 10) == b"3\r\nTWO\r\n0\r\n\r\n"
        writer.close()
        async with door.http(http2=True) as client:
            assert (await client.post("/", content=words())).content == b"ONETWO"


@pytest.mark.parametrize("protocol", ["SPDY/3.1", "websocket"])
async def test_an_upgrade_becomes_a_pipe_of_bytes(door: Door, protocol: str):
    heads: list[bytes] = []

    async def upgrading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\nwelcome".encode())
        while chunk := await reader.read(65536):
            writer.write(chunk[::-1])
        writer.write(b"bye")
        writer.close()

    async with raw_application(door, upgrading):
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port, ssl=door.context(door.client))
        head = f"POST /api/v1/namespaces/d/pods/p/exec HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: {protocol}\r\n"
        writer.write(head.encode() + b"X-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0\r\n\r\n")
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert f"upgrade: {protocol}".encode() in answer.lower().replace(protocol.lower().encode(), protocol.encode())
        assert await asyncio.wait_for(reader.readexactly(7), 10) == b"welcome"
        for word in (b"abc", bytes(range(256)) * 1000):
            writer.write(word)
            if len(word) == 3:
                assert await asyncio.wait_for(reader.readexactly(3), 10) == b"cba"
        assert len(await asyncio.wait_for(reader.readexactly(256_000), 10)) == 256_000
        assert door.front.stats()["upgrades_active"] == 1
        writer.close()
    sent = heads[0].lower()
    assert b"x-stream-protocol-version: v4.channel.k8s.io" in sent
    assert b"x-korch-client-cert: " in sent
    assert f"upgrade: {protocol.lower()}".encode() in sent


async def test_an_upgrade_that_is_declined_is_an_ordinary_answer(door: Door):
    async with application(door, echo), door.http() as client:
        response = await client.post("/exec", headers={"Connection": "Upgrade", "Upgrade": "SPDY/3.1"})
        assert response.status_code == 201
        assert header(response.json(), "upgrade") == ["SPDY/3.1"]


async def test_without_an_application_the_answer_is_a_status(door: Door):
    async with door.http() as client:
        response = await client.get("/readyz")
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        status = response.json()
        assert (status["kind"], status["reason"], status["code"]) == ("Status", "ServiceUnavailable", 503)
        assert status["message"].startswith("the API server is not available: cannot connect")


async def test_the_application_may_restart(door: Door):
    async with door.http() as client:
        async with application(door, echo):
            assert (await client.get("/")).status_code == 201
        assert (await client.get("/")).status_code == 503
        async with application(door, echo):
            assert (await client.get("/")).status_code == 201


async def test_a_kept_connection_that_died_costs_no_request(door: Door):
    served = 0

    async def one_answer_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer once as if the connection stayed, and drop it when the next request arrives: the race of every keep-alive."""
        nonlocal served
        await reader.readuntil(b"\r\n\r\n")
        served += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        await reader.read(1)
        writer.transport.abort()

    async with raw_application(door, one_answer_only), door.http() as client:
        for _ in range(5):
            assert (await client.get("/")).text == "ok"
    assert served == 5


async def test_an_answer_that_breaks_off_breaks_off_for_the_client(door: Door):
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await writer.drain()
        writer.close()

    async with raw_application(door, broken), door.http() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/")


async def test_a_head_that_never_ends_is_not_waited_for(door: Door):
    async with application(door, echo):
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port, ssl=door.context())
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n")
        assert await asyncio.wait_for(reader.read(), 30) in (b"", b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        writer.close()


async def test_a_head_that_is_too_large_is_refused(door: Door):
    async with application(door, echo):
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port, ssl=door.context())
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Large: " + b"x" * 2_000_000)
        assert (await asyncio.wait_for(reader.readline(), 30)).startswith(b"HTTP/1.1 431")
        writer.close()


async def test_http2_answers_pings_and_announces_its_limits(door: Door):
    """As client-go does on an idle connection every 30 seconds."""
    client = await Http2.connect(door)
    client.connection.ping(b"12345678")
    client.flush()
    await client.until(h2.events.PingAckReceived)
    assert client.connection.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] == 250
    client.close()


async def test_stopping_lets_a_request_finish_and_accepts_no_other(door: Door):
    arrived, finish = asyncio.Event(), asyncio.Event()

    async def slow(scope, receive, send) -> None:
        arrived.set()
        await finish.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"done"})

    async with application(door, slow), door.http() as client:
        asking = asyncio.get_running_loop().create_task(client.get("/"))
        await asyncio.wait_for(arrived.wait(), 10)
        stopping = asyncio.get_running_loop().run_in_executor(None, door.front.stop, 20_000)
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", door.port, ssl=door.context())
                writer.close()
            except (ConnectionError, ssl.SSLError):
                break
        finish.set()
        assert (await asking).text == "done"
        await asyncio.wait_for(stopping, 20)


def test_what_cannot_be_opened_says_why(tmp_path, authority):
    server = issue("kube-apiserver", authority)
    good = {"bind": ["127.0.0.1:0"], "upstream": str(tmp_path / "x"), **server.written(tmp_path, authority)}
    nonsense = tmp_path / "nonsense"
    nonsense.write_bytes(b"nonsense")
    other = tmp_path / "other.key"
    other.write_bytes(authority.key_pem)
    with pytest.raises(ValueError, match=r"^server certificate: .*/nonsense: no certificate in it"):
        native.Front(**{**good, "certificate_file": nonsense}).start()
    with pytest.raises(ValueError, match=r"^server certificate: "):
        native.Front(**{**good, "key_file": other}).start()
    with pytest.raises(ValueError, match=r"^server key: .*/missing: No such file"):
        native.Front(**{**good, "key_file": tmp_path / "missing"}).start()
    with pytest.raises(ValueError, match=r"^client authority: "):
        native.Front(**{**good, "client_ca_file": nonsense}).start()
    front = native.Front(**good)
    (address,) = front.start()
    with pytest.raises(RuntimeError):
        front.start()
    with pytest.raises(OSError, match=r"^cannot listen on "):
        native.Front(**{**good, "bind": [address]}).start()
    front.stop()
    assert native.Front(**{**good, "bind": [address]}).start() == [address]


def shown(door: Door) -> int:
    """Shake hands anew; return the serial number of the certificate that the door shows."""
    context = ssl.create_default_context(cadata=door.authority.pem.decode())
    with socket.create_connection(("127.0.0.1", door.port)) as plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as shaken:
        der = shaken.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


async def test_renewed_certificates_are_shown_to_new_connections_and_open_ones_go_on(door: Door):
    async with application(door, echo), door.http(http2=True) as client:
        assert (await client.get("/")).status_code == 201
        before = shown(door)
        renewed = issue("kube-apiserver", door.authority)
        replace(door.directory / "server.crt", renewed.pem)
        assert [shown(door), shown(door)] == [before, before], "the new certificate has no key yet"
        stats = door.front.stats()
        assert (stats["certificate_reloads"], stats["certificate_reload_failures"]) == (0, 1)
        replace(door.directory / "server.key", renewed.key_pem)
        assert shown(door) == renewed.certificate.serial_number != before
        assert (await client.get("/")).status_code == 201
        stats = door.front.stats()
        assert (stats["certificate_reloads"], stats["connections_open"] >= 1) == (1, True)


async def test_files_that_go_missing_or_make_no_sense_leave_the_door_as_it_is(door: Door):
    before = shown(door)
    (door.directory / "server.key").unlink()
    assert shown(door) == before
    replace(door.directory / "server.crt", b"nonsense")
    assert shown(door) == before
    assert door.front.stats()["certificate_reload_failures"] == 2


async def test_a_new_authority_of_clients_lets_its_clients_in_and_the_old_ones_out(door: Door):
    successor = issue("next-ca")
    newcomer = issue("bob", successor)
    async with application(door, echo):
        async with door.http(certificate=newcomer) as client:
            with pytest.raises((ssl.SSLError, httpx.TransportError)):
                await client.get("/")
        replace(door.directory / "ca.crt", successor.pem)
        async with door.http(certificate=newcomer) as client:
            answer = (await client.get("/")).json()
            assert header(answer, "x-korch-client-cert") == [newcomer.header]
        async with door.http(certificate=door.client) as client:
            with pytest.raises((ssl.SSLError, httpx.TransportError)):
                await client.get("/")
