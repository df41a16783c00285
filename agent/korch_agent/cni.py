"""What the pod network changes on the machine: CNI configuration, the masquerading table, kernel settings, and how to undo it.

Kernel settings that had to change are remembered in the data directory, and `teardown` puts them back. All of it happens in the
network namespace that the agent runs in.
"""

from __future__ import annotations

import asyncio
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from korch.runtime.log import get_logger

BRIDGE = "cni0"
TABLE = "korch-agent"
CONFLIST = "10-korch.conflist"
STATE = "network.json"
DEFAULT_MTU = 1500
SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/bridge/bridge-nf-call-iptables": "1",
}

log = get_logger("network")


class NetworkFailed(RuntimeError):
    """A network command of the machine failed."""


def conflist(*, name: str, pod_cidr: str, data_dir: Path, mtu: int = DEFAULT_MTU, bridge: str = BRIDGE) -> bytes:
    """Return the CNI network list (JSON) for one node's pods."""
    document = {
        "cniVersion": "1.0.0",
        "name": name,
        "plugins": [
            {
                "type": "bridge",
                "bridge": bridge,
                "isGateway": True,
                "ipMasq": False,
                "hairpinMode": True,
                "promiscMode": False,
                "mtu": mtu,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(data_dir),
                    "ranges": [[{"subnet": pod_cidr}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
        ],
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n"


def ruleset(*, pod_cidr: str, pod_cidrs: Sequence[str], bridge: str = BRIDGE) -> str:
    """Return the nftables script that replaces the masquerading table in one transaction."""
    elements = ", ".join(sorted({pod_cidr, *pod_cidrs}))
    return f"""
table ip {TABLE} {{}}
delete table ip {TABLE}
table ip {TABLE} {{
  set pods {{ type ipv4_addr; flags interval; auto-merge; elements = {{ {elements} }}; }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {pod_cidr} ip daddr != @pods ip daddr != 224.0.0.0/4 oifname != "{bridge}" masquerade
  }}
}}
"""


def prepare_machine(data_dir: Path) -> None:
    """Switch on forwarding and bridge filtering in this network namespace, remembering what was there. Blocks."""
    if not Path("/proc/sys/net/bridge").is_dir() and shutil.which("modprobe"):
        subprocess.run(["modprobe", "-q", "br_netfilter"], capture_output=True, check=False)
    state = read_state(data_dir)
    if "tables" not in state:
        state["tables"] = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout.splitlines()
        write_state(data_dir, state)
    before: dict[str, str] = state.get("sysctls", {})
    for name, value in SYSCTLS.items():
        file = Path("/proc/sys", name)
        if file.exists() and (present := file.read_text().strip()) != value:
            before.setdefault(name, present)
            write_state(data_dir, state | {"sysctls": before})
            file.write_text(value)


def underlay_mtu() -> int:
    """Return the MTU of the interface that the default route uses, or of the largest that is up, or 1500."""
    name = ""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == "00000000":
            name = fields[0]
            break
    file = Path("/sys/class/net", name, "mtu")
    return int(file.read_text()) if name and file.exists() else DEFAULT_MTU


def read_state(data_dir: Path) -> dict[str, Any]:
    """Return what this node changed on the machine."""
    file = data_dir / STATE
    return orjson.loads(file.read_bytes()) if file.exists() else {}


def write_state(data_dir: Path, state: Mapping[str, Any]) -> None:
    """Remember what this node changed on the machine, atomically."""
    draft = data_dir / f".{STATE}"
    draft.write_bytes(orjson.dumps(state))
    draft.replace(data_dir / STATE)


def teardown(data_dir: Path, netns: str = "") -> None:
    """Take the pod network away and put kernel settings back. Blocks. Nothing to take away is no error."""
    state = read_state(data_dir)
    config_file = data_dir / "cni" / "net.d" / CONFLIST
    if not config_file.exists() and not state:
        return
    enter = ["nsenter", f"--net={netns}"] if netns else []

    def command(*arguments: str, text: str = "") -> str:
        return subprocess.run([*enter, *arguments], input=text, capture_output=True, text=True, check=False).stdout

    command("nft", "delete", "table", "ip", TABLE)
    if config_file.exists():
        command("ip", "link", "delete", orjson.loads(config_file.read_bytes())["plugins"][0]["bridge"])
        config_file.unlink()
    for cidr in state.get("routes", {}):
        command("ip", "route", "del", cidr)
    for name, value in state.get("sysctls", {}).items():
        command("tee", f"/proc/sys/{name}", text=value)
    _remove_portmap_chains(command)
    for table in ("table ip nat", "table ip6 nat"):
        # iptables makes its tables when it is first used; those that the portmap plugin caused go again, if nobody else uses them.
        listing = command("nft", *("list " + table).split())
        if table not in state.get("tables", [table]) and listing and not _has_rules(listing):
            command("nft", *("delete " + table).split())
    (data_dir / STATE).unlink(missing_ok=True)


def _has_rules(listing: str) -> bool:
    """Return whether a listed table holds more than empty chains."""
    lines = (line.strip() for line in listing.splitlines())
    return any(line and not line.startswith(("table", "chain", "type ", "#", "}")) for line in lines)


def _remove_portmap_chains(command: Any) -> None:
    """Remove the chains that the portmap plugin leaves once its last port is gone."""
    rules = command("iptables", "-t", "nat", "-S")
    if "CNI-DN-" in rules or "CNI-HOSTPORT" not in rules:
        return  # Ports of somebody else's pods are still mapped, or there was never one.
    lines = rules.splitlines()
    for line in lines:
        if line.startswith("-A") and "CNI-HOSTPORT" in line:
            command("iptables", "-t", "nat", "-D", *shlex.split(line)[1:])
    for line in lines:
        if line.startswith("-N CNI-HOSTPORT"):
            command("iptables", "-t", "nat", "-F", line.split()[1])
            command("iptables", "-t", "nat", "-X", line.split()[1])


async def run(*arguments: str, text: str = "", ok: bool = True) -> str:
    """Run a command with `text` as its input and return its output. Raises NetworkFailed when it fails and `ok`."""
    process = await asyncio.create_subprocess_exec(
        *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate(text.encode())
    if process.returncode != 0:
        problem = f"{' '.join(arguments)}: {errors.decode(errors='replace').strip()}"
        if ok:
            raise NetworkFailed(problem)
        log.warning("network command failed", problem=problem)
    return output.decode(errors="replace")
