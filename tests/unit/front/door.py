"""A front door with certificates of its own, before an application that a test chooses."""

from __future__ import annotations

import asyncio
import base64
import datetime
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import TypedDict

import httpx
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from korch._core import native
from korch.apiserver.inbox import Inbox

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Files(TypedDict):
    """How a front is told its certificate and the authority of its clients."""

    certificate_file: Path
    key_file: Path
    client_ca_file: Path


@dataclass(frozen=True)
class Certificate:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())

    def written(self, directory: Path, authority: Certificate) -> Files:
        """Write what a front is given into `directory`, each file replaced as a whole."""
        files = Files(certificate_file=directory / "server.crt", key_file=directory / "server.key", client_ca_file=directory / "ca.crt")
        for file, content in zip(files.values(), (self.pem, self.key_pem, authority.pem), strict=True):
            replace(Path(str(file)), content)
        return files

    @property
    def header(self) -> str:
        return base64.b64encode(self.certificate.public_bytes(serialization.Encoding.DER)).decode()


def replace(file: Path, content: bytes) -> None:
    """Put new content in the place of a file, as those do who renew certificates."""
    draft = file.with_suffix(".draft")
    draft.write_bytes(content)
    draft.replace(file)


def issue(common_name: str, issuer: Certificate | None = None) -> Certificate:
    """Return an authority, or a certificate for 127.0.0.1 issued by one."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
    return Certificate(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


@dataclass(frozen=True)
class Door:
    """An open front door, and how to reach it."""

    front: native.Front
    address: str
    authority: Certificate
    client: Certificate
    directory: Path
    # Whether applications take requests in memory, as far as they can, or over a socket only.
    in_memory: bool = True

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def url(self) -> str:
        return f"https://{self.address}"

    def context(self, certificate: Certificate | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        if certificate:
            path = self.directory / "client.pem"
            path.write_bytes(certificate.pem + certificate.key_pem)
            context.load_cert_chain(path)
        return context

    def http(self, *, http2: bool = False, certificate: Certificate | None = None) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, verify=self.context(certificate), http1=not http2, http2=http2, trust_env=False)


@asynccontextmanager
async def application(door: Door, app: Callable) -> AsyncIterator[None]:
    """Run an ASGI application behind the door."""
    config = uvicorn.Config(app, uds=str(door.directory / "app.sock"), log_config=None, lifespan="off", timeout_graceful_shutdown=0)
    server = uvicorn.Server(config)
    serving = asyncio.get_running_loop().create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0)
    inbox = asyncio.get_running_loop().create_task(Inbox(door.front, app, grace_s=5).serve()) if door.in_memory else None
    await asyncio.sleep(0)
    try:
        yield
    finally:
        server.should_exit = True
        await serving
        if inbox is not None:
            inbox.cancel()
            await asyncio.gather(inbox, return_exceptions=True)


@asynccontextmanager
async def raw_application(door: Door, handler: Handler) -> AsyncIterator[None]:
    """Run a server of bare bytes behind the door."""
    server = await asyncio.start_unix_server(handler, door.directory / "app.sock")
    try:
        yield
    finally:
        server.close()
        (door.directory / "app.sock").unlink(missing_ok=True)
