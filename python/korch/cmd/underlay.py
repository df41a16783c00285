"""The network below the nodes of one machine: a bridge, and with several nodes a namespace and a cable for each.

One node lives in the machine's own network namespace and takes the bridge's address as its own. Several nodes get a
namespace each, joined by veth pairs to the bridge; the machine then routes to their pod subnets and masquerades what leaves
for the outside. Whatever is changed is written down first, so that `remove` can take it back even after a crash.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from korch._core import native

SUBNET_PREFIX = "172.31"
_SYSCTLS = ("net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables")
_FIRST_NODE_HOST = 11


class UnderlayError(Exception):
    """A command that changes the machine's network failed; the message holds the command and what it printed."""


@dataclass(frozen=True, slots=True)
class NodeNetwork:
    """Where a node lives: `netns` is a path, "" for the machine's own namespace; `address` is its IPv4 address."""

    name: str
    netns: str
    address: str


class Underlay:
    """The underlay of the cluster `cluster_id`; `record` is the file that remembers what was changed. All methods block."""

    def __init__(self, cluster_id: str, record: Path) -> None:
        self._id = cluster_id
        self._record = record
        # The third byte keeps clusters of one machine apart.
        self._subnet = f"{SUBNET_PREFIX}.{int(cluster_id[:2], 16)}"

    @property
    def bridge(self) -> str:
        return f"kc{self._id}"

    @property
    def host_address(self) -> str:
        """Return the machine's address on the bridge, where pods and nodes reach the API server."""
        return f"{self._subnet}.1"

    def network_of(self, names: Sequence[str], name: str) -> NodeNetwork:
        if len(names) == 1:
            return NodeNetwork(name, "", self.host_address)
        return NodeNetwork(name, f"/run/netns/{self._namespace(name)}", f"{self._subnet}.{_FIRST_NODE_HOST + list(names).index(name)}")

    def create(self, names: Sequence[str]) -> None:
        """Make what is missing. Raises UnderlayError, and then nothing is forgotten: `remove` still takes all of it back."""
        several = len(names) > 1
        changes = self._load()
        changes["bridge"] = self.bridge
        changes["namespaces"] = sorted({*changes.get("namespaces", []), *([self._namespace(name) for name in names] if several else [])})
        changes["table"] = f"korch-{self._id}" if several else ""
        changes.setdefault("sysctls", {})
        for name in _SYSCTLS:
            file = Path("/proc/sys") / name
            if file.exists() and name not in changes["sysctls"]:
                changes["sysctls"][name] = file.read_text().strip()
        self._record.write_bytes(orjson.dumps(changes))
        for name in changes["sysctls"]:
            (Path("/proc/sys") / name).write_text("1")
        if not Path(f"/sys/class/net/{self.bridge}").exists():
            _run("ip", "link", "add", self.bridge, "type", "bridge")
        _run("ip", "address", "replace", f"{self.host_address}/24", "dev", self.bridge)
        _run("ip", "link", "set", self.bridge, "up")
        if several:
            for name in names:
                self._create_node(self.network_of(names, name))
            self._masquerade(changes["table"])

    def _create_node(self, node: NodeNetwork) -> None:
        namespace = self._namespace(node.name)
        if Path(node.netns).exists():
            return
        outside, inside = f"{self.bridge}{node.name}"[:15], "eth0"
        _run("ip", "netns", "add", namespace)
        _run("ip", "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", namespace)
        _run("ip", "link", "set", outside, "master", self.bridge, "up")
        for arguments in (
            ("address", "add", f"{node.address}/24", "dev", inside),
            ("link", "set", inside, "up"),
            ("link", "set", "lo", "up"),
            ("route", "add", "default", "via", self.host_address),
        ):
            _run("ip", "-n", namespace, *arguments)

    def _masquerade(self, table: str) -> None:
        rules = (
            f"add table ip {table}\nflush table ip {table}\n"
            f"add chain ip {table} postrouting {{ type nat hook postrouting priority 100; }}\n"
            f"add rule ip {table} postrouting ip saddr {self._subnet}.0/24 oifname != {self.bridge} masquerade\n"
        )
        _run("nft", "-f", "-", text=rules)

    def route(self, pod_cidr: str, via: str) -> None:
        """Lead a node's pod subnet over its address; the same route again changes nothing. Raises UnderlayError."""
        _run("ip", "route", "replace", pod_cidr, "via", via, "dev", self.bridge)

    def remove(self) -> None:
        """Take back everything that was recorded; what is already gone is no error."""
        changes = self._load()
        if not changes:
            return
        for namespace in changes.get("namespaces", []):
            if Path(f"/run/netns/{namespace}").exists():
                _run("ip", "netns", "delete", namespace)
        if changes.get("table"):
            # With several nodes the machine itself runs a proxy too; its table outlives it on purpose.
            native.Proxy.cleanup()
            _run("nft", "-f", "-", text=f"add table ip {changes['table']}\ndelete table ip {changes['table']}\n")
        if Path(f"/sys/class/net/{changes['bridge']}").exists():
            _run("ip", "link", "delete", changes["bridge"])
        for name, value in changes.get("sysctls", {}).items():
            (Path("/proc/sys") / name).write_text(value)
        self._record.unlink(missing_ok=True)

    def _namespace(self, node: str) -> str:
        return f"korch-{self._id}-{node}"

    def _load(self) -> dict:
        try:
            return orjson.loads(self._record.read_bytes())
        except FileNotFoundError:
            return {}


def _run(*command: str, text: str = "") -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UnderlayError(f"{' '.join(command)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
