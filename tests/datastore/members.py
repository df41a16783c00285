"""A real cluster of etcd for tests: three processes on loopback ports, in directories of their own."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from korch.apiserver.certificates import CertificateAuthority
from korch.runtime.clock import RealClock

# How long a busy machine may take before a test gives up.
PATIENCE_S = 60


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Member:
    """One etcd process."""

    def __init__(self, name: str, client_url: str, arguments: list[str], log: Path) -> None:
        self.name = name
        self.client_url = client_url
        self.arguments = arguments
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(self.arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Stop answering without closing a connection."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()


class Relay:
    """Carries connections on to a member until it is cut; for the event loop of one test."""

    def __init__(self, member: Member) -> None:
        self._target = member.client_url.rpartition(":")[2]
        [self._port] = free_ports(1)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def datastore(self) -> str:
        return f"etcd://127.0.0.1:{self._port}"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self._port)

    async def cut(self) -> None:
        """Break every connection and take no more."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", int(self._target))
        self._writers |= {writer, far_writer}
        await asyncio.wait([asyncio.ensure_future(one) for one in (_pump(reader, far_writer), _pump(far_reader, writer))])
        self._writers -= {writer, far_writer}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
            await writer.drain()
    except (ConnectionError, asyncio.CancelledError):
        return
    finally:
        writer.transport.abort()


class EtcdCluster:
    """`size` members; with `tls`, servers and clients show certificates of one authority."""

    def __init__(self, root: Path, *, size: int = 3, tls: bool = False) -> None:
        etcd = shutil.which("etcd")
        assert etcd is not None, "these tests need etcd: scripts/system.sh installs Debian's etcd-server"
        self.root = root
        self.ca_file = self.cert_file = self.key_file = ""
        scheme, security = "http", []
        if tls:
            scheme, security = "https", self._make_certificates()
        ports = free_ports(2 * size)
        names = [f"m{index}" for index in range(size)]
        peers = ",".join(f"{name}=http://127.0.0.1:{ports[size + index]}" for index, name in enumerate(names))
        self.members: list[Member] = []
        for index, name in enumerate(names):
            url, peer = f"{scheme}://127.0.0.1:{ports[index]}", f"http://127.0.0.1:{ports[size + index]}"
            options = {
                "name": name,
                "data-dir": str(root / name),
                "listen-client-urls": url,
                "advertise-client-urls": url,
                "listen-peer-urls": peer,
                "initial-advertise-peer-urls": peer,
                "initial-cluster": peers,
                "initial-cluster-token": root.name,
                "heartbeat-interval": "100",
                "election-timeout": "1000",
            }
            arguments = [etcd, *(f"--{key}={value}" for key, value in options.items()), *security]
            self.members.append(Member(name, url, arguments, root / f"{name}.log"))

    @property
    def datastore(self) -> str:
        return "etcd://" + ",".join(member.client_url.partition("://")[2] for member in self.members)

    def start(self) -> EtcdCluster:
        for member in self.members:
            member.start()
        self.wait()
        return self

    def wait(self) -> None:
        """Return when the cluster takes writes."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.etcdctl("put", "/ready", "yes")
                return
            except subprocess.SubprocessError:
                assert time.monotonic() < deadline, self.logs()
                time.sleep(0.1)

    def leader(self) -> Member:
        """Return the member that leads now."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for member in self.members:
                try:
                    status = self.status(member)
                except (OSError, urllib.error.URLError):
                    continue
                if status.get("leader") and status["leader"] == status["header"]["member_id"]:
                    return member
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.05)

    def status(self, member: Member) -> dict[str, Any]:
        """Ask one member over its JSON gateway; for clusters without TLS."""
        request = urllib.request.Request(f"{member.client_url}/v3/maintenance/status", data=b"{}", method="POST")
        with urllib.request.urlopen(request, timeout=2) as answer:
            return json.loads(answer.read())

    def etcdctl(self, *arguments: str, text: str = "") -> str:
        """Run etcdctl against all members. Raises subprocess.SubprocessError."""
        endpoints = ",".join(member.client_url for member in self.members)
        security = [f"--cacert={self.ca_file}", f"--cert={self.cert_file}", f"--key={self.key_file}"] if self.ca_file else []
        done = subprocess.run(
            ["etcdctl", f"--endpoints={endpoints}", "--dial-timeout=2s", "--command-timeout=5s", *security, *arguments],
            env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
            timeout=PATIENCE_S,
        )
        return done.stdout

    def is_compacted(self, revision: int) -> bool:
        """Whether history at `revision` is gone."""
        try:
            self.etcdctl("get", "/ready", f"--rev={revision}")
        except subprocess.CalledProcessError as error:
            assert "compacted" in error.stderr, error.stderr
            return True
        return False

    def logs(self) -> str:
        return "\n".join(f"{file.name}:\n" + "\n".join(file.read_text().splitlines()[-8:]) for file in sorted(self.root.glob("*.log")))

    def stop(self) -> None:
        for member in self.members:
            member.stop()

    def __enter__(self) -> EtcdCluster:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _make_certificates(self) -> list[str]:
        pki = self.root / "pki"
        pki.mkdir()
        authority = CertificateAuthority.open(pki, RealClock())
        authority.issue("member", "member", hosts=["127.0.0.1", "localhost"], is_server=True)
        authority.issue("client", "client")
        self.ca_file, self.cert_file, self.key_file = (str(pki / name) for name in ("ca.crt", "client.crt", "client.key"))
        return [
            f"--cert-file={pki / 'member.crt'}",
            f"--key-file={pki / 'member.key'}",
            f"--trusted-ca-file={self.ca_file}",
            "--client-cert-auth=true",
        ]
