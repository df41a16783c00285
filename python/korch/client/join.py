"""Joining a cluster with a URL and a token, without trusting the network on the way.

A token is `korch1.<pin>.<secret>`: the pin is the SHA-256 of the cluster's CA certificate. The joiner fetches the CA
certificate over an unverified connection, checks it against the pin, and only then, over a verified connection, sends the
secret together with certificate signing requests. Private keys never leave the machine.
"""

from __future__ import annotations

import base64
import hashlib
import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from korch.api.errors import ApiError

TOKEN_PREFIX = "korch1"
Role = Literal["node", "scheduler", "controller-manager"]
_TIMEOUT_S = 10


def parse_token(token: str) -> tuple[str, str]:
    """Return (pin, secret). Raises ValueError for anything that is not a join token."""
    parts = token.strip().split(".")
    if len(parts) != 3 or parts[0] != TOKEN_PREFIX or len(parts[1]) != 64 or not parts[2]:
        raise ValueError(f"not a join token: expected {TOKEN_PREFIX}.<64 hex digits>.<secret>")
    return parts[1], parts[2]


async def join(url: str, token: str, name: str, ips: Sequence[str], directory: Path, *, role: Role = "node") -> Path:
    """Obtain certificates for `name` and write `kubeconfig`, `client.crt/.key`, `serving.crt/.key` and `ca.crt` under `directory`.

    Return the kubeconfig's path. A directory that has already joined the same cluster is left as it is.
    Raises ValueError (bad token, wrong CA), ApiError (refused), ConnectionError.
    """
    pin, _ = parse_token(token)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    kubeconfig = directory / "kubeconfig"
    if kubeconfig.exists() and _pin_of((directory / "ca.crt").read_bytes()) == pin:
        return kubeconfig
    authority = await _fetch_authority(url, pin)
    client_key, serving_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    request = {
        "role": role,
        "name": name,
        "ips": list(ips),
        "clientRequest": _signing_request(client_key, name),
        "servingRequest": _signing_request(serving_key, name),
    }
    answer = await _post(f"{url.rstrip('/')}/korch/v1/join", request, token, authority)
    client_certificate, client_key_pem = str(answer["clientCertificate"]), _pem(client_key)
    _write(directory / "ca.crt", authority)
    _write(directory / "client.crt", client_certificate.encode())
    _write(directory / "client.key", client_key_pem)
    _write(directory / "serving.crt", str(answer["servingCertificate"]).encode())
    _write(directory / "serving.key", _pem(serving_key))
    _write(kubeconfig, kubeconfig_bytes(url, authority, client_certificate.encode(), client_key_pem, user=str(answer["user"])))
    return kubeconfig


def kubeconfig_bytes(url: str, authority: bytes, certificate: bytes, key: bytes, *, user: str, cluster: str = "korch") -> bytes:
    """Return a kubeconfig (JSON, which is YAML) with everything embedded."""

    def encoded(data: bytes) -> str:
        return base64.b64encode(data).decode()

    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {"server": url, "certificate-authority-data": encoded(authority)}}],
        "users": [{"name": user, "user": {"client-certificate-data": encoded(certificate), "client-key-data": encoded(key)}}],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
        "current-context": cluster,
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n"


async def _fetch_authority(url: str, pin: str) -> bytes:
    import aiohttp

    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session,
        session.get(f"{url.rstrip('/')}/korch/v1/ca", ssl=False) as response,
    ):
        authority = await response.read()
        if response.status != 200:
            raise ConnectionError(f"{url}: no CA certificate to be had: HTTP {response.status}")
    if _pin_of(authority) != pin:
        raise ValueError(f"{url} shows another CA certificate than the token names: wrong server, or someone in between")
    return authority


async def _post(url: str, body: dict[str, object], token: str, authority: bytes) -> dict[str, object]:
    import aiohttp

    context = ssl.create_default_context(cadata=authority.decode())
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session,
        session.post(url, data=orjson.dumps(body), headers=headers, ssl=context) as response,
    ):
        answer = orjson.loads(await response.read())
        if response.status >= 400:
            raise ApiError.from_status(answer)
        return answer


def _signing_request(key: ec.EllipticCurvePrivateKey, name: str) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def _pin_of(authority: bytes) -> str:
    try:
        certificate = x509.load_pem_x509_certificate(authority)
    except ValueError:
        return ""
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _write(file: Path, content: bytes) -> None:
    draft = file.with_name(f".{file.name}.draft")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(content)
    draft.replace(file)
