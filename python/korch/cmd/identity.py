"""What makes several servers one cluster: the same certificate authority, token key and join token, kept in the shared datastore.

The first server makes them and puts them there, encrypted with the secret of its join token; any other gets them with that token. So a
second server needs the datastore's address and the token, and no file has to be copied. The key of the encryption is derived
with scrypt, the encryption is AES-256-GCM; whoever reads the datastore without the token learns nothing.
"""

from __future__ import annotations

import base64
import os

import click
import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from korch._core import native
from korch.apiserver.certificates import CertificateAuthority, write_private
from korch.client.join import parse_token
from korch.cmd.credentials import ensure_token
from korch.cmd.datastore import DatastoreOptions, open_storage
from korch.cmd.layout import Layout
from korch.runtime.context import Runtime

KEY = b"/registry/korch.io/bootstrap"
_FILES = ("ca.crt", "ca.key", "service-account.key")


async def share_identity(layout: Layout, options: DatastoreOptions, runtime: Runtime) -> None:
    """Make `layout.pki` and `layout.token` the cluster's: taken from the datastore, or put there if nobody did yet.

    Raises click.ClickException when the datastore belongs to a cluster whose token is not given, or to another one than the files.
    """
    storage = open_storage(layout, options, runtime)
    try:
        await storage.caught_up()
        record = storage.get(KEY)
        if record is None:
            token, files = _make(layout, options, runtime)
            value = _sealed(token, files)
            try:
                await storage.commit([(KEY, value, 0, -1, {}, {}, ())])
                return
            except native.KeyExists:
                # Another server was first; what was made here is replaced unless it is ours to keep.
                await storage.settled()
                record = storage.get(KEY)
                if record is None:
                    raise click.ClickException("the cluster's keys were removed from the datastore while this server started") from None
        _adopt(record.value, layout, options)
    finally:
        await storage.close()


def _make(layout: Layout, options: DatastoreOptions, runtime: Runtime) -> tuple[str, dict[str, bytes]]:
    """Return the token and the files of this server, made where they are missing."""
    if options.token and not layout.token.exists():
        raise click.ClickException("the datastore holds no cluster yet, so --token names none: start the first server without it")
    authority = CertificateAuthority.open(layout.pki, runtime.clock)
    authority.signing_key("service-account")
    token = ensure_token(layout, authority.pin)
    return token, {name: (layout.pki / name).read_bytes() for name in _FILES}


def _adopt(sealed: bytes, layout: Layout, options: DatastoreOptions) -> None:
    """Write the cluster's files here. Raises click.ClickException when no token opens them or others are here."""
    token = options.token or (layout.token.read_text() if layout.token.exists() else "")
    if not token:
        raise click.ClickException(
            "the datastore holds a cluster already: give its token with --token (see the file `token` in another server's data)"
        )
    try:
        files = _opened(token, sealed)
    except (ValueError, InvalidTag) as error:
        raise click.ClickException(f"the datastore holds a cluster that the token of {layout.root} does not open") from error
    for name, content in files.items():
        file = layout.pki / name
        if not file.exists() or file.read_bytes() != content:
            write_private(file, content)
    write_private(layout.token, token.strip().encode() + b"\n")


def _sealed(token: str, files: dict[str, bytes]) -> bytes:
    salt, nonce = os.urandom(16), os.urandom(12)
    plain = orjson.dumps({name: content.decode() for name, content in files.items()})
    secret = AESGCM(_key(token, salt)).encrypt(nonce, plain, None)
    fields = {"salt": salt, "nonce": nonce, "secret": secret}
    return orjson.dumps({"version": 1, **{name: base64.b64encode(value).decode() for name, value in fields.items()}})


def _opened(token: str, sealed: bytes) -> dict[str, bytes]:
    document = orjson.loads(sealed)
    salt, nonce, secret = (base64.b64decode(document[name]) for name in ("salt", "nonce", "secret"))
    files = orjson.loads(AESGCM(_key(token, salt)).decrypt(nonce, secret, None))
    return {name: str(files[name]).encode() for name in _FILES}


def _key(token: str, salt: bytes) -> bytes:
    _, secret = parse_token(token)
    return Scrypt(salt=salt, length=32, n=1 << 14, r=8, p=1).derive(secret.encode())
