"""What a new cluster hands out: the admin's kubeconfig and the join token."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from korch.client.join import TOKEN_PREFIX, kubeconfig_bytes
from korch.cmd.layout import Layout


def write_credentials(layout: Layout, url: str, authority: bytes, certificate: bytes, key: bytes, pin: str) -> None:
    """Write the admin kubeconfig, and the join token if there is none yet. Blocks on the disk."""
    content = kubeconfig_bytes(url, authority, certificate, key, user="korch-admin")
    _write_private(layout.kubeconfig, content)
    ensure_token(layout, pin)


def ensure_token(layout: Layout, pin: str) -> str:
    """Return the join token of the authority with this pin, made and written if there is none yet. Blocks on the disk."""
    if not layout.token.exists() or f".{pin}." not in layout.token.read_text():
        _write_private(layout.token, f"{TOKEN_PREFIX}.{pin}.{secrets.token_hex(16)}\n".encode())
    return layout.token.read_text().strip()


def _write_private(file: Path, content: bytes) -> None:
    draft = file.with_name(f".{file.name}.draft")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(content)
    draft.replace(file)
