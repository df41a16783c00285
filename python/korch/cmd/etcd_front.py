"""The etcd API of a whole server, `korch server --etcd-listen`: for etcdctl, backup tools and whoever else wants to see the store itself.

Whoever speaks it reads every Secret and writes past all admission, so it is served over TLS to holders of a certificate of an authority
of its own: `pki/etcd/` in the data directory holds `ca.crt`, and `client.crt` with `client.key` for the administrator.
"""

from __future__ import annotations

from korch._core import native
from korch.apiserver.certificates import CertificateAuthority
from korch.cmd.layout import Layout
from korch.runtime.clock import Clock
from korch.storage import Storage


def etcd_front(storage: Storage, layout: Layout, clock: Clock, address: str) -> native.EtcdFront:
    """Return the front, not started yet, for `address` (HOST:PORT). Blocks while keys are made; raises OSError."""
    authority = CertificateAuthority.open(layout.pki / "etcd", clock)
    host = address.rpartition(":")[0].strip("[]")
    hosts = sorted({"localhost", "127.0.0.1", host} - {"0.0.0.0", "::"})
    authority.issue("server", "korch-etcd", hosts=hosts, is_server=True)
    authority.issue("client", "korch-etcd-client")
    return native.EtcdFront(
        storage.native,
        bind=[address],
        name="korch",
        client_urls=[],
        certificate_file=authority.directory / "server.crt",
        key_file=authority.directory / "server.key",
        client_ca_file=authority.directory / "ca.crt",
    )
